//! What modes make of verdicts.

use super::*;
use crate::conformance::case::{Case, Delta, Verb};

fn got(from: &str, to: &str, egress: &str, ingress: &str, mode: Mode) -> Got {
    let case = Case {
        name: "c".to_owned(),
        delta: Delta::default(),
        steps: Vec::new(),
    };
    let mut world = World::new(&case, Ends::FOR_READING).unwrap();
    let modes = [("x".to_owned(), mode)];
    world.follow(&Verb::Mode(modes.into())).unwrap();
    let cell = Cell {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        port: "tcp/80".parse().unwrap(),
        family: crate::conformance::port::Family::V4,
    };
    let side = |verdict: &str| Side {
        verdict: verdict.to_owned(),
    };
    let answer = Answer {
        egress: side(egress),
        ingress: side(ingress),
    };
    act(&world, &cell, &answer).unwrap()
}

#[test]
fn each_side_drops_as_its_namespace_does() {
    use Mode::{Enforce, Lockdown, Observe};
    for (from, to, egress, ingress, mode, expected) in [
        ("x/a", "y/a", "allow", "allow", Enforce, Got::Allow),
        ("x/a", "y/a", "deny", "allow", Enforce, Got::Deny),
        ("x/a", "y/a", "allow", "deny", Enforce, Got::Deny),
        ("x/a", "y/a", "deny", "allow", Observe, Got::Allow),
        ("x/a", "y/a", "allow", "deny", Observe, Got::Deny),
        ("y/a", "x/a", "allow", "deny", Observe, Got::Allow),
        ("x/a", "y/a", "allow", "allow", Lockdown, Got::Deny),
        ("node", "x/a", "allow", "allow", Lockdown, Got::Deny),
        ("x/a", "x/a", "allow", "allow", Lockdown, Got::Allow),
        ("y/a", "y/b", "allow", "allow", Lockdown, Got::Allow),
        ("x/a", "ext", "allow", "deny", Observe, Got::Deny),
    ] {
        let got = got(from, to, egress, ingress, mode);
        assert_eq!(got, expected, "{from} {to} {egress} {ingress} {mode:?}");
    }
}
