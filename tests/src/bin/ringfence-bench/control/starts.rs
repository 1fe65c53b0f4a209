//! How soon a starting agent enforces.
//!
//! With nothing in the kernel: from exec to the first denied packet. With the enforcement that its
//! predecessor left, which holds all the while: from exec to its own word that it enforces. The agent
//! is started here and not by the test bed, whose waiting would take a CPU from it.

use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, eventually, interrupt};

use crate::figures::{Figure, Unit};
use crate::report::{distribution, heading, table};
use crate::scene::{MOVING_AT, Scene};

const SOON: Duration = Duration::from_secs(60);

/// A started agent; dropping it ends it.
struct Started(Child);

impl Started {
    fn agent(agent: &Agent) -> Result<Self> {
        let mut command = agent.command();
        command.args(["agent", "--config"]).arg(agent.config_path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.context("starting the agent")?))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures and prints; the agent runs before and after.
pub(super) fn measure(scene: &mut Scene, times: usize) -> Result<Vec<Figure>> {
    scene.agent.kill()?;
    let mut empty = Vec::new();
    let mut probe = scene.wires.probe(MOVING_AT[0])?;
    for _ in 0..times {
        interrupt::check()?;
        clean_up(&scene.agent)?;
        // The kernel takes programs off a moment after their pins are gone.
        probe.settle(true)?;
        let mut started = None;
        empty.push(probe.time(false, || {
            started = Some(Started::agent(&scene.agent)?);
            Ok(())
        })?);
    }
    let mut ready = Vec::new();
    for _ in 0..times {
        interrupt::check()?;
        let at = Instant::now();
        let started = Started::agent(&scene.agent)?;
        let socket = scene.agent.socket_path();
        eventually(SOON, "the agent's socket", || {
            Ok(UnixStream::connect(&socket).is_ok().then_some(()))
        })?;
        scene.wait_enforcing()?;
        ready.push(at.elapsed());
        drop(started);
    }
    scene.agent.restart()?;
    scene.wait_enforcing()?;
    print(&empty, &ready);
    let figure = |what: &str, samples: &[Duration]| {
        let samples: Vec<f64> = samples
            .iter()
            .map(|took| took.as_secs_f64() * 1e3)
            .collect();
        let name = format!("control/{what}/ringfence@{}", scene.size.peers);
        Figure::of(name, Unit::Ms, &samples)
    };
    Ok(vec![figure("start", &empty), figure("restart", &ready)])
}

fn clean_up(agent: &Agent) -> Result<()> {
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
            "nothing in the kernel yet, to the first denied packet",
            empty,
        ),
        row("enforcement left by its predecessor, to `enforcing`", ready),
    ];
    table(&["", "times", "p50", "p90", "p99", "worst"], &rows);
}
