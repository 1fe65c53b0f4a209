//! Random policies: every peer type, ranges with odd bounds, windows around the present.

use std::{collections::BTreeSet, sync::Arc};

use proptest::{
    collection::vec,
    option::{of, weighted},
    prelude::*,
    sample::select,
};

use super::{NAMESPACES, NOW, PORTS, account_name};
use crate::model::{
    About, Entity, LabelSelector, NamespaceMatch, NamespaceName, Origin, Peer, Peers, Policy,
    PolicyKind, PolicyName, PolicySet, PortMatch, PortName, Ports, Priority, Protocol, Rule,
    RuleAction, Scope, Tier, WallTime, Window,
};

fn selector() -> impl Strategy<Value = LabelSelector> {
    let forms = vec![
        "app=web",
        "app=db",
        "app",
        "!app",
        "app!=web",
        "app in (web,db)",
        "tier=",
        "tier notin (x)",
        "app=web,tier=x",
        "!canary",
    ];
    select(forms).prop_map(|text| text.parse().unwrap())
}

fn subject() -> impl Strategy<Value = LabelSelector> {
    prop_oneof![2 => Just(LabelSelector::everything()), 3 => selector()]
}

fn namespaces() -> impl Strategy<Value = NamespaceMatch> {
    let own = select(NAMESPACES.to_vec())
        .prop_map(|name| NamespaceMatch::Own(NamespaceName::new(name).unwrap()));
    let forms = vec![
        "",
        "env=prod",
        "!env",
        "kubernetes.io/metadata.name in (a,c)",
    ];
    let selected = select(forms).prop_map(|text| NamespaceMatch::Selector(text.parse().unwrap()));
    prop_oneof![own, selected]
}

fn peer() -> impl Strategy<Value = Peer> {
    let account = weighted(0.2, select(vec!["default", "s"]).prop_map(account_name));
    let workloads =
        (namespaces(), of(selector()), account).prop_map(|(namespaces, pods, service_account)| {
            Peer::Workloads {
                namespaces,
                pods,
                service_account,
            }
        });
    let nested = vec![
        vec![
            "10.0.0.0/16",
            "10.0.0.0/24",
            "10.0.0.0/29",
            "10.0.0.4/30",
            "10.0.0.3/32",
        ],
        vec![
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.0.1.0/24",
            "192.0.2.0/24",
            "10.0.1.250/32",
        ],
        vec![
            "::/0",
            "fd00::/16",
            "fd00::/64",
            "fd00::/126",
            "fd00::3/128",
        ],
        vec![
            "128.0.0.0/1",
            "169.0.0.0/8",
            "169.254.0.0/16",
            "169.254.9.0/24",
            "169.254.9.255/32",
        ],
        vec!["10.0.0.0/9", "10.0.0.128/25", "10.0.0.255/32"],
        vec!["224.0.0.0/3", "224.0.0.0/4", "224.0.0.251/32"],
        vec!["f000::/4", "fe80::/10", "fe80::/124", "fe80::9/128"],
        vec!["::/1", "::/96", "::1/128"],
    ];
    let cidr = select(nested).prop_flat_map(|nets| {
        (0..nets.len(), vec(0..nets.len(), 0..3)).prop_map(move |(net, holes)| {
            let parse = |index: usize| nets[index].parse().unwrap();
            let holes: BTreeSet<usize> = holes.into_iter().filter(|hole| *hole > net).collect();
            let mut except: Vec<ipnet::IpNet> = holes.into_iter().map(parse).collect();
            except.sort();
            Peer::Cidr {
                net: parse(net),
                except,
            }
        })
    });
    let entity = select(vec![Entity::World, Entity::Host, Entity::RemoteNode]);
    prop_oneof![3 => workloads, 2 => cidr, 1 => entity.prop_map(Peer::Entity)]
}

fn port_match() -> impl Strategy<Value = PortMatch> {
    let carrier = || select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let whole = select(vec![
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Sctp,
        Protocol::Icmp,
        Protocol::Number(47),
        Protocol::Number(4),
        Protocol::Number(41),
        Protocol::Number(0),
    ]);
    let bound = || prop_oneof![select(PORTS.to_vec()), 1..=u16::MAX];
    let range = (carrier(), bound(), bound()).prop_map(|(protocol, one, other)| PortMatch::Range {
        protocol,
        first: one.min(other),
        last: one.max(other),
    });
    let single =
        (carrier(), select(PORTS.to_vec())).prop_map(|(protocol, port)| PortMatch::Range {
            protocol,
            first: port,
            last: port,
        });
    let named = (of(carrier()), select(vec!["web", "dns", "none"])).prop_map(|(protocol, name)| {
        PortMatch::Named {
            protocol,
            name: PortName::new(name).unwrap(),
        }
    });
    prop_oneof![2 => whole.prop_map(PortMatch::Protocol), 2 => range, 2 => single, 3 => named]
}

fn window() -> impl Strategy<Value = Window> {
    let near = || select(vec![-1_000_000_000, -1, 0, 1, 1_000_000_000, 7_000_000_000]);
    let time = move || weighted(0.3, near().prop_map(|by: i64| WallTime(NOW.0 + by)));
    (time(), time()).prop_map(|(not_before, expires)| Window {
        not_before,
        expires,
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        4 => Just(RuleAction::Allow),
        2 => Just(RuleAction::Deny),
        1 => Just(RuleAction::Reject),
        1 => Just(RuleAction::Pass),
    ];
    let no_peer = Just(Peers::NoPeer);
    let peers = prop_oneof![2 => Just(Peers::Any), 1 => no_peer, 12 => vec(peer(), 1..3).prop_map(Peers::Of)];
    let ports =
        prop_oneof![1 => Just(Ports::Any), 3 => vec(port_match(), 1..4).prop_map(Ports::Of)];
    (action, peers, ports, window()).prop_map(|(action, peers, ports, window)| Rule {
        action,
        peers,
        ports,
        window,
        name: None,
        line: 1,
    })
}

/// Few priorities, so that policies often have equal ones.
fn scope() -> impl Strategy<Value = Scope> {
    let namespace = select(NAMESPACES.to_vec())
        .prop_map(|name| Scope::Namespace(NamespaceName::new(name).unwrap()));
    let tier = prop_oneof![3 => Just(Tier::Admin), 2 => Just(Tier::Baseline)];
    let of_some = select(vec!["", "", "env=prod", "env!=prod"]);
    let cluster =
        (tier, select(vec![0, 5, 6, 1000]), of_some).prop_map(|(tier, priority, namespaces)| {
            Scope::Cluster {
                tier,
                priority: Priority::new(priority).unwrap(),
                namespaces: namespaces.parse().unwrap(),
            }
        });
    prop_oneof![namespace, cluster]
}

/// There is no pass in the namespace tier.
fn fitting(scope: &Scope, rules: Option<Vec<Rule>>) -> Option<Vec<Rule>> {
    let mut rules = rules?;
    for rule in &mut rules {
        if matches!(scope, Scope::Namespace(_)) && rule.action == RuleAction::Pass {
            rule.action = RuleAction::Allow;
        }
    }
    Some(rules)
}

pub(super) fn policies() -> impl Strategy<Value = Arc<PolicySet>> {
    let rules = || weighted(0.7, vec(rule(), 0..4));
    vec((scope(), subject(), rules(), rules()), 0..7).prop_map(|drawn| {
        let policies = drawn.into_iter().enumerate().map(|(place, drawn)| {
            let (scope, subject, ingress, egress) = drawn;
            Arc::new(Policy {
                kind: PolicyKind::Ringfence,
                name: PolicyName::new(&format!("p{place}")).unwrap(),
                ingress: fitting(&scope, ingress),
                egress: fitting(&scope, egress),
                scope,
                subject,
                about: About::default(),
                tests: Vec::new(),
                origin: Origin {
                    file: Arc::from("random"),
                    line: 1,
                },
            })
        });
        Arc::new(PolicySet::build(policies).unwrap())
    })
}
