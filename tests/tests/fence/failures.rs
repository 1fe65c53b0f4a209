//! An agent that dies, stops or cleans up: what stays and what goes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, AgentSpec, eventually};

use crate::changes::{load, unharmed};
use crate::world::{Ping, SOON, Tcp, Try, Udp, World, run};

const POLICIES: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{ pods = "app=client" }]
ports = ["tcp/8080", "udp/53"]
"#;

const ALLOWED: [Try; 2] = [
    ("client", "server", Tcp(8080)),
    ("client", "server", Udp(53)),
];
const DENIED: [Try; 4] = [
    ("client", "server", Tcp(8081)),
    ("client", "server", Udp(9005)),
    ("stranger", "server", Tcp(8080)),
    ("stranger", "server", Ping),
];

fn world() -> Result<World> {
    World::new(&[("shop", &[])])?
        .labelled("shop/client", &[("app", "client")])?
        .labelled("shop/server", &[("app", "server")])?
        .labelled("shop/stranger", &[("app", "stranger")])
}

#[test]
fn an_agent_may_die_and_come_back_under_load() -> Result<()> {
    let world = world()?;
    let mut agent = world.agent("observe", POLICIES)?;
    world.arrive(&DENIED).context("the control")?;
    run(&agent, &["mode", "set", "shop", "enforce"])?;
    let loads = load(&world, "client", "server")?;
    for _ in 0..3 {
        agent.kill()?;
        world.vanish(&DENIED).context("with the agent dead")?;
        world.arrive(&ALLOWED).context("with the agent dead")?;
        std::thread::scope(|scope| -> Result<()> {
            // From before the new process starts until after it has answered.
            let probes = scope.spawn(|| -> Result<u32> {
                let end = Instant::now() + Duration::from_secs(3);
                let mut rounds = 0;
                while Instant::now() < end {
                    world.vanish(&DENIED).context("while the agent starts")?;
                    rounds += 1;
                }
                Ok(rounds)
            });
            agent.restart()?;
            let rounds = probes.join().unwrap()?;
            ensure!(rounds > 2, "{rounds} rounds of probes");
            Ok(())
        })?;
        let status = agent.cli_json(&["status"])?;
        ensure!(
            status["enforcing"] == true && status["attached"] == 3,
            "{status}"
        );
    }
    unharmed(loads)?;
    let mode = run(&agent, &["mode", "get", "shop"])?;
    ensure!(
        mode.contains("enforce"),
        "a mode that was set stays set: {mode}"
    );
    Ok(())
}

/// SIGTERM leaves the fence up; `cleanup` takes it down and leaves nothing.
fn stops_and_cleans_up(attach: &str) -> Result<()> {
    let world = world()?;
    let spec = AgentSpec {
        inventory: world.inventory().build(),
        policies: POLICIES.to_owned(),
        default_mode: "enforce".to_owned(),
        ..AgentSpec::default()
    };
    let mut agent = Agent::start(&world.node, &spec)?;
    if attach == "clsact" {
        // Not in the specification: the key stands before the first table of the file.
        let config = std::fs::read_to_string(agent.config_path())?;
        agent.kill()?;
        cleanup(&agent)?;
        agent.write_document("ringfence.toml", &format!("attach = \"clsact\"\n{config}"))?;
        agent.restart()?;
    }
    let status = agent.cli_json(&["status"])?;
    ensure!(status["kernel"]["attach"] == attach, "{status}");
    let refused = agent.cli(&[
        "cleanup",
        "--config",
        &agent.config_path().to_string_lossy(),
    ])?;
    ensure!(
        !refused.status.success(),
        "cleanup under a running agent is refused"
    );
    ensure!(agent.terminate()?.success(), "SIGTERM is a clean end");
    world.vanish(&DENIED).context("after SIGTERM")?;
    world.arrive(&ALLOWED).context("after SIGTERM")?;
    agent.restart()?;
    world.vanish(&DENIED).context("after the next start")?;
    world.arrive(&ALLOWED).context("after the next start")?;
    agent.kill()?;

    cleanup(&agent)?;
    ensure!(left(agent.bpffs())? == 0, "pins are left");
    for member in &world.members {
        let interface = &member.workload.interface;
        for hook in ["ingress", "egress"] {
            let shown = world
                .node
                .ns
                .command("tc")
                .args(["filter", "show", "dev", interface, hook])
                .output()?;
            ensure!(
                shown.stdout.is_empty(),
                "{}",
                String::from_utf8_lossy(&shown.stdout)
            );
        }
    }
    world.arrive(&DENIED).context("the control: no fence")?;
    cleanup(&agent).context("a second time")
}

fn cleanup(agent: &Agent) -> Result<()> {
    run(
        agent,
        &[
            "cleanup",
            "--config",
            &agent.config_path().to_string_lossy(),
        ],
    )?;
    Ok(())
}

/// What stands below a directory, but for the files that the kernel keeps in the root of a bpffs.
fn left(dir: &std::path::Path) -> Result<usize> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let ours = entries.filter(|entry| {
        let name = entry.as_ref().map(std::fs::DirEntry::file_name);
        !name.is_ok_and(|name| name.to_string_lossy().ends_with(".debug"))
    });
    Ok(ours.count())
}

#[test]
fn a_stopped_agent_leaves_its_fence_and_cleanup_leaves_nothing() -> Result<()> {
    stops_and_cleans_up("tcx")
}

#[test]
fn the_same_with_classic_filters() -> Result<()> {
    stops_and_cleans_up("clsact")
}

/// Seconds from now, as policies write times.
fn in_seconds(seconds: i64) -> Result<(jiff::Timestamp, String)> {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    Ok((at, format!("{at:.3}")))
}

#[test]
fn a_grant_ends_on_time_though_the_agent_is_dead() -> Result<()> {
    let world = world()?;
    let mut agent = world.agent("enforce", POLICIES)?;
    let granted: Try = ("stranger", "server", Tcp(9000));
    world.vanish(&[granted]).context("before the grant")?;
    let (end, text) = in_seconds(4)?;
    let grant = format!(
        "{POLICIES}\n[[policy.ingress]]\nfrom = [{{ pods = \"app=stranger\" }}]\n\
         ports = [\"tcp/9000\"]\nexpires = {text}\n"
    );
    crate::world::apply(&agent, &grant)?;
    agent.kill()?;
    // A probe that ended before the time must have passed, one that began after it must not; what
    // overlaps it, give or take the distance of two clocks, may do either.
    let blur = jiff::SignedDuration::from_millis(100);
    let mut passed = 0;
    eventually(Duration::from_secs(15), "the end of the grant", || {
        let before = jiff::Timestamp::now();
        let answered = world.all_answer(&[granted]);
        let silent = !answered && world.none_arrives(&[granted]);
        let after = jiff::Timestamp::now();
        ensure!(
            answered || after > end - blur,
            "ended {} early",
            end - after
        );
        ensure!(
            silent || before < end + blur,
            "outlived its time by {}",
            before - end
        );
        passed += u32::from(answered);
        Ok(silent.then_some(()))
    })?;
    ensure!(passed > 0, "the grant was never seen in force");
    world.arrive(&ALLOWED).context("what does not expire")?;
    agent.restart()?;
    world.vanish(&[granted]).context("after a restart")?;
    eventually(SOON, "an answer of the agent", || {
        Ok(agent.cli(&["status"])?.status.success().then_some(()))
    })
}
