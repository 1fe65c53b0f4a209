//! The demo's steps in order, and the clean-up.
//!
//! Invariant: the totals are returned only after everything has been removed and the removal
//! checked.

use std::fs::DirEntry;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, interrupt};

use crate::connection::Connection;
use crate::print::{heading, line};
use crate::totals::Totals;
use crate::{discovery, fencing, intrusion};

/// Runs the whole demo.
pub(crate) fn run() -> Result<Totals> {
    println!("Ringfence: a small shop, from open to fenced");
    let mut totals = Totals::default();
    let shop = discovery::open()?;
    let (clients, payments) = discovery::clients(&shop)?;
    let paths = intrusion::paths(&shop)?;
    let agent = discovery::observe(&shop, &clients)?;
    discovery::baseline(&paths)?;
    let mut compromised = Connection::open(
        &shop.member("frontend-2")?.workload,
        shop.member("orders-db-1")?,
    )?;
    discovery::would_deny(&agent, &paths, &clients)?;
    fencing::enforce(&agent, &clients, &payments)?;
    fencing::intrude(&agent, &paths, &mut compromised, &mut totals)?;
    fencing::revoke(&agent, &shop, &clients, payments, &mut totals)?;
    heading("Clean up: the agent stops, `ringfence cleanup` removes programs, maps and pins");
    totals.count(&clients.stop()?);
    clean_up(agent)?;
    drop((compromised, shop));
    line("Nothing is left.\n");
    interrupt::check()?;
    Ok(totals)
}

/// Stops the agent, removes everything, and checks that nothing is left.
fn clean_up(mut agent: Agent) -> Result<()> {
    agent.kill()?;
    let config = agent.config_path();
    let config = config.to_str().context("a path that is not UTF-8")?;
    let output = agent.cli(&["cleanup", "--config", config])?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ringfence cleanup: {message}");
    let is_pin = |entry: &std::io::Result<DirEntry>| {
        // Files that the kernel puts into every bpffs.
        let kernels = ["maps.debug", "progs.debug"].map(Some);
        entry
            .as_ref()
            .is_ok_and(|e| !kernels.contains(&e.file_name().to_str()))
    };
    let pins = std::fs::read_dir(agent.bpffs()).map_or(0, |pins| pins.filter(is_pin).count());
    ensure!(pins == 0, "ringfence cleanup left {pins} pins");
    let dir = agent.dir().to_owned();
    drop(agent);
    ensure!(
        dir.symlink_metadata().is_err(),
        "{} is still there",
        dir.display()
    );
    Ok(())
}
