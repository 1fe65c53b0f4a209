//! Reading case files: what is accepted, and the lines of reported errors.

use super::*;
use crate::conformance::name::End;
use crate::conformance::port::Family;

const HEAD: &str = "name: c\ntag: S\nwhy: because\n";

fn steps(text: &str) -> Result<Case, ParseError> {
    parse("c", &format!("{HEAD}steps:\n{text}"))
}

#[test]
fn every_verb_is_read() {
    let case = steps(
        "  - { apply: 'a: ${ip4net:x/b/24}', expect: [{ to: x/a, verdict: deny }] }
  - { apply-toml: '' }
  - { delete: [networkpolicy/x/p, clusternetworkpolicy/q] }
  - { label: { workload: x/b, labels: { app: web, pod: null } } }
  - { label: { namespace: x, labels: { team: 7 } } }
  - { add: { y/d: { labels: { pod: d }, ports: { web: tcp/81 }, ip4: 198.18.0.1 }, y/e: {} } }
  - { remove: [y/d] }
  - { move-address: { from: x/a, to: y/b }, expect: [] }
  - { mode: { x: observe, y: lockdown } }
  - { wait: 1500ms }
  - { restart-agent: kill }
  - { restart-agent: term }
  - { reject: 'x: ${now+1s}' }
  - { reject-toml: 'x' }
",
    )
    .unwrap();
    assert_eq!(case.steps.len(), 14);
    let expects: Vec<usize> = case.steps.iter().map(|step| step.expect.len()).collect();
    assert_eq!(expects, [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(&case.steps[8].verb, Verb::Mode(modes) if modes["y"] == Mode::Lockdown));
    assert!(matches!(case.steps[11].verb, Verb::Restart(Stop::Term)));
    assert!(
        matches!(&case.steps[4].verb, Verb::LabelNamespace(_, labels)
            if labels["team"].as_deref() == Some("7"))
    );
}

#[test]
fn a_delta_changes_the_default_topology() {
    let case = parse(
        "c",
        &format!(
            "{HEAD}delta:
  namespaces:
    z: {{ labels: {{ ns: null }} }}
    w: {{ labels: {{ team: blue }} }}
  workloads:
    x/b: {{ labels: {{ app: web }}, service-account: web }}
    y/d: {{ labels: {{ pod: d }}, ports: {{ web: tcp/81 }} }}
    z/a: {{ ip4: 198.18.3.7, ip6: \"2001:db8:18::7\" }}
  grid: [tcp/82, tcp/80]
steps: []
"
        ),
    )
    .unwrap();
    let cluster = Cluster::new(&case, HostAddresses::PLACEHOLDER).unwrap();
    let labels = |labels: &BTreeMap<String, String>| {
        let all: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        all.join(",")
    };
    let namespace = |name: &str| labels(&cluster.namespaces[name].labels);
    assert_eq!(namespace("x"), "kubernetes.io/metadata.name=x,ns=x");
    assert_eq!(namespace("z"), "kubernetes.io/metadata.name=z");
    assert_eq!(namespace("w"), "kubernetes.io/metadata.name=w,team=blue");
    let member = |name: &str| &cluster.workloads[&name.parse().unwrap()];
    assert_eq!(labels(&member("x/b").labels), "app=web,pod=b");
    assert_eq!(member("x/b").service_account, "web");
    assert_eq!(member("x/c").service_account, "default");
    assert_eq!(labels(&member("y/d").labels), "pod=d");
    assert_eq!(
        labels(&member("y/d").ports),
        "serve-80-tcp=tcp/80,serve-80-udp=udp/80,serve-81-tcp=tcp/81,serve-81-udp=udp/81,\
         serve-82-tcp=tcp/82,web=tcp/81"
    );
    let fixed = cluster.address(&"z/a".parse::<End>().unwrap(), Family::V6);
    assert_eq!(fixed.unwrap().to_string(), "2001:db8:18::7");
    assert_eq!(cluster.grid.len(), 5, "tcp/80 is a default port");
}

#[test]
fn errors_are_reported_with_their_line() {
    for (text, line, reason) in [
        ("  - apply: a\n  - applly: b\n", 6, "applly"),
        (
            "  - apply: a\n  - { apply: a, wait: 1s }\n",
            6,
            "more than one verb",
        ),
        ("  - apply: a\n  - expect: []\n", 6, "has no verb"),
        (
            "  - apply: a\n    expect:\n      - { to: x/a }\n",
            7,
            "verdict",
        ),
        (
            "  - apply: a\n    expect:\n      - { to: x/a, verdict: no }\n",
            7,
            "no",
        ),
        (
            "  - apply: a\n    expect:\n      - { too: x/a, verdict: deny }\n",
            7,
            "too",
        ),
        ("  - apply: ${ip4:x/q}\n", 5, "x/q"),
        ("  - wait: 1\n", 5, "duration"),
        ("  - mode: { x: open }\n", 5, "open"),
        ("  - mode: { q: observe }\n", 5, "\"q\""),
        ("  - remove: [x/a]\n  - remove: [x/a]\n", 6, "x/a"),
        ("  - add: { x/a: {} }\n", 5, "already exists"),
        ("  - add: { x/d: { ip4: 1.2.3 } }\n", 5, "1.2.3"),
        ("  - move-address: { from: x/a, to: x/q }\n", 5, "x/q"),
        ("  - label: { labels: {} }\n", 5, "either"),
        ("  - restart-agent: now\n", 5, "now"),
        ("  - delete: [p]\n", 5, "kind/namespace/name"),
        ("  - apply: [\n", 5, ""),
    ] {
        let error = steps(text).unwrap_err();
        assert!(error.reason.contains(reason), "{text}{}", error.reason);
        assert_eq!(error.line, line, "{text}{}", error.reason);
    }
    for (text, line) in [
        ("name: d\ntag: S\nwhy: w\nsteps: []\n", 1),
        ("name: c\ntag: X\nwhy: w\nsteps: []\n", 2),
        ("name: c\ntag: S\nwhy: w\nsteps: []\nextra: 1\n", 5),
        (
            "name: c\ntag: S\nwhy: w\ndelta: { grid: [tcp/82,\n icmp] }\nsteps: []\n",
            5,
        ),
        (
            "name: c\ntag: S\nwhy: w\ndelta:\n  workloads:\n    a: {}\nsteps: []\n",
            6,
        ),
    ] {
        assert_eq!(parse("c", text).unwrap_err().line, line, "{text}");
    }
}

#[test]
fn an_unreadable_file_is_reported_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    std::fs::write(&path, format!("{HEAD}stepz: []\n")).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.contains("c.yaml:4: "), "{error}");
    let error = read(&dir.path().join("none.yaml")).unwrap_err().to_string();
    assert!(error.contains("none.yaml:1: "), "{error}");
}
