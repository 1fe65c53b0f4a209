//! Policy files that are refused at the start: the others count, and whom they are about is locked
//! down until they are mended.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, AgentSpec};

use crate::world::{SOON, Tcp, Try, World, run};

const SERVER: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{ pods = "app=client" }]
ports = ["tcp/8080"]
"#;

const STRANGER: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: stranger, namespace: shop}
spec:
  podSelector: {matchLabels: {app: stranger}}
  policyTypes: [Egress]
  egress: [{ports: [{port: 9000}]}]
";

/// What the stranger's policy allows, and what holds without it.
const ITS: [Try; 1] = [("stranger", "client", Tcp(9000))];
const NOT_ITS: [Try; 1] = [("stranger", "client", Tcp(8081))];
const OTHERS: [Try; 2] = [
    ("client", "server", Tcp(8080)),
    ("server", "client", Tcp(8081)),
];

fn world() -> Result<World> {
    World::new(&[("shop", &[])])?
        .labelled("shop/client", &[("app", "client")])?
        .labelled("shop/server", &[("app", "server")])?
        .labelled("shop/stranger", &[("app", "stranger")])
}

fn broken() -> String {
    STRANGER.replace("egress:", "colour: red\n  egress:")
}

/// Why the stranger is locked down, if it is.
fn why(agent: &Agent) -> Result<Option<String>> {
    let endpoints = agent.cli_json(&["endpoints"])?;
    let endpoints = endpoints.as_array().context("a list")?;
    let mut reasons = Vec::new();
    for endpoint in endpoints {
        if let Some(reason) = endpoint["locked"].as_str() {
            ensure!(endpoint["workload"] == "shop/stranger", "{endpoint}");
            ensure!(endpoint["mode"] == "lockdown", "{endpoint}");
            reasons.push(reason.to_owned());
        }
    }
    Ok(reasons.pop())
}

#[test]
fn whom_a_refused_file_is_about_is_locked_down_until_it_is_mended() -> Result<()> {
    let world = world()?;
    let spec = AgentSpec {
        inventory: world.inventory().build(),
        policies: SERVER.to_owned(),
        documents: vec![("stranger.yaml".to_owned(), broken())],
        default_mode: "observe".to_owned(),
        ..AgentSpec::default()
    };
    let mut agent = Agent::start(&world.node, &spec)?;
    world
        .arrive(&[&ITS[..], &NOT_ITS, &OTHERS].concat())
        .context("the control: observe stays observe")?;
    ensure!(why(&agent)?.is_none(), "nobody is locked down in observe");

    run(&agent, &["mode", "set", "shop", "enforce"])?;
    world.vanish(&[ITS, NOT_ITS].concat())?;
    world.arrive(&OTHERS).context("the other file counts")?;
    let reason = why(&agent)?.context("the stranger is locked down")?;
    ensure!(
        reason.contains("stranger.yaml:1 is refused and has no earlier content"),
        "{reason}"
    );
    let status = run(&agent, &["status"])?;
    ensure!(status.contains("stranger.yaml"), "{status}");

    agent.write_document("stranger.yaml", STRANGER)?;
    agent.wait_until(|| Ok(why(&agent)?.is_none()), SOON, "the end of lockdown")?;
    world.arrive(&ITS).context("mended")?;
    world.vanish(&NOT_ITS).context("mended")?;

    // With earlier content, that stays.
    agent.write_document("stranger.yaml", &broken())?;
    let noticed = || Ok(run(&agent, &["status"])?.contains("colour"));
    agent.wait_until(noticed, SOON, "the refusal in the status")?;
    world.arrive(&ITS).context("the last good content")?;
    world.vanish(&NOT_ITS).context("the last good content")?;

    // A start knows of no earlier content.
    agent.kill()?;
    agent.restart()?;
    ensure!(why(&agent)?.is_some(), "locked down by the next start");
    world.vanish(&[ITS, NOT_ITS].concat())?;
    world.arrive(&OTHERS)
}

#[test]
fn a_file_that_says_nothing_readable_stops_nobody() -> Result<()> {
    let world = world()?;
    let spec = AgentSpec {
        inventory: world.inventory().build(),
        policies: "[[policy]\n".to_owned(),
        documents: vec![("stranger.yaml".to_owned(), STRANGER.to_owned())],
        default_mode: "enforce".to_owned(),
        ..AgentSpec::default()
    };
    let agent = Agent::start(&world.node, &spec)?;
    ensure!(why(&agent)?.is_none(), "nobody is locked down");
    let said = agent.stderr() + &agent.stdout();
    for expected in ["policies.toml:1:", "so no workload is locked down"] {
        ensure!(said.contains(expected), "no {expected:?} in: {said}");
    }
    world.arrive(&ITS)?;
    world.vanish(&NOT_ITS)
}
