//! A restart with the same build and configuration keeps the programs at the hooks, and everything
//! still works; with another configuration they are replaced.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ringfence_testbed::{Agent, Attributes};

use crate::changes::{expect_no_failures, load};
use crate::testbed::{
    ProbeSpec, SOON, Tcp, Testbed, Udp, apply, apply_inventory, programs, run, use_clsact,
};

fn policies(ports: &str) -> String {
    format!(
        r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"

[[policy.ingress]]
from = [{{ pods = "app=client" }}]
ports = [{ports}]
"#
    )
}

const BEFORE: &str = r#""tcp/8080", "udp/53""#;
const AFTER: &str = r#""tcp/9000", "udp/53""#;

/// The most that a start with kept programs may take of one that loads them. Far above what is
/// measured, because the machine may be busy with something else.
const SHARE: f64 = 0.5;

/// The ID of the one program at each hook of every workload.
fn only_programs(testbed: &Testbed, attach: &str) -> Result<Vec<u32>> {
    let hooks = programs(testbed, attach)?;
    let only = hooks.iter().map(|ids| match ids[..] {
        [id] => Ok(id),
        _ => bail!("one program at each hook: {hooks:?}"),
    });
    only.collect()
}

/// Kills and starts the agent; returns how long it takes until the agent enforces.
fn restart(agent: &mut Agent) -> Result<Duration> {
    agent.kill()?;
    let begun = Instant::now();
    agent.restart()?;
    agent.wait_enforcing(SOON)?;
    Ok(begun.elapsed())
}

/// Changes a constant of the programs.
fn set_timeout(agent: &Agent, seconds: u32) -> Result<()> {
    let config = std::fs::read_to_string(agent.config_path())?;
    let config = config.split("[timeouts]").next().unwrap_or_default();
    let timeouts = format!("[timeouts]\nudp-replied = {seconds}\n");
    agent.write_document("ringfence.toml", &format!("{config}{timeouts}"))
}

fn check_kept(attach: &str) -> Result<()> {
    let mut testbed = Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])?;
    let (old, new): ([ProbeSpec; 1], [ProbeSpec; 1]) = (
        [("client", "server", Tcp(8080))],
        [("client", "server", Tcp(9000))],
    );
    let mut agent = testbed.agent("enforce", &policies(BEFORE))?;
    if attach == "clsact" {
        use_clsact(&mut agent)?;
    }
    let before = only_programs(&testbed, attach)?;
    let loads = load(&testbed, "client", "server")?;
    let kept = restart(&mut agent)?;
    expect_no_failures(loads)?;
    ensure!(only_programs(&testbed, attach)? == before, "other programs");

    // Policies, modes and endpoints change as ever.
    testbed.expect_silent(&new)?;
    apply(&agent, &policies(AFTER))?;
    testbed.expect_silent(&old)?;
    testbed.expect_answered(&new)?;
    run(&agent, &["mode", "set", "shop", "observe"])?;
    testbed.expect_answered(&old)?;
    run(&agent, &["mode", "set", "shop", "enforce"])?;
    testbed.expect_silent(&old)?;
    let late = testbed.node.workload("shop", "late")?;
    testbed.add(late, Attributes::labels(&[("app", "server")]))?;
    let denied: [ProbeSpec; 2] = [("client", "late", Tcp(8080)), ("late", "server", Udp(53))];
    apply_inventory(&agent, testbed.inventory())?;
    testbed.check_policy(&agent, &[("client", "late", Tcp(9000))], &denied)?;
    let now = only_programs(&testbed, attach)?;
    ensure!(now == [&before[..], &before[..2]].concat(), "{now:?}");

    // A changed constant replaces the programs in place, also when it is changed back.
    let mut last = now;
    let mut loaded = Duration::MAX;
    for seconds in [100, 101] {
        set_timeout(&agent, seconds)?;
        loaded = loaded.min(restart(&mut agent)?);
        let next = only_programs(&testbed, attach)?;
        ensure!(
            next.iter().all(|id| !last.contains(id)),
            "{next:?} {last:?}"
        );
        testbed.expect_silent(&denied)?;
        testbed.expect_answered(&[("client", "late", Tcp(9000))])?;
        last = next;
    }
    let share = kept.as_secs_f64() / loaded.as_secs_f64();
    println!(
        "{attach}: start with kept programs {kept:?}, with loaded ones {loaded:?}: {share:.3}"
    );
    ensure!(share <= SHARE, "{kept:?} of {loaded:?}");
    Ok(())
}

#[test]
fn a_restart_keeps_the_programs_of_tcx_links() -> Result<()> {
    check_kept("tcx")
}

#[test]
fn a_restart_keeps_the_programs_of_clsact_filters() -> Result<()> {
    check_kept("clsact")
}
