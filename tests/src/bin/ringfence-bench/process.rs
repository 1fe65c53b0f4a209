//! The real agent on the measured world: its memory, and how soon it enforces.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, AgentSpec, Node, Workload, interrupt};
use serde_json::Value;

use crate::Effort;
use crate::change::Stream;
use crate::report::{distribution, heading, table};
use crate::world;

const SOON: Duration = Duration::from_secs(20);

/// A node with two workloads and a running agent that enforces.
pub(crate) struct Bench {
    pub(crate) agent: Agent,
    pub(crate) target: Workload,
    pub(crate) sender: Workload,
    _node: Node,
}

impl Bench {
    /// Starts the agent on the measured world.
    pub(crate) fn start() -> Result<Self> {
        let node = Node::new()?;
        let target = node.workload_at(world::NAMESPACE, "target", world::TARGET)?;
        let sender = node.workload_at(world::NAMESPACE, "sender", world::SENDER)?;
        let spec = AgentSpec {
            inventory: world::inventory(&node, &target, &sender),
            policies: world::policies(false),
            modes: vec![(world::NAMESPACE.to_owned(), "enforce".to_owned())],
            default_mode: "observe".to_owned(),
            ..AgentSpec::default()
        };
        let bench = Self {
            agent: Agent::start(&node, &spec)?,
            target,
            sender,
            _node: node,
        };
        bench.wait_enforcing()?;
        Ok(bench)
    }

    fn wait_enforcing(&self) -> Result<()> {
        let condition = || {
            let status = self.agent.cli_json(&["status"])?;
            Ok(status.get("enforcing").and_then(Value::as_bool) == Some(true))
        };
        self.agent
            .wait_until(condition, SOON, "the agent enforcing")
    }
}

/// Prints the agent's memory.
pub(crate) fn memory(bench: &Bench, changes: usize) -> Result<()> {
    heading("Memory of the agent");
    let pid = bench.agent.pid().context("the agent does not run")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = |key: &str| -> Result<String> {
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: u32 = kib.with_context(|| format!("no {key}"))?.parse()?;
        Ok(format!("{:.1} MiB", f64::from(kib) / 1024.0))
    };
    let rows = [vec![
        format!("after {changes} policy changes"),
        value("VmRSS")?,
        value("VmHWM")?,
    ]];
    table(&["", "resident", "peak"], &rows);
    Ok(())
}

/// Prints how long the agent takes from being started to enforcing.
pub(crate) fn starts(bench: &mut Bench, effort: Effort) -> Result<()> {
    heading("Start of the agent, from exec to the first denied packet");
    let (mut empty, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..effort.starts {
        interrupt::check()?;
        bench.agent.kill()?;
        let config = bench.agent.config_path();
        let config = config.to_str().context("a path that is not UTF-8")?;
        let output = bench.agent.cli(&["cleanup", "--config", config])?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ringfence cleanup: {message}");
        let mut stream = Stream::open(bench)?;
        // The kernel takes programs off a moment after their pins are gone.
        stream.until(true, Instant::now(), SOON)?;
        let (agent, started) = (&mut bench.agent, Instant::now());
        let denied = std::thread::scope(|scope| -> Result<Duration> {
            let probing = scope.spawn(|| stream.until(false, started, SOON));
            agent.restart()?;
            let probed = probing.join();
            probed.map_err(|_| anyhow::anyhow!("the probe panicked"))?
        })?;
        empty.push(denied);
        bench.wait_enforcing()?;
    }
    for _ in 0..effort.starts {
        interrupt::check()?;
        bench.agent.kill()?;
        let started = Instant::now();
        bench.agent.restart()?;
        bench.wait_enforcing()?;
        ready.push(started.elapsed());
    }
    let row = |name: &str, samples: &[Duration]| {
        let mut row = vec![name.to_owned()];
        row.extend(distribution(samples));
        row
    };
    let rows = [
        row(
            "nothing in the kernel yet, to the first denied packet",
            &empty,
        ),
        row(
            "enforcement left by its predecessor, to `enforcing`",
            &ready,
        ),
    ];
    table(&["", "p50", "p90", "p99", "worst"], &rows);
    Ok(())
}
