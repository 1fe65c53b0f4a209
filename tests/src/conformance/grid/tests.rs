//! Which cells are checked, and the expected result of each.

use super::*;
use crate::conformance::case::{Case, Delta};
use crate::conformance::cluster::HostAddresses;

fn patterns(globs: &[&str]) -> Patterns {
    match globs {
        [] => Patterns::any(),
        globs => Patterns::new(globs.iter().map(ToString::to_string).collect()),
    }
}

fn entry(from: &[&str], to: &[&str], verdict: Verdict) -> Expectation {
    Expectation {
        from: patterns(from),
        to: patterns(to),
        port: Patterns::any(),
        family: Patterns::any(),
        verdict,
    }
}

fn grid(expect: &[Expectation]) -> Vec<ExpectedCell> {
    let case = Case {
        name: "c".to_owned(),
        delta: Delta::default(),
        steps: Vec::new(),
    };
    expected_cells(
        &Cluster::new(&case, HostAddresses::PLACEHOLDER).unwrap(),
        expect,
    )
}

fn denied(expect: &[Expectation]) -> Vec<String> {
    let cells = grid(expect);
    let denied = cells.iter().filter(|it| it.want == Want::Deny);
    denied.map(|it| it.cell.to_string()).collect()
}

/// Four ports in two families.
const CELLS_PER_PAIR: usize = 8;

#[test]
fn without_expectations_every_cell_is_allowed() {
    let cells = grid(&[]);
    // 9 workloads with one another, and with node and ext in both directions.
    assert_eq!(cells.len(), (9 * 8 + 9 * 4) * CELLS_PER_PAIR);
    assert!(cells.iter().all(|it| it.want == Want::Allow));
    assert!(cells.iter().all(|it| it.cell.from != it.cell.to));
    let only_workloads =
        |it: &ExpectedCell| it.cell.from.workload().is_some() || it.cell.to.workload().is_some();
    assert!(
        cells.iter().all(only_workloads),
        "cells between node and ext are not probed"
    );
}

#[test]
fn the_last_entry_that_matches_decides() {
    let deny = entry(&[], &["x/a"], Verdict::Deny);
    let allow = entry(&["y/*", "node"], &["x/*"], Verdict::Allow);
    assert_eq!(
        denied(std::slice::from_ref(&deny)).len(),
        10 * CELLS_PER_PAIR
    );
    assert_eq!(
        denied(&[deny.clone(), allow.clone()]).len(),
        6 * CELLS_PER_PAIR
    );
    assert_eq!(denied(&[allow, deny]).len(), 10 * CELLS_PER_PAIR);
}

#[test]
fn ports_and_families_restrict_an_entry() {
    let mut narrow = entry(&["x/a"], &["ext"], Verdict::Deny);
    narrow.port = patterns(&["tcp/*"]);
    narrow.family = patterns(&["6"]);
    assert_eq!(denied(&[narrow]), ["x/a ext tcp/80 6", "x/a ext tcp/81 6"]);
}

#[test]
fn cells_with_verdict_any_are_not_checked() {
    let all = grid(&[]).len();
    let any = entry(&["x/a"], &["x/b"], Verdict::Any);
    assert_eq!(grid(&[any]).len(), all - CELLS_PER_PAIR);
}

#[test]
fn a_cell_to_itself_is_checked_only_if_an_entry_names_it_on_both_sides() {
    let all = grid(&[]).len();
    for (from, to, more) in [
        (vec!["x/a"], vec!["x/a"], CELLS_PER_PAIR),
        (vec!["x/*"], vec!["x/a"], 0),
        (vec![], vec!["x/a"], 0),
        (vec!["x/a", "x/b"], vec!["x/a", "x/b"], 0),
        (vec!["node"], vec!["node"], 0),
    ] {
        let cells = grid(&[entry(&from, &to, Verdict::Allow)]);
        assert_eq!(cells.len(), all + more, "{from:?} {to:?}");
    }
    // Other entries apply to it as to any cell.
    let deny = entry(&["x/a"], &[], Verdict::Deny);
    let itself = entry(&["x/a"], &["x/a"], Verdict::Allow);
    assert!(!denied(&[deny.clone(), itself.clone()]).contains(&"x/a x/a tcp/80 4".to_owned()));
    assert!(denied(&[itself, deny]).contains(&"x/a x/a tcp/80 4".to_owned()));
}

#[test]
fn only_silence_counts_as_denied() {
    assert!(Want::Deny.matches(Got::Deny) && Want::Allow.matches(Got::Allow));
    for got in [Got::Allow, Got::Delivered] {
        assert!(!Want::Deny.matches(got));
    }
    assert!(!Want::Allow.matches(Got::Delivered) && !Want::Allow.matches(Got::Deny));
}
