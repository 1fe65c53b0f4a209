//! How modes change verdicts.

use super::*;
use crate::conformance::case::{Case, Delta, Verb};

fn got(from: &str, to: &str, egress: &str, ingress: &str, mode: Mode) -> Got {
    let case = Case {
        name: "c".to_owned(),
        delta: Delta::default(),
        steps: Vec::new(),
    };
    let mut cluster = Cluster::new(&case, HostAddresses::PLACEHOLDER).unwrap();
    let modes = [("x".to_owned(), mode)];
    cluster.apply(&Verb::Mode(modes.into())).unwrap();
    let cell = Cell {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        port: "tcp/80".parse().unwrap(),
        family: crate::conformance::port::Family::V4,
    };
    let side = |verdict: &str| Side {
        verdict: verdict.to_owned(),
    };
    let evaluation = Evaluation {
        egress: side(egress),
        ingress: side(ingress),
    };
    apply_modes(&cluster, &cell, &evaluation).unwrap()
}

#[test]
fn each_side_applies_the_mode_of_its_namespace() {
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
