//! The policy language: the value that each notation is parsed to, and each error with its place.

mod cluster;

use super::*;
use ringfence_common::mode::Verdict;

use crate::model::{
    Entity, NamespaceName, PortMatch, PortName, Priority, Protocol, TestEnd, WallTime,
};

fn refusals(text: &str) -> Vec<String> {
    let errors = parse("p.toml", text).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

fn refusal(text: &str) -> String {
    let refusals = refusals(text);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    refusals[0].clone()
}

const HEAD: &str = "[[policy]]\nname = \"a\"\nnamespace = \"shop\"\nsubject = \"\"\n";

fn with_head(rest: &str) -> String {
    format!("{HEAD}{rest}")
}

/// The error about one line in an ingress rule, which is line 6.
fn rule_refusal(line: &str) -> String {
    refusal(&with_head(&format!("[[policy.ingress]]\n{line}")))
}

fn one(rest: &str) -> Arc<Policy> {
    let fragment = parse("p.toml", &with_head(rest)).unwrap();
    assert_eq!(fragment.warnings, []);
    fragment.policies[0].clone()
}

fn only_rule(rest: &str) -> Rule {
    one(&format!("[[policy.egress]]\n{rest}"))
        .egress
        .clone()
        .unwrap()
        .remove(0)
}

#[test]
fn a_complete_example() {
    let text = r#"
[[policy]]
name = "orders"
namespace = "shop"
subject = "app=orders,tier in (web,api)"
owner = "team-orders"
justification = "order flow needs payments"
ticket = "SEC-1234"
review-by = 2027-02-01

[[policy.ingress]]
from = [{ pods = "app=frontend" }, { namespaces = "env=prod", pods = "app=web" }]
ports = ["tcp/8080", "tcp/9000-9010", "udp/53", "http", "icmp"]

[[policy.egress]]
action = "deny"
to = [{ cidr = "203.0.113.0/24", except = ["203.0.113.7/32"] }, { service-account = "payments" }, { entity = "world" }]
ports = ["tcp/443"]
expires = 2026-12-01T00:00:00Z

[[policy.test]]
from = "shop/frontend-1"
to = "shop/orders-1"
port = "tcp/8080"
expect = "allow"
"#;
    let fragment = parse("p.toml", text).unwrap();
    let policy = &fragment.policies[0];
    assert_eq!(policy.id().to_string(), "shop/orders");
    assert_eq!(policy.origin.to_string(), "p.toml:2");
    assert_eq!(policy.subject.to_string(), "app=orders,tier in (api,web)");
    assert_eq!(policy.about.review_by.as_deref(), Some("2027-02-01"));
    let own = NamespaceMatch::Own(NamespaceName::new("shop").unwrap());
    let ingress = &policy.ingress.as_ref().unwrap()[0];
    assert_eq!((ingress.line, ingress.action), (11, RuleAction::Allow));
    let Peers::Of(peers) = &ingress.peers else {
        panic!("{ingress:?}")
    };
    assert_eq!(
        peers[0],
        Peer::Workloads {
            namespaces: own.clone(),
            pods: Some("app=frontend".parse().unwrap()),
            service_account: None
        }
    );
    let Ports::Of(ports) = &ingress.ports else {
        panic!("{ingress:?}")
    };
    let shown: Vec<_> = ports.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        ["tcp/8080", "tcp/9000-9010", "udp/53", "http", "icmp"]
    );
    let egress = &policy.egress.as_ref().unwrap()[0];
    assert_eq!((egress.line, egress.action), (15, RuleAction::Deny));
    assert_eq!(
        egress.window.expires,
        Some(WallTime(1_796_083_200_000_000_000))
    );
    let Peers::Of(peers) = &egress.peers else {
        panic!("{egress:?}")
    };
    assert_eq!(
        peers[0],
        Peer::Cidr {
            net: "203.0.113.0/24".parse().unwrap(),
            except: vec!["203.0.113.7/32".parse().unwrap()]
        }
    );
    let payments = Some(ServiceAccountName::new("payments").unwrap());
    assert_eq!(
        peers[1],
        Peer::Workloads {
            namespaces: own,
            pods: None,
            service_account: payments
        }
    );
    assert_eq!(peers[2], Peer::Entity(Entity::World));
    assert_eq!(
        (policy.tests[0].line, policy.tests[0].expect),
        (21, Verdict::Allow)
    );
    assert_eq!(
        policy.tests[0].from,
        TestEnd::Workload("shop/frontend-1".parse().unwrap())
    );
}

#[test]
fn a_direction_is_isolated_if_its_key_is_present() {
    let none = one("");
    assert_eq!(
        (none.ingress.is_some(), none.egress.is_some()),
        (false, false)
    );
    let empty = one("egress = []");
    assert_eq!(
        (empty.ingress.clone(), empty.egress.clone()),
        (None, Some(vec![]))
    );
}

#[test]
fn absent_peers_and_ports_match_everything() {
    let rule = only_rule("");
    assert_eq!((rule.peers, rule.ports), (Peers::Any, Ports::Any));
    assert_eq!(parse("p.toml", "").unwrap(), PolicyFragment::default());
    assert_eq!(
        only_rule("to = [{ namespaces = \"\", pods = \"\" }]").peers,
        Peers::Of(vec![Peer::Workloads {
            namespaces: NamespaceMatch::Selector(LabelSelector::everything()),
            pods: None,
            service_account: None,
        },])
    );
}

#[test]
fn named_ports_and_raw_protocols() {
    let http = PortName::new("http").unwrap();
    let rule = only_rule("ports = [\"tcp/http\", \"tcp\", \"protocol/47\", \"sctp/1-2\"]");
    assert_eq!(
        rule.ports,
        Ports::Of(vec![
            PortMatch::Named {
                protocol: Some(Protocol::Tcp),
                name: http
            },
            PortMatch::Protocol(Protocol::Tcp),
            PortMatch::Protocol(Protocol::Number(47)),
            PortMatch::Range {
                protocol: Protocol::Sctp,
                first: 1,
                last: 2
            },
        ])
    );
}

#[test]
fn host_bits_are_masked_with_a_warning() {
    let text = with_head("[[policy.egress]]\nto = [{ cidr = \"10.1.2.3/8\" }]");
    let fragment = parse("p.toml", &text).unwrap();
    assert_eq!(
        fragment.warnings[0].to_string(),
        "p.toml:6:16: 10.1.2.3/8 has host bits set: taken as 10.0.0.0/8"
    );
    let Peers::Of(peers) = &fragment.policies[0].egress.as_ref().unwrap()[0].peers else {
        panic!("{fragment:?}")
    };
    assert_eq!(
        peers[0],
        Peer::Cidr {
            net: "10.0.0.0/8".parse().unwrap(),
            except: vec![]
        }
    );
}

#[test]
fn bad_peers_are_refused() {
    for (line, message) in [
        (
            "from = []",
            "6:8: from is empty: expected a peer; omit from to match every peer",
        ),
        (
            "from = [{}]",
            "6:9: an empty peer: expected namespaces, pods, service-account, cidr or entity",
        ),
        (
            "from = [{ cidr = \"10.0.0.0/8\", pods = \"\" }]",
            "6:9: cidr (with except) cannot be combined with other keys: expected a separate peer \
             for each condition",
        ),
        (
            "from = [{ entity = \"world\", namespaces = \"\" }]",
            "6:9: entity cannot be combined with other keys: expected a separate peer for each \
             condition",
        ),
        (
            "from = [{ entity = \"moon\" }]",
            "6:20: unknown entity \"moon\": expected world, host or remote-node",
        ),
        (
            "from = [{ pods = \"\", except = [\"10.0.0.0/8\"] }]",
            "6:31: except without cidr: expected the cidr that contains the exceptions",
        ),
        (
            "from = [{ cidr = \"10.0.0.0\" }]",
            "6:18: \"10.0.0.0\" is not a CIDR: expected for example 203.0.113.0/24 or fd00::/8",
        ),
        (
            "from = [{ cidr = \"10.0.0.0/8\", except = [\"11.0.0.0/9\"] }]",
            "6:42: except 11.0.0.0/9 is not a part of 10.0.0.0/8: expected a smaller range inside \
             the cidr",
        ),
        (
            "from = [{ cidr = \"10.0.0.0/8\", except = [\"fd00::/9\"] }]",
            "6:42: except fd00::/9 is not a part of 10.0.0.0/8: expected a smaller range inside \
             the cidr",
        ),
        (
            "from = [{ cidr = \"::ffff:10.0.0.0/104\" }]",
            "6:18: \"::ffff:10.0.0.0/104\" contains IPv4-mapped IPv6 addresses: expected the IPv4 \
             CIDR itself",
        ),
        (
            "from = [{ pods = \"app in\" }]",
            "6:18: bad label selector at character 7: found the end, expected '('",
        ),
        (
            "to = [{ pods = \"\" }]",
            "6:6: to is not valid in this direction: expected from",
        ),
    ] {
        assert_eq!(rule_refusal(line), format!("p.toml:{message}"), "{line}");
    }
    assert!(rule_refusal("from = [{ service-account = \"A\" }]").contains("6:29: \"A\" is not"));
}

#[test]
fn bad_ports_are_refused() {
    let forms = "expected tcp/8080, tcp/9000-9010, tcp, icmp, protocol/47, http or tcp/http \
                 (also with udp and sctp)";
    let numbers = "expected numbers from 1 to 65535";
    for (port, message) in [
        ("tcp/0", format!("bad port \"tcp/0\": {numbers}")),
        ("tcp/65536", format!("bad port \"tcp/65536\": {numbers}")),
        ("tcp/080", format!("bad port \"tcp/080\": {numbers}")),
        ("tcp/1-", format!("bad port \"tcp/1-\": {numbers}")),
        ("tcp/1-2-3", format!("bad port \"tcp/1-2-3\": {numbers}")),
        (
            "tcp/9-8",
            "port range \"tcp/9-8\" is reversed: expected tcp/8-9".to_owned(),
        ),
        ("tcp/", format!("bad port \"tcp/\": {forms}")),
        ("tcp/+80", format!("bad port \"tcp/+80\": {forms}")),
        ("80", format!("bad port \"80\": {forms}")),
        ("", format!("bad port \"\": {forms}")),
        (
            "TCP/80",
            format!("unknown protocol in port \"TCP/80\": {forms}"),
        ),
        (
            "icmp/8",
            "icmp has no ports but \"icmp/8\" names one: expected icmp alone".to_owned(),
        ),
        (
            "protocol/6",
            "\"protocol/6\" has a name: expected tcp".to_owned(),
        ),
        (
            "protocol/256",
            "bad port \"protocol/256\": expected protocol/0 to protocol/255".to_owned(),
        ),
    ] {
        let line = format!("ports = [\"udp/53\", \"{port}\"]");
        assert_eq!(
            rule_refusal(&line),
            format!("p.toml:6:20: {message}"),
            "{port}"
        );
    }
    assert_eq!(
        rule_refusal("ports = []"),
        "p.toml:6:9: ports is empty: expected a port; omit ports to match every port"
    );
}

#[test]
fn times() {
    let rule =
        only_rule("not-before = 2026-01-01T01:00:00+01:00\nexpires = \"2026-01-01T00:00:01Z\"");
    assert_eq!(
        rule.window.not_before,
        Some(WallTime(1_767_225_600_000_000_000))
    );
    assert_eq!(
        rule.window.expires,
        Some(WallTime(1_767_225_601_000_000_000))
    );
    let form = "expected a time with an offset, for example 2026-12-01T00:00:00Z";
    for (line, message) in [
        (
            "expires = 2026-01-01T00:00:00",
            format!("2026-01-01T00:00:00 has no offset: {form}"),
        ),
        (
            "expires = 2026-01-01",
            format!("2026-01-01 has no offset: {form}"),
        ),
        (
            "expires = \"tomorrow\"",
            format!("bad time \"tomorrow\": {form}"),
        ),
        (
            "expires = \"2026-01-01T00:00\"",
            format!("bad time \"2026-01-01T00:00\": {form}"),
        ),
        (
            "expires = 7",
            format!("not a time but a value of type integer: {form}"),
        ),
        (
            "expires = 9000-01-01T00:00:00Z",
            "time \"9000-01-01T00:00:00Z\" is out of range: expected a year from 1678 to 2261"
                .to_owned(),
        ),
    ] {
        assert_eq!(
            rule_refusal(line),
            format!("p.toml:6:11: {message}"),
            "{line}"
        );
    }
    assert_eq!(
        rule_refusal("expires = 2026-01-01T00:00:00Z\nnot-before = 2026-01-01T00:00:00Z"),
        "p.toml:6:11: the rule expires before it begins: expected expires after not-before"
    );
}

#[test]
fn incomplete_and_misspelt_policies_are_refused() {
    assert_eq!(
        refusal("[[policy]]\nname = \"a\"\nsubject = \"\""),
        "p.toml:1:1: a policy without namespace: expected namespace = \"…\", or \
         scope = \"cluster\" with a tier"
    );
    assert_eq!(
        refusal("[[policy]]\nname = \"a\"\nnamespace = \"shop\""),
        "p.toml:1:1: a policy without subject: expected a label selector, \"\" selects all"
    );
    assert!(refusal("[[policy]]\nnamespace = \"shop\"").contains("1:1: missing field `name`"));
    for text in ["policies = 1", "[[policy]]\nname = \"a\"\nlabels = {}"] {
        assert!(
            refusal(text).contains(": unknown field `"),
            "{}",
            refusal(text)
        );
    }
    assert!(rule_refusal("form = []").starts_with("p.toml:6:1: unknown field `form`, expected"));
    assert!(rule_refusal("from = [{ pod = \"\" }]").starts_with("p.toml:6:11: unknown field"));
}

#[test]
fn bad_tests_and_days_are_refused() {
    let test = |from: &str, port: &str, expect: &str| {
        refusal(&with_head(&format!(
            "[[policy.test]]\nfrom = \"{from}\"\nto = \"::1\"\nport = \"{port}\"\nexpect = \"{expect}\""
        )))
    };
    assert_eq!(
        test("orders", "icmp", "deny"),
        "p.toml:6:8: \"orders\" is neither a workload nor an address: expected for example \
         shop/orders-1 or 203.0.113.7"
    );
    assert_eq!(
        test("a/b", "tcp", "deny"),
        "p.toml:8:8: \"tcp\" is not one port: expected for example tcp/8080, http or icmp"
    );
    assert_eq!(
        test("a/b", "http", "drop"),
        "p.toml:9:10: unknown verdict \"drop\": expected allow or deny"
    );
    assert_eq!(
        refusal(&with_head("review-by = 2026-01-01T00:00:00Z")),
        "p.toml:5:13: not a day: expected a date without time, for example 2027-02-01"
    );
}

#[test]
fn all_errors_of_a_file_are_reported_at_once() {
    let text = with_head(
        "[[policy.ingress]]\nports = [\"80\"]\naction = \"drop\"\n[[policy.egress]]\nto = []\n",
    );
    assert_eq!(refusals(&text).len(), 3);
}

#[test]
fn hostile_text_is_escaped() {
    let refusal =
        refusal("[[policy]]\nname = \"a\\u202e\\u0000\"\nnamespace = \"x\"\nsubject = \"\"");
    assert!(refusal.starts_with("p.toml:2:8: \"a\\u{202e}\\u{0}\" is not a policy name"));
    let unknown = self::refusal("\"x\\u001b[2J\" = 1");
    assert!(!unknown.contains('\u{1b}'), "{unknown}");
    let raw = self::refusal("[[policy]]\nname = \"a\0\"");
    assert!(raw.starts_with("p.toml:2:"), "{raw}");
}
