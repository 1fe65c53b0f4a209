//! Faults of pins, policy files, interfaces and scheduling.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use crate::chaos::hosts::slot_indices;
use crate::chaos::network::{Network, SOON};
use crate::fence_state::pin;

/// Pairs of interfaces that come and go together.
const BURST: usize = 250;

/// A program's pin is removed while the agent runs; the next start has to load it again.
pub(super) fn program_pin(network: &mut Network) -> Result<String> {
    let bpffs = network.agent.bpffs();
    let maps = pin(bpffs, ringfence_common::maps::LOADED_PROGRAMS)?;
    let layout = maps.parent().and_then(|maps| maps.parent());
    let program = layout
        .context("a directory of pins")?
        .join("programs/from_workload");
    std::fs::remove_file(&program).with_context(|| format!("removing {}", program.display()))?;
    network.agent.kill()?;
    let took = network.start()?;
    ensure!(program.exists(), "no new {}", program.display());
    Ok(format!("start after it {} ms", took.as_millis()))
}

/// The policy file is replaced by what is no policy, and the agent killed and started meanwhile… later
/// by good content.
pub(super) fn policy_garbage(network: &mut Network, lasting: Duration) -> Result<String> {
    for text in ["\u{0}\u{1}\u{2}", "[[policy]]\nname = ", "}{"] {
        network.agent.write_policies(text)?;
        let refused = || {
            let status = network.agent.cli_json(&["status"])?;
            let error = status.get("last_error").and_then(|error| error.as_str());
            Ok(error.is_some_and(|error| error.contains("policies.toml")))
        };
        network
            .agent
            .wait_until(refused, SOON, "the refusal of a policy file")?;
        // How long the fault lasts.
        std::thread::sleep(lasting / 3);
    }
    network.renew_policies()?;
    Ok("three kinds refused".to_owned())
}

/// How long the policy file is missing: less than a deletion takes to be meant.
const MISSING: Duration = Duration::from_millis(100);

/// The policy file is replaced again and again: moved to a backup and written, as vim does, or unlinked
/// and written.
pub(super) fn policy_replaced(network: &mut Network, lasting: Duration) -> Result<String> {
    let file = network.agent.dir().join(network.policy_file);
    let began = Instant::now();
    let mut times = 0;
    while times < 2 || began.elapsed() < lasting {
        if times % 2 == 0 {
            std::fs::rename(&file, file.with_extension("toml~"))?;
        } else {
            std::fs::remove_file(&file)?;
        }
        // How long the editor takes.
        std::thread::sleep(MISSING);
        network.renew_policies()?;
        std::thread::sleep(MISSING);
        times += 1;
    }
    Ok(format!("replaced {times} times"))
}

/// The links of a slot, to and from which nothing is sent, are detached; the agent must notice and attach
/// again.
pub(super) fn link_detached(network: &Network) -> Result<String> {
    let slot = slot_indices(&network.hosts.node).into_iter().next();
    let slot = slot.context("a slot")?;
    let maps = pin(
        network.agent.bpffs(),
        ringfence_common::maps::LOADED_PROGRAMS,
    )?;
    let layout = maps.parent().and_then(|maps| maps.parent());
    let links = layout.context("a directory of pins")?.join("links");
    // Nothing else holds them.
    for program in ["from_workload", "to_workload"] {
        std::fs::remove_file(links.join(format!("{slot}-{program}")))?;
    }
    let began = Instant::now();
    let attached = || network.has_links();
    network
        .agent
        .wait_until(attached, SOON, "links attached again")?;
    Ok(format!("attached again after {:?}", began.elapsed()))
}

/// Interfaces come and go for as long as the fault lasts.
pub(super) fn interface_burst(network: &Network, lasting: Duration) -> Result<String> {
    let (mut add, mut remove) = (String::new(), String::new());
    for number in 0..BURST {
        // Writing to a String cannot fail.
        let _ = writeln!(
            add,
            "link add burst{number} type veth peer name burst{number}-p"
        );
        let _ = writeln!(remove, "link del burst{number}");
    }
    let began = Instant::now();
    let mut rounds = 0;
    while rounds == 0 || began.elapsed() < lasting {
        network.hosts.node.ns.ip(&add)?;
        network.hosts.node.ns.ip(&remove)?;
        rounds += 1;
    }
    Ok(format!("{rounds} times {BURST} pairs"))
}

/// The agent gets no time; the fence needs none of it.
pub(super) fn stopped(network: &mut Network, lasting: Duration) -> Result<String> {
    network.agent.signal(Signal::SIGSTOP)?;
    // What it finds when it continues.
    network.renew_policies()?;
    // How long the fault lasts.
    std::thread::sleep(lasting);
    network.agent.signal(Signal::SIGCONT)?;
    Ok(format!("stopped for {} s", lasting.as_secs()))
}
