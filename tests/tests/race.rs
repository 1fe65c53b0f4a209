//! A short race: packets on one CPU while another one rewrites the records that decide.
//!
//! `cargo xtask race` does the same with any number of packets. That a wrong verdict would be seen is
//! checked by the run before each storm, in which every packet must get its own verdict.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot continue should stop"
)]

use ringfence_testbed::race::{Spec, Storm, run};

#[test]
fn no_packet_gets_a_verdict_of_another_record() {
    let outcome = run(
        &Spec {
            packets: 500_000,
            seed: 1,
            storms: Storm::ALL.to_vec(),
        },
        |storm| println!("{storm}"),
    )
    .unwrap();
    println!("{outcome}");
    assert!(outcome.packets() >= 500_000, "{outcome}");
    for storm in &outcome.storms {
        // Conntrack entries are written by the packets themselves.
        assert!(
            storm.overlapping > 0 || storm.storm == Storm::Conntrack,
            "void: {storm}"
        );
        assert!(storm.unknown < storm.packets, "void: {storm}");
    }
    assert!(outcome.overlapping() >= 50_000, "{outcome}");
    assert_eq!(outcome.wrong(), (0, 0), "{outcome}");
    assert_eq!(outcome.lasting(), 0, "{outcome}");
}
