//! The whole runner, offline: it must detect failures.

use super::*;
use crate::conformance::Unreadable;

const CASE: &str = "tag: O
why: nothing but x/b and the node reaches x/a
steps:
  - apply-toml: |
      [[policy]]
      name = \"p\"
      namespace = \"x\"
      subject = \"pod=a\"
      [[policy.ingress]]
      from = [{ pods = \"pod=b\" }]
      expires = ${now+1h}
    expect:
      - { to: x/a, verdict: deny }
      - { from: [x/b, node], to: x/a, verdict: allow }
  - mode: { x: observe }
    expect: []
  - mode: { x: enforce }
    expect:
      - { to: x/a, verdict: deny }
      - { from: [x/b, node], to: x/a, verdict: allow }
  - wait: 2h
    expect:
      - { to: x/a, verdict: deny }
      - { from: node, to: x/a, verdict: allow }
";

fn run_cases(cases: &[(&str, String)], filter: &str) -> (Result<bool>, String) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in cases {
        let text = format!("name: {name}\n{text}");
        std::fs::write(dir.path().join(format!("{name}.yaml")), text).unwrap();
    }
    let options = Options {
        dir: dir.path().to_owned(),
        filter: filter.to_owned(),
        offline: true,
        jobs: 2,
    };
    let mut out = Vec::new();
    let passed = run(&options, &mut out);
    (passed, String::from_utf8(out).unwrap())
}

#[test]
fn a_wrong_expectation_fails() {
    let wrong = CASE.replacen("from: [x/b, node]", "from: [x/b, y/b, node]", 1);
    assert_ne!(wrong, CASE);
    let (passed, text) = run_cases(&[("wrong", wrong), ("right", CASE.to_owned())], "");
    assert!(!passed.unwrap(), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines.first(),
        Some(&"FAIL wrong 1 y/b x/a tcp/80 4 allow deny")
    );
    // Two families, four ports.
    assert_eq!(lines.iter().filter(|it| it.starts_with("FAIL ")).count(), 8);
    assert_eq!(
        lines
            .iter()
            .filter(|it| it.starts_with("FAILED wrong: "))
            .count(),
        1
    );
    assert_eq!(lines.last(), Some(&"1 passed, 1 failed"));
}

#[test]
fn an_allowed_cell_expected_to_be_denied_fails() {
    let wrong = CASE.replacen("expect: []", "expect: [{ to: x/a, verdict: deny }]", 1);
    assert_ne!(wrong, CASE);
    let (passed, text) = run_cases(&[("wrong", wrong)], "");
    assert!(!passed.unwrap(), "{text}");
    assert!(
        text.contains("FAIL wrong 2 ext x/a tcp/80 4 deny allow\n"),
        "{text}"
    );
}

#[test]
fn accepting_policies_that_should_be_refused_fails() {
    let text = "tag: O\nwhy: w\nsteps: [{ reject-toml: '' }]\n".to_owned();
    let (passed, text) = run_cases(&[("accepted", text)], "");
    assert!(!passed.unwrap());
    assert!(
        text.starts_with("FAILED accepted: step 1: accepted, but should be refused\n"),
        "{text}"
    );
}

#[test]
fn refusing_valid_policies_fails() {
    let text = "tag: O\nwhy: w\nsteps: [{ apply-toml: 'nonsense' }]\n".to_owned();
    let (passed, text) = run_cases(&[("refused", text)], "");
    assert!(!passed.unwrap());
    assert!(
        text.starts_with("FAILED refused: step 1: refused: "),
        "{text}"
    );
}

#[test]
fn the_filter_selects_by_name() {
    let cases = [("one", CASE.to_owned()), ("two", "nonsense".to_owned())];
    let (passed, text) = run_cases(&cases, "on");
    assert!(passed.unwrap(), "{text}");
    assert_eq!(text, "1 passed, 0 failed\n");
    let (passed, _) = run_cases(&cases, "");
    assert!(passed.unwrap_err().is::<Unreadable>());
    let (passed, _) = run_cases(&cases, "three");
    assert!(passed.is_err(), "a filter that matches no case is an error");
}
