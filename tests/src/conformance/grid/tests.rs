//! Which cells are judged, and as what.

use super::*;
use crate::conformance::case::{Case, Delta};
use crate::conformance::world::Ends;

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

fn grid(expect: &[Expectation]) -> Vec<Judged> {
    let case = Case {
        name: "c".to_owned(),
        delta: Delta::default(),
        steps: Vec::new(),
    };
    judged(&World::new(&case, Ends::FOR_READING).unwrap(), expect)
}

fn denied(expect: &[Expectation]) -> Vec<String> {
    let cells = grid(expect);
    let denied = cells.iter().filter(|it| it.want == Want::Deny);
    denied.map(|it| it.cell.to_string()).collect()
}

/// Four ports in two families.
const OF_A_PAIR: usize = 8;

#[test]
fn everything_is_allowed_at_first() {
    let cells = grid(&[]);
    // 9 workloads with one another, with node and ext both ways.
    assert_eq!(cells.len(), (9 * 8 + 9 * 4) * OF_A_PAIR);
    assert!(cells.iter().all(|it| it.want == Want::Allow));
    assert!(cells.iter().all(|it| it.cell.from != it.cell.to));
    let only_workloads =
        |it: &Judged| it.cell.from.workload().is_some() || it.cell.to.workload().is_some();
    assert!(
        cells.iter().all(only_workloads),
        "node and ext are not probed"
    );
}

#[test]
fn the_last_entry_that_matches_decides() {
    let deny = entry(&[], &["x/a"], Verdict::Deny);
    let allow = entry(&["y/*", "node"], &["x/*"], Verdict::Allow);
    assert_eq!(denied(std::slice::from_ref(&deny)).len(), 10 * OF_A_PAIR);
    assert_eq!(denied(&[deny.clone(), allow.clone()]).len(), 6 * OF_A_PAIR);
    assert_eq!(denied(&[allow, deny]).len(), 10 * OF_A_PAIR);
}

#[test]
fn ports_and_families_narrow() {
    let mut narrow = entry(&["x/a"], &["ext"], Verdict::Deny);
    narrow.port = patterns(&["tcp/*"]);
    narrow.family = patterns(&["6"]);
    assert_eq!(denied(&[narrow]), ["x/a ext tcp/80 6", "x/a ext tcp/81 6"]);
}

#[test]
fn any_is_not_judged() {
    let all = grid(&[]).len();
    let any = entry(&["x/a"], &["x/b"], Verdict::Any);
    assert_eq!(grid(&[any]).len(), all - OF_A_PAIR);
}

#[test]
fn itself_is_judged_only_where_an_entry_names_it_twice() {
    let all = grid(&[]).len();
    for (from, to, more) in [
        (vec!["x/a"], vec!["x/a"], OF_A_PAIR),
        (vec!["x/*"], vec!["x/a"], 0),
        (vec![], vec!["x/a"], 0),
        (vec!["x/a", "x/b"], vec!["x/a", "x/b"], 0),
        (vec!["node"], vec!["node"], 0),
    ] {
        let cells = grid(&[entry(&from, &to, Verdict::Allow)]);
        assert_eq!(cells.len(), all + more, "{from:?} {to:?}");
    }
    // Other entries count for it as for any cell.
    let deny = entry(&["x/a"], &[], Verdict::Deny);
    let itself = entry(&["x/a"], &["x/a"], Verdict::Allow);
    assert!(!denied(&[deny.clone(), itself.clone()]).contains(&"x/a x/a tcp/80 4".to_owned()));
    assert!(denied(&[itself, deny]).contains(&"x/a x/a tcp/80 4".to_owned()));
}

#[test]
fn only_silence_is_a_denial() {
    assert!(Want::Deny.is(Got::Deny) && Want::Allow.is(Got::Allow));
    for got in [Got::Allow, Got::Delivered] {
        assert!(!Want::Deny.is(got));
    }
    assert!(!Want::Allow.is(Got::Delivered) && !Want::Allow.is(Got::Deny));
}
