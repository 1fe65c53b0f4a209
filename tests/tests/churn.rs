//! A short churn: what workloads, namespaces and policies used is freed, and no packet gets a wrong
//! verdict meanwhile.
//!
//! `cargo xtask churn` does the same for any number of them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot continue should stop"
)]

use std::time::Duration;

use ringfence_testbed::churn::{Spec, run};

#[test]
fn everything_that_workloads_and_policies_used_is_freed() {
    let outcome = run(
        &Spec {
            lives: 20_000,
            edits: 2_000,
            namespaces: 400,
            settling: Duration::from_secs(60),
        },
        |progress| println!("{progress}"),
    )
    .unwrap();
    println!("{outcome}");
    assert_eq!(outcome.stopped, None, "{outcome}");
    assert_eq!(outcome.lives, 20_000, "{outcome}");
    for (kind, least) in [
        ("always allowed", 100),
        ("always denied", 100),
        ("guest at a reused address", 10_000),
        ("former guest's address", 10_000),
        ("new endpoint", 1000),
        ("granted", 40),
        ("revoked just now", 10),
        ("revoked long ago", 5),
    ] {
        assert!(
            outcome.checked.0[kind].packets >= least,
            "{kind}: {outcome}"
        );
    }
    assert_eq!(outcome.checked.sum().wrong(), 0, "{outcome}");
    assert_eq!(outcome.beyond, [""; 0], "{outcome}");
}
