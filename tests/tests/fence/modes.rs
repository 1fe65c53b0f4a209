//! Modes: `observe` never drops, `lockdown` drops everything, each namespace for itself.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{End, Stream};

use crate::world::{Large, Ping, SHORT, SHUT, SOON, Tcp, Try, Udp, World, run};

#[test]
fn observe_drops_nothing_and_counts_what_it_would() -> Result<()> {
    let world = World::new(&[("shop", &[])])?
        .labelled("shop/a", &[])?
        .labelled("shop/b", &[])?
        .labelled("ext", &[])?;
    let agent = world.agent("observe", SHUT)?;
    let mut tries: Vec<Try> = Vec::new();
    for what in [Tcp(8080), Udp(53), Large(53), Ping] {
        tries.extend([("a", "b", what), ("a", "ext", what), ("ext", "b", what)]);
    }
    world.arrive(&tries)?;
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
    world.set_mode(&agent, "enforce")?;
    world.vanish(&tries).context("the same in enforce")?;
    ensure!(counted("dropped")? >= 24, "{} dropped", counted("dropped")?);
    Ok(())
}

#[test]
fn lockdown_cuts_one_namespace_and_spares_the_other() -> Result<()> {
    let world = World::new(&[("shop", &[]), ("lab", &[])])?
        .labelled("shop/a", &[])?
        .labelled("shop/b", &[])?
        .labelled("lab/x", &[])?
        .labelled("lab/y", &[])?;
    let agent = world.agent("enforce", "")?;
    let cut: Vec<Try> = vec![
        ("a", "b", Tcp(8080)),
        ("a", "b", Udp(53)),
        ("a", "b", Ping),
        ("x", "a", Tcp(8080)),
        ("a", "x", Udp(53)),
        // Even the node's own sockets.
        ("node", "b", Tcp(8080)),
    ];
    let spared: [Try; 2] = [("x", "y", Tcp(8080)), ("x", "y", Ping)];
    world.arrive(&cut).context("the control")?;
    let (a, b) = (&world.at("a").workload, &world.at("b").workload);
    let mut stream = Stream::open(&a.ns, &b.ns, b.ip(false), 0, SOON)?;
    run(&agent, &["mode", "set", "shop", "lockdown"])?;
    world.vanish(&cut)?;
    stream.expect_silent(End::Client, SHORT)?;
    stream.expect_silent(End::Server, SHORT)?;
    world.arrive(&spared)?;
    run(&agent, &["mode", "set", "shop", "enforce"])?;
    world.arrive(&cut).context("after the lockdown")?;
    stream.expect_delivered(End::Client, SOON)
}
