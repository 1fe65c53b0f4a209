//! NetworkPolicy: isolation, peers and ports.

use super::*;
use crate::model::{PolicyKind, PortMatch, Ports, Protocol, RuleAction, Scope};

/// The number of rules in ingress and egress; `None` for a direction that is not isolated.
fn isolation(spec: &str) -> (Option<usize>, Option<usize>) {
    let fragment = parsed(&network_policy(&format!("podSelector: {{}}\n{spec}")));
    let policy = &fragment.policies[0];
    let count = |rules: &Option<Vec<Rule>>| rules.as_ref().map(Vec::len);
    (count(&policy.ingress), count(&policy.egress))
}

fn ingress_rule(rule: &str) -> Rule {
    let text = network_policy(&format!("podSelector: {{}}\ningress: [{rule}]"));
    one(&text).ingress.unwrap().remove(0)
}

/// The error about an ingress rule, which is in line 8 from column 13 on.
#[track_caller]
fn rule_refusal(rule: &str) -> String {
    let text = network_policy(&format!("podSelector: {{}}\ningress: [{rule}]"));
    let refusal = refusal(&text);
    let (place, message) = refusal.split_once(": NetworkPolicy shop/p: ").unwrap();
    assert!(place.starts_with("k.yaml:8:"), "{refusal}");
    message.to_owned()
}

#[test]
fn a_whole_policy() {
    let text = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: orders.v1
  namespace: shop
  labels: {team: orders}
  annotations:
    ringfence.io/owner: team-orders
    ringfence.io/justification: |
      order flow needs payments
    ringfence.io/ticket: SEC-1234
    ringfence.io/review-by: 2027-02-01
    other: text
spec:
  podSelector: {matchLabels: {app: orders}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - podSelector: {matchLabels: {app: frontend}}
    ports:
    - port: 8080
  - {}
  egress: []
status: {conditions: []}
";
    let policy = one(text);
    assert_eq!(policy.kind, PolicyKind::NetworkPolicy);
    assert_eq!(policy.id().to_string(), "networkpolicy/shop/orders.v1");
    assert_eq!(policy.origin.to_string(), "k.yaml:1");
    assert_eq!(policy.subject, labels("app=orders"));
    let about = &policy.about;
    assert_eq!(about.owner.as_deref(), Some("team-orders"));
    assert_eq!(
        about.justification.as_deref(),
        Some("order flow needs payments")
    );
    assert_eq!(about.ticket.as_deref(), Some("SEC-1234"));
    assert_eq!(about.review_by.as_deref(), Some("2027-02-01"));
    let ingress = policy.ingress.unwrap();
    assert_eq!(
        ingress.iter().map(|rule| rule.line).collect::<Vec<_>>(),
        [18, 22]
    );
    assert!(ingress.iter().all(|rule| rule.action == RuleAction::Allow));
    assert_eq!(
        (&ingress[1].peers, &ingress[1].ports),
        (&Peers::Any, &Ports::Any)
    );
    assert_eq!(policy.egress, Some(Vec::new()));
}

#[test]
fn which_directions_are_isolated() {
    let cases = [
        ("", (Some(0), None)),
        ("ingress: null", (Some(0), None)),
        ("policyTypes: []", (Some(0), None)),
        ("policyTypes: null", (Some(0), None)),
        ("egress: []", (Some(0), None)),
        ("egress: [{}]", (Some(0), Some(1))),
        ("ingress: [{}]", (Some(1), None)),
        ("policyTypes: [Ingress]", (Some(0), None)),
        ("policyTypes: [Egress]", (None, Some(0))),
        ("policyTypes: [Ingress, Egress]", (Some(0), Some(0))),
        ("policyTypes: [Egress]\negress: [{}, {}]", (None, Some(2))),
    ];
    for (spec, expected) in cases {
        assert_eq!(isolation(spec), expected, "{spec}");
    }
}

#[test]
fn rules_of_a_direction_not_in_policy_types_are_ignored_with_a_warning() {
    let text = network_policy("podSelector: {}\npolicyTypes: [Egress]\ningress: [{}]");
    let (policy, warning) = with_warning(&text);
    assert_eq!((policy.ingress, policy.egress), (None, Some(Vec::new())));
    assert_eq!(
        warning,
        "k.yaml:9:12: NetworkPolicy shop/p: ingress rules without effect: policyTypes does not \
         name Ingress"
    );
    // The ignored rules are checked as well.
    assert_eq!(
        refusal(&text.replace("[{}]", "[{form: []}]")),
        "k.yaml:9:14: NetworkPolicy shop/p: unknown field \"form\" in an ingress rule: expected \
         from, ports"
    );
}

#[test]
fn the_namespace_is_default_if_the_object_names_none() {
    let text = network_policy("podSelector: {}").replace("  namespace: shop\n", "");
    let policy = one(&text);
    assert_eq!(policy.scope, Scope::Namespace("default".parse().unwrap()));
}

#[test]
fn peers() {
    let peer = |peer: &str| match ingress_rule(&format!("{{from: [{peer}]}}")).peers {
        Peers::Of(mut peers) if peers.len() == 1 => peers.remove(0),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        peer("{podSelector: {matchLabels: {app: web}}}"),
        Peer::Workloads {
            namespaces: NamespaceMatch::Own("shop".parse().unwrap()),
            pods: Some(labels("app=web")),
            service_account: None,
        }
    );
    assert_eq!(
        peer("{podSelector: {}, ipBlock: null}"),
        Peer::Workloads {
            namespaces: NamespaceMatch::Own("shop".parse().unwrap()),
            pods: None,
            service_account: None,
        }
    );
    assert_eq!(
        peer("{namespaceSelector: {matchLabels: {env: prod}}}"),
        workloads("env=prod", "")
    );
    assert_eq!(
        peer("{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}"),
        workloads("", "app=web")
    );
    assert_eq!(
        peer("{ipBlock: {cidr: 10.0.0.0/8, except: [10.2.0.0/16, 10.1.0.0/16]}}"),
        Peer::Cidr {
            net: "10.0.0.0/8".parse().unwrap(),
            except: vec![
                "10.1.0.0/16".parse().unwrap(),
                "10.2.0.0/16".parse().unwrap()
            ],
        }
    );
    for any_peer in ["{from: []}", "{from: null}", "{}", "{ports: [{port: 80}]}"] {
        assert_eq!(ingress_rule(any_peer).peers, Peers::Any, "{any_peer}");
    }
}

#[test]
fn peers_that_are_refused() {
    assert_eq!(
        rule_refusal("{from: [{}]}"),
        "an empty peer: expected podSelector, namespaceSelector or ipBlock; omit the peers to \
         match every peer"
    );
    assert_eq!(
        rule_refusal("{from: [{podSelector: null}]}"),
        rule_refusal("{from: [{}]}")
    );
    assert_eq!(
        rule_refusal("{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}"),
        "ipBlock together with a selector: expected a separate peer for each"
    );
    assert_eq!(
        rule_refusal("{from: [{ipBlock: {}}]}"),
        "ipBlock without cidr: expected for example cidr: 203.0.113.0/24"
    );
    assert_eq!(
        rule_refusal("{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}"),
        "\"10.0.0.0/33\" is not a CIDR: expected for example 203.0.113.0/24 or fd00::/8"
    );
    for outside in ["11.0.0.0/8", "10.0.0.0/8", "fd00::/8"] {
        assert_eq!(
            rule_refusal(&format!(
                "{{from: [{{ipBlock: {{cidr: 10.0.0.0/8, except: [\"{outside}\"]}}}}]}}"
            )),
            format!(
                "except {outside} is not a part of 10.0.0.0/8: expected a smaller range inside \
                 the cidr"
            )
        );
    }
    assert_eq!(
        rule_refusal("{to: []}"),
        "unknown field \"to\" in an ingress rule: expected from, ports"
    );
    assert_eq!(
        rule_refusal("{from: [{serviceAccount: a}]}"),
        "unknown field \"serviceAccount\" in a peer: expected podSelector, namespaceSelector, \
         ipBlock"
            .to_owned()
    );
}

#[test]
fn host_bits_are_masked_with_a_warning() {
    let text =
        network_policy("podSelector: {}\ningress:\n- from:\n  - ipBlock:\n      cidr: 10.1.2.3/8");
    let (policy, warning) = with_warning(&text);
    let net = "10.0.0.0/8".parse().unwrap();
    let except = Vec::new();
    assert_eq!(
        policy.ingress.unwrap()[0].peers,
        Peers::Of(vec![Peer::Cidr { net, except }])
    );
    assert_eq!(
        warning,
        "k.yaml:11:15: NetworkPolicy shop/p: 10.1.2.3/8 has host bits set: taken as 10.0.0.0/8"
    );
}

#[test]
fn ports() {
    let port = |port: &str| match ingress_rule(&format!("{{ports: [{port}]}}")).ports {
        Ports::Of(mut ports) if ports.len() == 1 => ports.remove(0),
        other => panic!("{other:?}"),
    };
    let range = |protocol, first, last| PortMatch::Range {
        protocol,
        first,
        last,
    };
    assert_eq!(port("{port: 80}"), range(Protocol::Tcp, 80, 80));
    assert_eq!(
        port("{protocol: UDP, port: 53}"),
        range(Protocol::Udp, 53, 53)
    );
    assert_eq!(
        port("{protocol: SCTP, port: 1, endPort: 65535}"),
        range(Protocol::Sctp, 1, 65535)
    );
    assert_eq!(
        port("{port: 80, endPort: 80}"),
        range(Protocol::Tcp, 80, 80)
    );
    assert_eq!(port("{protocol: UDP}"), PortMatch::Protocol(Protocol::Udp));
    assert_eq!(port("{}"), PortMatch::Protocol(Protocol::Tcp));
    assert_eq!(
        port("{port: http, protocol: null}"),
        PortMatch::Named {
            protocol: Some(Protocol::Tcp),
            name: "http".parse().unwrap(),
        }
    );
    for every in ["{ports: []}", "{ports: null}", "{}"] {
        assert_eq!(ingress_rule(every).ports, Ports::Any, "{every}");
    }
}

#[test]
fn ports_that_are_refused() {
    let cases = [
        ("{port: 0}", "port is 0: expected 1 to 65535"),
        ("{port: 65536}", "port is 65536: expected 1 to 65535"),
        ("{port: -1}", "port is -1: expected 1 to 65535"),
        (
            "{port: 080}",
            "port is a number: expected a decimal integer",
        ),
        (
            "{port: 80.0}",
            "port is a number: expected a decimal integer",
        ),
        (
            "{port: 99999999999999999999999999}",
            "port is a number: expected a decimal integer",
        ),
        (
            "{port: \"80\"}",
            "port \"80\" is text: expected the number without quotes",
        ),
        ("{port: [80]}", "port is a list: expected a decimal integer"),
        (
            "{port: Http}",
            "\"Http\" is not a port name: expected 1 to 15 lower-case letters, digits or single \
             '-' inside, with at least one letter",
        ),
        (
            "{port: 90, endPort: 80}",
            "endPort 80 is below port 90: expected a range",
        ),
        (
            "{endPort: 80}",
            "endPort without port: expected the first port as port",
        ),
        (
            "{port: http, endPort: 80}",
            "endPort with a named port: expected a number as port",
        ),
        (
            "{protocol: ICMP}",
            "unknown protocol \"ICMP\": expected TCP, UDP or SCTP",
        ),
        (
            "{protocol: tcp}",
            "unknown protocol \"tcp\": expected TCP, UDP or SCTP",
        ),
        (
            "{portRange: 80}",
            "unknown field \"portRange\" in a port: expected protocol, port, endPort",
        ),
    ];
    for (port, message) in cases {
        assert_eq!(
            rule_refusal(&format!("{{ports: [{port}]}}")),
            message,
            "{port}"
        );
    }
}

#[test]
fn specs_that_are_refused() {
    let cases = [
        (
            "podSelector: {}\npolicyTypes: [Both]",
            "k.yaml:8:17: NetworkPolicy shop/p: unknown policy type \"Both\": expected Ingress or \
             Egress",
        ),
        (
            "podSelector: {}\ningres: []",
            "k.yaml:8:3: NetworkPolicy shop/p: unknown field \"ingres\" in spec: expected \
             podSelector, policyTypes, ingress, egress",
        ),
        (
            "podSelector: {}\ningress: {}",
            "k.yaml:8:12: NetworkPolicy shop/p: ingress is a mapping: expected a list",
        ),
        (
            "podSelector: app=web",
            "k.yaml:7:16: NetworkPolicy shop/p: podSelector is text: expected a mapping with \
             matchLabels, matchExpressions",
        ),
    ];
    for (spec, message) in cases {
        assert_eq!(refusal(&network_policy(spec)), message, "{spec}");
    }
    let without = network_policy("").replace("spec:\n", "");
    assert_eq!(
        refusal(&without),
        "k.yaml:1:1: NetworkPolicy shop/p: spec is missing: expected a spec with a podSelector"
    );
}

#[test]
fn a_policy_without_pod_selector_selects_every_pod() {
    let (policy, warning) = with_warning(&network_policy("policyTypes: [Ingress]"));
    assert!(policy.subject.is_everything());
    assert_eq!(
        warning,
        "k.yaml:7:3: NetworkPolicy shop/p: spec without podSelector: taken as every pod of the \
         namespace"
    );
}
