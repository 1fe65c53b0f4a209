//! Modes: `observe` never drops, `lockdown` drops everything, separately for each namespace.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{End, Stream};

use crate::testbed::{DENY_ALL, Large, Ping, ProbeSpec, SHORT, SOON, Tcp, Testbed, Udp, run};

#[test]
fn observe_drops_nothing_and_counts_what_it_would_drop() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/a", &[])?
        .with_labels("shop/b", &[])?
        .with_labels("ext", &[])?;
    let agent = testbed.agent("observe", DENY_ALL)?;
    let mut specs: Vec<ProbeSpec> = Vec::new();
    for what in [Tcp(8080), Udp(53), Large(53), Ping] {
        specs.extend([("a", "b", what), ("a", "ext", what), ("ext", "b", what)]);
    }
    testbed.expect_answered(&specs)?;
    let counted = |key: &str| -> Result<u64> {
        let status = agent.cli_json(&["status"])?;
        let drops = status["drops"].as_array().context("drops")?.clone();
        Ok(drops.iter().filter_map(|drop| drop[key].as_u64()).sum())
    };
    ensure!(counted("dropped")? == 0, "dropped in observe");
    ensure!(
        counted("observed")? >= 24,
        "{} observed",
        counted("observed")?
    );
    testbed.set_mode(&agent, "enforce")?;
    testbed
        .expect_silent(&specs)
        .context("the same in enforce")?;
    ensure!(counted("dropped")? >= 24, "{} dropped", counted("dropped")?);
    Ok(())
}

#[test]
fn lockdown_closes_one_namespace_and_not_the_other() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[]), ("lab", &[])])?
        .with_labels("shop/a", &[])?
        .with_labels("shop/b", &[])?
        .with_labels("lab/x", &[])?
        .with_labels("lab/y", &[])?;
    let agent = testbed.agent("enforce", "")?;
    let closed: Vec<ProbeSpec> = vec![
        ("a", "b", Tcp(8080)),
        ("a", "b", Udp(53)),
        ("a", "b", Ping),
        ("x", "a", Tcp(8080)),
        ("a", "x", Udp(53)),
        // Lockdown also applies to host ingress.
        ("node", "b", Tcp(8080)),
    ];
    let open: [ProbeSpec; 2] = [("x", "y", Tcp(8080)), ("x", "y", Ping)];
    testbed.expect_answered(&closed).context("the control")?;
    let (a, b) = (&testbed.host("a").workload, &testbed.host("b").workload);
    let mut stream = Stream::open(&a.ns, &b.ns, b.ip(false), 0, SOON)?;
    run(&agent, &["mode", "set", "shop", "lockdown"])?;
    testbed.expect_silent(&closed)?;
    stream.expect_silent(End::Client, SHORT)?;
    stream.expect_silent(End::Server, SHORT)?;
    testbed.expect_answered(&open)?;
    run(&agent, &["mode", "set", "shop", "enforce"])?;
    testbed
        .expect_answered(&closed)
        .context("after the lockdown")?;
    stream.expect_delivered(End::Client, SOON)
}
