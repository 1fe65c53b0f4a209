//! A short flood: no denied frame is delivered, every frame is accounted for, and no connection of
//! another endpoint breaks.
//!
//! The rate of the flood and the response time of new connections depend on the machine: `cargo
//! xtask flood` checks them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot continue should stop"
)]

use std::time::Duration;

use ringfence_testbed::flood::{Spec, run};

#[test]
fn a_flood_leaks_nothing_and_breaks_no_connection_of_other_endpoints() {
    let outcome = run(&Spec {
        duration: Duration::from_secs(3),
        rate: 50_000,
        bystanders: 6,
        connections: 5,
        seed: 1,
    })
    .unwrap();
    println!("{outcome}");
    assert_eq!(outcome.control.0, outcome.control.1, "void: {outcome}");
    assert!(outcome.control.1 > 0, "void: {outcome}");
    assert_eq!(outcome.leaked, 0, "{outcome}");
    assert_eq!(outcome.unaccounted, 0, "{outcome}");
    assert!(outcome.delivered > 0 && outcome.limited > 0, "{outcome}");
    assert_eq!(outcome.kept, outcome.connections, "{outcome}");
    assert!(outcome.opened.answered > 0, "{outcome}");
}
