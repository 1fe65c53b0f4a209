//! A short flood: nothing gets through, nothing is lost count of, nobody else is cut off.
//!
//! How fast the flood is depends on the machine, and so does how soon new connections are answered:
//! `cargo xtask flood` is for that.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on should stop where it is"
)]

use std::time::Duration;

use ringfence_testbed::flood::{Spec, run};

#[test]
fn a_flood_gets_nowhere_and_costs_nobody_a_connection() {
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
    assert_eq!(outcome.trespassed, 0, "{outcome}");
    assert_eq!(outcome.unaccounted, 0, "{outcome}");
    assert!(outcome.delivered > 0 && outcome.limited > 0, "{outcome}");
    assert_eq!(outcome.kept, outcome.connections, "{outcome}");
    assert!(outcome.opened.answered > 0, "{outcome}");
}
