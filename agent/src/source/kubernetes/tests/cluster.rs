//! ClusterNetworkPolicy: scope, rules, peers that fail closed, and fields of older APIs.

use super::*;
use crate::model::{Entity, PortMatch, Ports, Protocol, RuleAction, Scope, Tier};

const HEAD: &str = "tier: Admin\npriority: 10\nsubject: {namespaces: {}}\n";

fn egress(rule: &str) -> String {
    cluster_policy(&format!("{HEAD}egress: [{rule}]"))
}

fn egress_rule(rule: &str) -> Rule {
    one(&egress(rule)).egress.unwrap().remove(0)
}

/// The error about an egress rule, without place and name.
#[track_caller]
fn rule_refusal(rule: &str) -> String {
    let refusal = refusal(&egress(rule));
    let (place, message) = refusal
        .split_once(": ClusterNetworkPolicy p: ")
        .unwrap_or_else(|| panic!("{refusal}"));
    assert!(place.starts_with("k.yaml:8:"), "{refusal}");
    message.to_owned()
}

#[track_caller]
fn spec_refusal(spec: &str) -> String {
    let refusal = refusal(&cluster_policy(spec));
    let (_, message) = refusal.split_once(": ClusterNetworkPolicy p: ").unwrap();
    message.to_owned()
}

#[test]
fn a_whole_policy() {
    let text = "\
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata:
  name: guard
  annotations: {ringfence.io/owner: platform}
spec:
  tier: Baseline
  priority: 1000
  subject:
    pods:
      namespaceSelector: {matchLabels: {env: prod}}
      podSelector: {matchLabels: {app: web}}
  ingress:
  - name: from the shop
    action: Pass
    from:
    - namespaces: {matchLabels: {team: shop}}
    - pods: {podSelector: {matchLabels: {app: probe}}}
    protocols:
    - tcp: {destinationPort: {number: 80}}
    - udp: {destinationPort: {range: {start: 5000, end: 5010}}}
    - destinationNamedPort: http
  - action: Deny
    from: [{namespaces: {}}]
";
    let policy = one(text);
    assert_eq!(policy.id().to_string(), "clusternetworkpolicy/guard");
    assert_eq!(policy.about.owner.as_deref(), Some("platform"));
    let Scope::Cluster {
        tier,
        priority,
        namespaces,
    } = &policy.scope
    else {
        panic!("{:?}", policy.scope);
    };
    assert_eq!((*tier, priority.get()), (Tier::Baseline, 1000));
    assert_eq!(namespaces, &labels("env=prod"));
    assert_eq!(policy.subject, labels("app=web"));
    assert_eq!(policy.egress, None);
    let rules = policy.ingress.unwrap();
    assert_eq!(rules[0].name.as_deref(), Some("from the shop"));
    assert_eq!(rules[0].action, RuleAction::Pass);
    assert_eq!(
        rules[0].peers,
        Peers::Of(vec![workloads("team=shop", ""), workloads("", "app=probe")])
    );
    assert_eq!(
        rules[0].ports,
        Ports::Of(vec![
            PortMatch::Range {
                protocol: Protocol::Tcp,
                first: 80,
                last: 80
            },
            PortMatch::Range {
                protocol: Protocol::Udp,
                first: 5000,
                last: 5010
            },
            PortMatch::Named {
                protocol: None,
                name: "http".parse().unwrap()
            },
        ])
    );
    assert_eq!((rules[1].action, rules[1].line), (RuleAction::Deny, 23));
    assert_eq!(rules[1].ports, Ports::Any);
}

#[test]
fn a_direction_without_rules_is_absent() {
    let policy = one(&cluster_policy(&format!("{HEAD}ingress: []\negress: null")));
    assert_eq!((policy.ingress, policy.egress), (None, None));
}

#[test]
fn egress_peers() {
    let rule = egress_rule("{action: Accept, to: [{nodes: {}}]}");
    assert_eq!(rule.action, RuleAction::Allow);
    assert_eq!(
        rule.peers,
        Peers::Of(vec![
            Peer::Entity(Entity::Host),
            Peer::Entity(Entity::RemoteNode)
        ])
    );
    let cidr = |net: &str| Peer::Cidr {
        net: net.parse().unwrap(),
        except: Vec::new(),
    };
    let rule = egress_rule("{action: Deny, to: [{networks: [10.0.0.0/8, \"fd00::/8\"]}]}");
    assert_eq!(
        rule.peers,
        Peers::Of(vec![cidr("10.0.0.0/8"), cidr("fd00::/8")])
    );
}

#[test]
fn unsupported_peers_fail_closed() {
    let cases = [
        (
            "{}",
            "8:34",
            "an empty peer, or one that this version does not support",
        ),
        (
            "{nodes: {matchLabels: {a: b}}}",
            "8:42",
            "nodes selected by labels, which this version does not support",
        ),
        (
            "{domainNames: [example.org]}",
            "8:48",
            "domainNames, which this version does not support",
        ),
    ];
    for (peer, place, reason) in cases {
        let text = egress(&format!(
            "{{action: Accept, to: [{peer}, {{namespaces: {{}}}}], protocols: [{{tcp: \
             {{destinationPort: {{number: 80}}}}}}]}}"
        ));
        let (policy, warning) = with_warning(&text);
        let rule = &policy.egress.unwrap()[0];
        assert_eq!(
            (rule.action, &rule.peers),
            (RuleAction::Allow, &Peers::NoPeer)
        );
        assert_eq!(
            warning,
            format!("k.yaml:{place}: ClusterNetworkPolicy p: {reason}: the rule matches nothing"),
            "{peer}"
        );
        for action in ["Deny", "Pass"] {
            let text = egress(&format!(
                "{{name: last, action: {action}, to: [{{namespaces: {{}}}}, {peer}], protocols: \
                 [{{tcp: {{destinationPort: {{number: 80}}}}}}]}}"
            ));
            let (policy, warning) = with_warning(&text);
            let rule = &policy.egress.unwrap()[0];
            assert_eq!(
                (rule.action, &rule.peers, &rule.ports),
                (RuleAction::Deny, &Peers::Any, &Ports::Any)
            );
            assert!(
                warning.ends_with(&format!("{reason}: rule \"last\" denies everything")),
                "{warning}"
            );
        }
    }
}

#[test]
fn rules_that_are_refused() {
    let cases = [
        (
            "{action: Deny, to: [{namespaces: {}, networks: [10.0.0.0/8]}]}",
            "a peer with several fields: expected a separate peer for each",
        ),
        (
            "{action: Deny, to: []}",
            "to is empty: expected at least one peer",
        ),
        (
            "{action: Deny}",
            "a required field is missing: expected to: with at least one peer",
        ),
        (
            "{to: [{namespaces: {}}]}",
            "a required field is missing: expected action: Accept, Deny or Pass",
        ),
        (
            "{action: Allow, to: [{namespaces: {}}]}",
            "unknown action \"Allow\": expected Accept",
        ),
        (
            "{action: Reject, to: [{namespaces: {}}]}",
            "unknown action \"Reject\": expected Accept, Deny or Pass",
        ),
        (
            "{action: Deny, to: [{pods: {namespaceSelector: {}}}]}",
            "pods without podSelector: expected one, {} for every pod",
        ),
        (
            "{action: Deny, to: [{networks: []}]}",
            "networks is empty: expected at least one",
        ),
        (
            "{action: Deny, to: [{networks: [10.0.0.0]}]}",
            "\"10.0.0.0\" is not a CIDR: expected for example 203.0.113.0/24 or fd00::/8",
        ),
        (
            "{action: Deny, to: [{users: {}}]}",
            "unknown field \"users\" in a cluster policy's egress peer: expected namespaces, pods, \
             nodes, networks, domainNames",
        ),
        (
            "{action: Deny, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: \
             http}]}",
            "destinationNamedPort together with networks, which declare no ports: expected a \
             separate rule for each",
        ),
    ];
    for (rule, message) in cases {
        assert_eq!(rule_refusal(rule), message, "{rule}");
    }
    let name = "n".repeat(101);
    assert_eq!(
        rule_refusal(&format!(
            "{{name: {name}, action: Deny, to: [{{namespaces: {{}}}}]}}"
        )),
        "the text has 101 characters: expected at most 100"
    );
    let many = vec!["{namespaces: {}}"; 26].join(", ");
    assert_eq!(
        rule_refusal(&format!("{{action: Deny, to: [{many}]}}")),
        "to has 26 items: expected at most 25"
    );
}

#[test]
fn protocols_that_are_refused() {
    let protocol = |entry: &str| {
        rule_refusal(&format!(
            "{{action: Deny, to: [{{namespaces: {{}}}}], protocols: [{entry}]}}"
        ))
    };
    let exactly_one = "a protocol entry: expected exactly one of tcp, udp, sctp and \
                       destinationNamedPort";
    assert_eq!(protocol("{}"), exactly_one);
    assert_eq!(
        protocol("{destinationNamedPort: http, tcp: {destinationPort: {number: 1}}}"),
        exactly_one
    );
    assert_eq!(
        protocol("{tcp: {}}"),
        "tcp without destinationPort: expected {destinationPort: {number: …}}, or {range: {start: \
         1, end: 65535}} in it for every port"
    );
    assert_eq!(
        protocol("{tcp: {destinationPort: {}}}"),
        "destinationPort: expected exactly one of number and range"
    );
    assert_eq!(
        protocol("{tcp: {destinationPort: {number: 0}}}"),
        "number is 0: expected 1 to 65535"
    );
    assert_eq!(
        protocol("{tcp: {destinationPort: {range: {start: 9, end: 9}}}}"),
        "port range 9 to 9: expected start below end, or a number for one port"
    );
    assert_eq!(
        protocol("{tcp: {destinationPort: {range: {start: 9}}}}"),
        "a port range: expected start and end"
    );
    assert_eq!(
        rule_refusal("{action: Deny, to: [{namespaces: {}}], protocols: []}"),
        "protocols is empty: expected an entry; omit protocols to match every protocol"
    );
}

#[test]
fn scopes_that_are_refused() {
    assert_eq!(
        spec_refusal("priority: 1\nsubject: {namespaces: {}}"),
        "a required field is missing: expected tier: Admin or tier: Baseline"
    );
    assert_eq!(
        spec_refusal("tier: Admin\nsubject: {namespaces: {}}"),
        "a required field is missing: expected priority: 0 to 1000, lower is evaluated first"
    );
    assert_eq!(
        spec_refusal("tier: Admin\npriority: 1"),
        "a required field is missing: expected subject: {namespaces: …} or {pods: …}"
    );
    assert_eq!(
        spec_refusal("tier: admin\npriority: 1\nsubject: {namespaces: {}}"),
        "unknown tier \"admin\": expected Admin or Baseline"
    );
    assert_eq!(
        spec_refusal("tier: Admin\npriority: 1001\nsubject: {namespaces: {}}"),
        "priority 1001 is out of range: expected 0 to 1000"
    );
    for subject in ["{}", "{namespaces: {}, pods: {podSelector: {}}}"] {
        assert_eq!(
            spec_refusal(&format!("tier: Admin\npriority: 1\nsubject: {subject}")),
            "subject: expected exactly one of namespaces and pods"
        );
    }
    let text = cluster_policy(HEAD).replace("{name: p}", "{name: p, namespace: shop}");
    assert_eq!(
        refusal(&text),
        "k.yaml:3:32: ClusterNetworkPolicy p: metadata.namespace on a cluster policy: expected none"
    );
}

#[test]
fn fields_of_older_apis_are_refused_with_their_replacement() {
    let protocols = |entry: &str| {
        rule_refusal(&format!(
            "{{action: Deny, to: [{{namespaces: {{}}}}], protocols: [{{tcp: {entry}}}]}}"
        ))
    };
    assert!(
        rule_refusal("{action: Deny, to: [{namespaces: {}}], ports: [{portNumber: {port: 80}}]}")
            .ends_with("expected protocols, as in [{tcp: {destinationPort: {number: 443}}}]")
    );
    for entry in [
        "{destinationPort: {number: 80}, portNumber: {port: 80}}",
        "{destinationPort: {number: 80}, portRange: {start: 1, end: 2}}",
    ] {
        assert!(
            protocols(entry).contains("expected destinationPort, as in tcp:"),
            "{entry}"
        );
    }
    assert!(
        rule_refusal(
            "{action: Deny, to: [{namespaces: {}}], protocols: [{namedPort: a, \
             destinationNamedPort: a}]}"
        )
        .ends_with("expected destinationNamedPort")
    );
    for old in ["sameLabels", "notSameLabels"] {
        assert!(
            rule_refusal(&format!(
                "{{action: Deny, to: [{{namespaces: {{{old}: [a]}}}}]}}"
            ))
            .contains("with a separate policy for each value"),
            "{old}"
        );
    }
    assert!(
        rule_refusal("{action: Deny, to: [{namespaces: {namespaceSelector: {}}}]}")
            .contains("without namespaceSelector around them")
    );
    let ingress = cluster_policy(&format!(
        "{HEAD}ingress: [{{action: Accept, from: [{{networks: [10.0.0.0/8]}}]}}]"
    ));
    let (policy, refusal) = (ingress, refusal);
    assert!(refusal(&policy).ends_with(
        "unknown field \"networks\" in a cluster policy's peer: expected namespaces or pods: the \
         other fields are only valid in egress peers"
    ));
}
