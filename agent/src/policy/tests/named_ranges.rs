//! Chosen rules to special addresses, to the node and to the cluster, and what of them needs a name.

use std::sync::Arc;

use ringfence_common::mode::Verdict;

use crate::{
    model::{Inventory, NodeName, NodeNetwork, PolicySet, PortMatch, Protocol, TestEnd},
    oracle::NOW,
    policy::{Evaluator, Query},
    source::{inventory_toml, policy_toml},
};

const INVENTORY: &str = r#"
[[namespace]]
name = "shop"
[[workload]]
name = "web"
namespace = "shop"
addresses = ["10.0.0.1", "fd00::1"]
[[workload]]
name = "db"
namespace = "shop"
addresses = ["10.0.0.2", "fd00::2"]
[[node]]
name = "here"
local = true
addresses = ["192.0.2.1"]
[[node]]
name = "there"
addresses = ["192.0.2.2", "fd00::b"]
"#;

fn inventory() -> Arc<Inventory> {
    let read = inventory_toml::parse("i.toml", INVENTORY).unwrap();
    let listed = Inventory::build(
        read.namespaces.into_iter().map(|it| it.item).collect(),
        read.workloads.into_iter().map(|it| it.item).collect(),
        read.nodes.into_iter().map(|it| it.item).collect(),
    );
    let network = NodeNetwork {
        own: ["192.0.2.1", "198.51.100.1", "fe80::a"]
            .map(|it| it.parse().unwrap())
            .into(),
        own_ranges: ["203.0.114.0/24".parse().unwrap()].into(),
        broadcasts: ["192.0.2.255".parse().unwrap()].into(),
        cluster: ["10.96.0.0/12".parse().unwrap()].into(),
        ..NodeNetwork::default()
    };
    let name = NodeName::new("here").unwrap();
    Arc::new(listed.unwrap().on_node(&name, &Arc::new(network)))
}

fn evaluator(egress: &str) -> Evaluator {
    let policy =
        format!("[[policy]]\nname = \"p\"\nnamespace = \"shop\"\nsubject = \"\"\n{egress}\n");
    let read = policy_toml::parse("p.toml", &policy).unwrap();
    let policies = Arc::new(PolicySet::build(read.policies).unwrap());
    Evaluator::new(&inventory(), &policies, NOW).unwrap()
}

/// The verdict on egress of `shop/web`, and what decided.
fn ask(evaluator: &Evaluator, to: &str, port: PortMatch) -> (bool, String) {
    let to: std::net::IpAddr = to.parse().unwrap();
    let from = if to.is_ipv4() { "10.0.0.1" } else { "fd00::1" };
    let answer = evaluator.ask(&Query {
        from: TestEnd::Address(from.parse().unwrap()),
        to: TestEnd::Address(to),
        port,
        family: None,
    });
    let egress = answer.unwrap().egress;
    (egress.verdict == Verdict::Allow, egress.rule)
}

const fn udp(port: u16) -> PortMatch {
    PortMatch::Range {
        protocol: Protocol::Udp,
        first: port,
        last: port,
    }
}

const SPECIAL: [&str; 12] = [
    "169.254.169.254",
    "224.0.0.251",
    "239.1.2.3",
    "255.255.255.255",
    "127.0.0.1",
    "0.0.0.1",
    "192.0.2.255",
    "fe80::9",
    "ff02::1",
    "ff0e::1",
    "::1",
    "::ffff:203.0.113.1",
];
const WORLD: [&str; 4] = ["203.0.113.1", "240.0.0.1", "2001:db8::1", "64:ff9b::1"];

fn expect(egress: &str, addresses: &[&str], expected: bool) {
    let evaluator = evaluator(egress);
    for address in addresses {
        let (allowed, by) = ask(&evaluator, address, udp(53));
        assert_eq!(allowed, expected, "{egress}: {address} by {by}");
    }
}

#[test]
fn wide_grants_do_not_cover_special_addresses() {
    let world = "[[policy.egress]]\nto = [{ entity = \"world\" }]";
    let all = "[[policy.egress]]\nto = [{ cidr = \"0.0.0.0/0\" }, { cidr = \"::/0\" }]";
    for grant in [world, all] {
        expect(grant, &SPECIAL, false);
        expect(grant, &WORLD, true);
    }
    // Owners do not change it: the second is the node's.
    expect(all, &["fe80::9", "fe80::a"], false);
    // Listed and unlisted owners, and the cluster.
    let owned = [
        "203.0.114.9",
        "10.0.0.2",
        "192.0.2.1",
        "192.0.2.2",
        "198.51.100.1",
        "10.96.0.10",
    ];
    expect(world, &owned, false);
    expect(all, &owned, true);
    let host = "[[policy.egress]]\nto = [{ entity = \"host\" }]";
    let own = ["192.0.2.1", "198.51.100.1", "203.0.114.9", "fe80::a"];
    expect(host, &own, true);
    expect(host, &["fe80::9", "192.0.2.2"], false);
}

#[test]
fn ranges_that_lie_within_a_special_one_name_it() {
    let to = |cidr: &str| format!("[[policy.egress]]\nto = [{{ cidr = \"{cidr}\" }}]");
    for (cidr, address) in [
        ("169.254.0.0/16", "169.254.169.254"),
        ("169.254.169.254/32", "169.254.169.254"),
        ("224.0.0.0/4", "224.0.0.251"),
        ("255.255.255.255/32", "255.255.255.255"),
        ("192.0.2.255/32", "192.0.2.255"),
        ("fe80::/10", "fe80::9"),
        ("fe80::/64", "fe80::a"),
        ("ff02::/16", "ff02::1"),
    ] {
        expect(&to(cidr), &[address], true);
    }
    for (cidr, address) in [
        ("169.254.0.0/15", "169.254.169.254"),
        ("224.0.0.0/3", "224.0.0.251"),
        ("192.0.2.0/24", "192.0.2.255"),
        ("fe00::/7", "fe80::9"),
    ] {
        expect(&to(cidr), &[address], false);
    }
}

#[test]
fn denies_cover_what_is_not_named() {
    let deny = "[[policy.egress]]\naction = \"deny\"\nto = [{ cidr = \"0.0.0.0/0\" }, { cidr = \"::/0\" }]";
    let any = "[[policy.egress]]";
    expect(any, &SPECIAL, true);
    expect(&format!("{any}\n{deny}"), &SPECIAL, false);
    expect(
        &format!("{any}\n{}", deny.replace("deny", "reject")),
        &SPECIAL,
        false,
    );
}

#[test]
fn tunnels_of_nodes_are_open_by_name_only() {
    let nodes = [
        "192.0.2.1",
        "198.51.100.1",
        "203.0.114.9",
        "fe80::a",
        "192.0.2.2",
        "fd00::b",
    ];
    let to = "to = [{ entity = \"host\" }, { entity = \"remote-node\" }]";
    let others = [53, 4788, 4790, 8473].map(udp);
    let ports = [4789, 6081, 8472, 51_820, 51_871].map(udp);
    let protocols = [4, 41, 47].map(|it| PortMatch::Protocol(Protocol::Number(it)));
    let all = evaluator(&format!("[[policy.egress]]\n{to}"));
    let ranges = format!("[[policy.egress]]\n{to}\nports = [\"udp/4000-65000\", \"udp\"]");
    let none = evaluator("ingress = []");
    for evaluator in [&all, &evaluator(&ranges), &none] {
        for node in nodes {
            for port in &others {
                assert!(ask(evaluator, node, port.clone()).0, "{node} {port}");
            }
            for tunnel in ports.iter().chain(&protocols) {
                let (allowed, by) = ask(evaluator, node, tunnel.clone());
                assert!(!allowed, "{node} {tunnel} by {by}");
            }
        }
    }
    assert_eq!(ask(&none, nodes[0], udp(4789)).1, "node-tunnel");
    // Elsewhere they are ports like others.
    for elsewhere in ["203.0.113.1", "10.0.0.2", "fd00::2"] {
        assert!(ask(&none, elsewhere, udp(4789)).0, "{elsewhere}");
    }
    let names = r#"ports = ["udp/4789", "protocol/47"]"#;
    let named = evaluator(&format!(
        "[[policy.egress]]\n{to}\n{names}\n[[policy.egress]]\n{to}"
    ));
    for node in nodes {
        let [vxlan, geneve, ..] = ports.clone();
        let [ip4, _, gre] = protocols.clone();
        assert!(
            ask(&named, node, vxlan).0 && ask(&named, node, gre).0,
            "{node}"
        );
        assert!(
            !ask(&named, node, geneve).0 && !ask(&named, node, ip4).0,
            "{node}"
        );
    }
    let denied =
        format!("[[policy.egress]]\naction = \"deny\"\n{to}\n[[policy.egress]]\n{to}\n{names}");
    assert!(!ask(&evaluator(&denied), nodes[0], udp(4789)).0);
}

#[test]
fn special_addresses_lead_to_tunnels_of_nodes_like_nodes_themselves() {
    let all = r#"[[policy.egress]]
to = [
    { cidr = "169.254.0.0/16" }, { cidr = "224.0.0.0/4" }, { cidr = "255.255.255.255/32" },
    { cidr = "127.0.0.0/8" }, { cidr = "0.0.0.0/8" }, { cidr = "192.0.2.255/32" },
    { cidr = "fe80::/10" }, { cidr = "ff00::/8" }, { cidr = "::/96" },
]"#;
    let tunnels = [4789, 6081, 8472, 51_820, 51_871].map(udp);
    let protocols = [4, 41, 47].map(|it| PortMatch::Protocol(Protocol::Number(it)));
    let names = r#"ports = ["udp/4789", "protocol/47"]"#;
    let named = evaluator(&format!("{all}\n{names}\n{all}"));
    let range = evaluator(&format!("{all}\nports = [\"udp/4000-65000\", \"udp\"]"));
    let any = evaluator("[[policy.egress]]");
    let none = evaluator("ingress = []");
    // No rule can name IPv4-mapped addresses.
    let named_ones = SPECIAL.iter().filter(|it| !it.starts_with("::ffff:"));
    for address in named_ones {
        for evaluator in [&evaluator(all), &range, &any, &none, &named] {
            assert!(ask(evaluator, address, udp(4788)).0, "{address}: control");
        }
        for tunnel in tunnels.iter().chain(&protocols) {
            for evaluator in [&evaluator(all), &range, &any, &none] {
                let (allowed, by) = ask(evaluator, address, tunnel.clone());
                assert!(!allowed, "{address} {tunnel} by {by}");
            }
        }
        for (tunnel, expected) in [(&tunnels[0], true), (&tunnels[2], false)] {
            assert_eq!(ask(&named, address, tunnel.clone()).0, expected);
        }
        let expected = [(0, false), (2, true)].map(|(at, allowed)| (&protocols[at], allowed));
        for (tunnel, expected) in expected {
            assert_eq!(ask(&named, address, tunnel.clone()).0, expected);
        }
        assert_eq!(ask(&none, address, udp(8472)).1, "node-tunnel");
    }
}

#[test]
fn unlisted_addresses_of_the_cluster_lead_to_tunnels_of_nodes() {
    let address = "10.96.1.1";
    let to = r#"to = [{ cidr = "10.96.0.0/12" }]"#;
    let wide = evaluator(&format!("[[policy.egress]]\n{to}"));
    let named = evaluator(&format!(
        "[[policy.egress]]\n{to}\nports = [\"udp/8472\"]\n[[policy.egress]]\n{to}"
    ));
    assert!(ask(&wide, address, udp(8473)).0, "the control");
    let ipip = PortMatch::Protocol(Protocol::Number(4));
    for tunnel in [udp(8472), udp(51_820), ipip] {
        assert!(!ask(&wide, address, tunnel.clone()).0, "{tunnel}");
    }
    assert!(ask(&named, address, udp(8472)).0);
    assert!(!ask(&named, address, udp(4789)).0);
}

#[test]
fn what_a_range_of_the_node_sends_passes_as_from_the_node() {
    let closed = evaluator("ingress = []");
    for (from, expected) in [
        ("203.0.114.9", "host-ingress"),
        ("203.0.115.9", "default-deny"),
    ] {
        let answer = closed.ask(&Query {
            from: TestEnd::Address(from.parse().unwrap()),
            to: TestEnd::Address("10.0.0.1".parse().unwrap()),
            port: udp(53),
            family: None,
        });
        assert_eq!(answer.unwrap().ingress.rule, expected, "{from}");
    }
}
