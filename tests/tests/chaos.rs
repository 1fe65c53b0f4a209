//! Short runs of kills, upgrades and faults under traffic: nothing denied is delivered, and no
//! connection is lost.
//!
//! `cargo xtask chaos` does the same for longer. That a wrong delivery would be seen is
//! checked by the control of each run.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot continue should stop"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use ringfence_testbed::agent::binary;
use ringfence_testbed::chaos::{TrafficSpec, faults, kills, upgrades};

const TRAFFIC: TrafficSpec = TrafficSpec {
    connections: 40,
    control: Duration::from_secs(1),
    opened_within: Duration::from_secs(4),
};
const REMOTE: usize = 100;

#[test]
fn kills_in_every_phase_lose_nothing_and_let_nothing_through() {
    let spec = kills::Spec {
        kills: 14,
        least: 1,
        seed: 1,
        remote: REMOTE,
        traffic: TRAFFIC,
        binary: None,
    };
    let outcome = kills::run(&spec, |line| println!("{line}")).unwrap();
    println!("{outcome}");
    assert!(outcome.is_good(), "{outcome}");
}

/// Kills an agent that does this, in a shell, before each start; `$BPFFS` has its pins.
fn kill_one_that(does: &str) -> kills::Outcome {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("agent");
    let agent = binary().unwrap();
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = agent ]; then\n\
         BPFFS=$(dirname \"$3\")/bpffs\n{does}\nfi\nexec {} \"$@\"\n",
        agent.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let spec = kills::Spec {
        kills: 4,
        least: 0,
        seed: 1,
        remote: REMOTE,
        traffic: TRAFFIC,
        binary: Some(script),
    };
    let outcome = kills::run(&spec, |line| println!("{line}")).unwrap();
    println!("{outcome}");
    outcome
}

#[test]
fn agents_that_break_a_bound_are_found_out() {
    let detaches = kill_one_that("rm -f \"$BPFFS\"/v*/links/*");
    assert!(detaches.traffic.delivered > 0, "{detaches}");
    assert!(!detaches.is_good(), "{detaches}");
    let forgets = kill_one_that("rm -f \"$BPFFS\"/v*/maps/CT*");
    assert!(forgets.traffic.lost > 0, "{forgets}");
    assert!(!forgets.is_good(), "{forgets}");
    let stalls = kill_one_that(
        "if [ -e \"$BPFFS\"/v* ]; then F=/proc/sys/net/ipv4/ip_forward; \
         echo 0 >$F; sleep 1.2; echo 1 >$F; fi",
    );
    assert!(!stalls.traffic.is_in_time(), "{stalls}");
    assert_eq!(stalls.traffic.delivered, 0, "{stalls}");
}

#[test]
fn an_upgrade_and_a_downgrade_keep_what_is_allowed_and_what_is_revoked() {
    let spec = upgrades::Spec {
        changes: 2,
        remote: REMOTE,
        traffic: TRAFFIC,
    };
    let outcome = upgrades::run(&spec, |line| println!("{line}")).unwrap();
    println!("{outcome}");
    assert!(outcome.is_good(), "{outcome}");
    assert_eq!(outcome.stopped, (4, 4), "{outcome}");
}

#[test]
fn faults_of_the_surroundings_are_survived() {
    let spec = faults::Spec {
        faults: faults::Fault::ALL.to_vec(),
        lasting: Duration::from_secs(1),
        remote: REMOTE,
        traffic: TRAFFIC,
    };
    let outcome = faults::run(&spec, |line| println!("{line}")).unwrap();
    println!("{outcome}");
    assert!(outcome.is_good(), "{outcome}");
    assert_eq!(outcome.survived.len(), faults::Fault::ALL.len());
}
