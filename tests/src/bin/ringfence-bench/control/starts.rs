//! The time until a starting agent enforces.
//!
//! With nothing in the kernel: from exec to the first denied packet. With the enforcement left by
//! its predecessor, which stays in force: from exec until it reports that it enforces. The agent is
//! started here and not by the test bed, which would use CPU time while waiting.

use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, eventually, interrupt};

use crate::bench_node::{BenchNode, MOVING_AT};
use crate::figures::{Figure, Unit};
use crate::report::{distribution, heading, table};

const SOON: Duration = Duration::from_secs(60);

/// A started agent; dropping this kills it.
pub(super) struct AgentProcess(Child);

impl AgentProcess {
    pub(super) fn agent(agent: &Agent) -> Result<Self> {
        let mut command = agent.command();
        command.args(["agent", "--config"]).arg(agent.config_path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.context("starting the agent")?))
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures and prints. The agent is running before and after.
pub(super) fn measure(bench: &mut BenchNode, times: usize) -> Result<Vec<Figure>> {
    bench.agent.kill()?;
    let mut empty = Vec::new();
    let mut probe = bench.network.probe(MOVING_AT[0])?;
    for _ in 0..times {
        interrupt::check()?;
        clean_up(&bench.agent)?;
        // The kernel detaches programs some time after their pins are removed.
        probe.wait_for(true)?;
        let mut started = None;
        empty.push(probe.time(false, || {
            started = Some(AgentProcess::agent(&bench.agent)?);
            Ok(())
        })?);
    }
    let mut ready = Vec::new();
    for _ in 0..times {
        interrupt::check()?;
        let at = Instant::now();
        let started = AgentProcess::agent(&bench.agent)?;
        wait_for_socket(&bench.agent)?;
        bench.wait_enforcing()?;
        ready.push(at.elapsed());
        drop(started);
    }
    bench.agent.restart()?;
    bench.wait_enforcing()?;
    print(&empty, &ready);
    let figure = |what: &str, samples: &[Duration]| {
        let samples: Vec<f64> = samples
            .iter()
            .map(|took| took.as_secs_f64() * 1e3)
            .collect();
        let name = format!("control/{what}/ringfence@{}", bench.size.peers);
        Figure::of(name, Unit::Ms, &samples)
    };
    Ok(vec![figure("start", &empty), figure("restart", &ready)])
}

/// Waits until the agent answers.
pub(super) fn wait_for_socket(agent: &Agent) -> Result<()> {
    let socket = agent.socket_path();
    eventually(SOON, "the agent's socket", || {
        Ok(UnixStream::connect(&socket).is_ok().then_some(()))
    })
}

/// Removes every fence, and all state.
pub(super) fn clean_up(agent: &Agent) -> Result<()> {
    let config = agent.config_path();
    let config = config.to_str().context("a path that is not UTF-8")?;
    let output = agent.cli(&["cleanup", "--config", config])?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ringfence cleanup: {message}");
    Ok(())
}

fn print(empty: &[Duration], ready: &[Duration]) {
    heading("Start of the agent");
    let row = |name: &str, samples: &[Duration]| {
        let mut row = vec![name.to_owned(), samples.len().to_string()];
        row.extend(distribution(samples));
        row
    };
    let rows = [
        row(
            "nothing in the kernel, until the first denied packet",
            empty,
        ),
        row(
            "enforcement left by its predecessor, until `enforcing`",
            ready,
        ),
    ];
    table(&["", "times", "p50", "p90", "p99", "worst"], &rows);
}
