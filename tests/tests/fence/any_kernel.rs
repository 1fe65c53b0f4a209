//! The least that an agent must do on every supported kernel: load, attach, pass, deny.
//!
//! `cargo xtask kernels` runs this on other kernels than this machine's. The report names the kernel and
//! how fences are attached there.

use anyhow::{Context as _, Result, ensure};
use ringfence::oracle::report;
use ringfence_testbed::eventually;

use crate::testbed::{CLIENT_TO_SERVER, Ping, ProbeSpec, SOON, Tcp, Testbed, Udp};

const ALLOWED: [ProbeSpec; 1] = [("client", "server", Tcp(8080))];
const DENIED: [ProbeSpec; 4] = [
    ("client", "server", Tcp(8081)),
    ("client", "server", Udp(53)),
    ("client", "server", Ping),
    ("other", "server", Tcp(8080)),
];

#[test]
fn an_agent_loads_attaches_passes_and_denies() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/other", &[("app", "other")])?
        .with_labels("shop/server", &[("app", "server")])?;
    let mut agent = testbed.agent("observe", CLIENT_TO_SERVER)?;
    let status = agent.cli_json(&["status"])?;
    let kernel = |key: &str| status["kernel"][key].as_str().context("kernel in status");
    report(&format!(
        "kernel {}: attached by {}",
        kernel("version")?,
        kernel("attach")?
    ));
    ensure!(status["attached"] == 3, "{status}");
    testbed.check_policy(&agent, &ALLOWED, &DENIED)?;

    agent.restart()?;
    testbed
        .expect_answered(&ALLOWED)
        .context("after a restart")?;
    testbed.expect_silent(&DENIED).context("after a restart")?;

    // The control: what was denied arrives once the fences are off, which takes the kernel a moment.
    drop(agent);
    eventually(SOON, "an answer to every probe without an agent", || {
        Ok(testbed.all_answered(&DENIED).then_some(()))
    })
}
