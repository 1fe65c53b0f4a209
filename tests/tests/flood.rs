//! Short floods: no denied frame is delivered, every frame is accounted for by a counter, and no
//! connection of another workload breaks.
//!
//! The rate depends on the machine; `cargo xtask flood` floods for longer.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot continue should stop"
)]

use std::time::Duration;

use ringfence_testbed::flood::{Family, Outcome, Spec, run};

fn flood(family: Family, receive_buffer: Option<usize>) -> Outcome {
    let outcome = run(&Spec {
        family,
        flooders: if family == Family::Random { 1 } else { 8 },
        duration: Duration::from_secs(1),
        rate: if family == Family::OneWay {
            20_000
        } else {
            100_000
        },
        bystanders: 10,
        connections: 500,
        // With less, the server would be over its share.
        conntrack: Some(65_536),
        seed: 1,
        receive_buffer,
    })
    .unwrap();
    println!("{outcome}");
    outcome
}

#[test]
fn floods_leak_nothing_and_break_no_connection_of_others() {
    for family in Family::ALL {
        let outcome = flood(family, None);
        assert!(outcome.is_good(), "{outcome}");
        assert!(outcome.accounts.delivered > 0, "void: {outcome}");
        if !family.is_permitted() {
            assert!(outcome.control.1 > 0, "void: {outcome}");
        }
    }
}

#[test]
fn a_server_over_its_share_makes_a_flood_void() {
    let spec = Spec {
        family: Family::Assured,
        flooders: 8,
        duration: Duration::from_secs(1),
        rate: 1,
        bystanders: 10,
        connections: 500,
        conntrack: Some(16_384),
        seed: 1,
        receive_buffer: None,
    };
    let error = run(&spec).unwrap_err().to_string();
    assert!(
        error.contains("share of conntrack is 390 entries"),
        "{error}"
    );
}

#[test]
fn frames_that_a_receive_buffer_loses_are_accounted_for_as_such() {
    let outcome = flood(Family::Random, Some(2048));
    let lost = outcome.accounts.kernel.total();
    assert!(lost > 0, "void: {outcome}");
    assert_eq!(outcome.unaccounted(), 0, "{outcome}");
    assert!(
        outcome.to_string().contains("tp_drops of the tap at "),
        "{outcome}"
    );
    assert!(outcome.accounts.unaccounted(outcome.sent + 1) == 1);
}
