//! Addresses that several workloads or nodes claim, while claims come and go.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use proptest::{collection::vec, prelude::*};
use ringfence_common::{
    endpoint::Endpoint,
    ids::IdentityId,
    mode::{Mode, Verdict},
    net::{Ip4, Ip6},
};

use crate::{
    model::{Claimant, Inventory, NodeEntry, PolicySet, PortMatch, Protocol, WallTime, Workload},
    oracle::cases,
    policy::{
        Clock, Compiled, Compiler, Identity, Inputs, LocalEndpoint, Modes,
        evaluate::{End, Evaluator, Query},
        explain::explain,
    },
    source::{inventory_toml, policy_toml},
};

/// A workload's addresses, whether it has an interface, and its label.
type Claims = Vec<(Vec<u8>, bool, u8)>;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Whether the node is this one, and its addresses.
type Node = (bool, Vec<u8>);

fn text(claims: &Claims, node: &Node) -> String {
    let mut text = "[[namespace]]\nname = \"shop\"\n".to_owned();
    let listed = |addresses: &[u8]| {
        let addresses = addresses.iter().map(|it| format!("\"10.0.0.{it}\""));
        addresses.collect::<Vec<_>>().join(", ")
    };
    for ((addresses, has_interface, label), name) in claims.iter().zip(NAMES) {
        text += &format!(
            "[[workload]]\nname = \"{name}\"\nnamespace = \"shop\"\naddresses = [{}]\n\
             labels = {{ app = \"l{label}\" }}\n",
            listed(addresses)
        );
        if *has_interface {
            text += &format!("interface = \"rf-{name}\"\n");
        }
    }
    let (local, addresses) = node;
    let addresses = listed(addresses);
    text + &format!("[[node]]\nname = \"n\"\naddresses = [{addresses}]\nlocal = {local}\n")
}

fn inventory(text: &str) -> Inventory {
    let read = inventory_toml::parse("inventory.toml", text).unwrap();
    let namespaces = read.namespaces.into_iter().map(|it| it.item).collect();
    let workloads = read.workloads.into_iter().map(|it| it.item).collect();
    let nodes = read.nodes.into_iter().map(|it| it.item).collect();
    Inventory::build_contested(namespaces, workloads, nodes)
        .unwrap()
        .0
}

const POLICY: &str = "[[policy]]\nname = \"l\"\nnamespace = \"shop\"\nsubject = \"app=l0\"\n\
                      [[policy.ingress]]\nfrom = [{ pods = \"app=l1\" }]\n\
                      [[policy.egress]]\nto = [{ cidr = \"10.0.0.0/30\" }]\n";

fn policies() -> Arc<PolicySet> {
    let read = policy_toml::parse("policy.toml", POLICY).unwrap();
    Arc::new(PolicySet::build(read.policies).unwrap())
}

fn compile(compiler: &mut Compiler, inventory: &Arc<Inventory>) -> Compiled {
    let endpoints: Vec<LocalEndpoint> = (1..)
        .zip(inventory.workloads.values().filter(|it| it.is_endpoint()))
        .map(|(ifindex, workload)| LocalEndpoint::at(workload.id.clone(), ifindex))
        .collect();
    let modes = Modes {
        default: Mode::Enforce,
        namespaces: BTreeMap::new(),
    };
    let inputs = Inputs {
        inventory,
        policies: &policies(),
        endpoints: &endpoints,
        modes: &modes,
        locked: &[],
        clock: Clock {
            now: WallTime(0),
            boot: 1 << 40,
        },
    };
    let compiled = compiler.compile(&inputs).unwrap();
    compiler.in_force();
    compiled
}

/// What each address is, without numbers.
fn identities(compiled: &Compiled) -> BTreeMap<IpAddr, Option<Identity>> {
    let addresses = compiled.state.addresses.iter();
    addresses
        .map(|(address, id)| {
            let identity = compiled.identities.get(id);
            assert_eq!(identity.is_none(), *id == IdentityId::UNKNOWN);
            (*address, identity.map(|identity| Identity::clone(identity)))
        })
        .collect()
}

/// What each address should be, one by one.
fn expected(inventory: &Inventory, address: IpAddr) -> Option<Claimant> {
    let workload = |it: &&Arc<Workload>| it.addresses.contains(&address);
    let node = |it: &&Arc<NodeEntry>| it.addresses.contains(&address);
    let workloads: Vec<_> = inventory.workloads.values().filter(workload).collect();
    let nodes: Vec<_> = inventory.nodes.values().filter(node).collect();
    let local: Vec<_> = workloads.iter().filter(|it| it.is_endpoint()).collect();
    match (nodes.as_slice(), local.as_slice(), workloads.as_slice()) {
        ([node], ..) if node.local => Some(Claimant::Node(node.name.clone())),
        (_, [one], _) => Some(Claimant::Workload(one.id.clone())),
        ([node], [], []) => Some(Claimant::Node(node.name.clone())),
        ([], [], [one]) => Some(Claimant::Workload(one.id.clone())),
        _ => None,
    }
}

fn claims() -> impl Strategy<Value = (Claims, Node)> {
    let addresses = prop::sample::subsequence((1..=5).collect::<Vec<u8>>(), 0..=3);
    let workload = (addresses, any::<bool>(), 0..3_u8);
    let of_node = prop::sample::subsequence((1..=6).collect::<Vec<u8>>(), 1..=4);
    (vec(workload, 0..=NAMES.len()), (any::<bool>(), of_node))
}

#[test]
fn every_address_has_the_owner_that_its_claims_give_it_whatever_they_were_before() {
    proptest!(cases(300), |(steps in vec(claims(), 1..6))| {
        let mut compiler = Compiler::default();
        for (claims, node) in &steps {
            let inventory = Arc::new(inventory(&text(claims, node)));
            let compiled = compile(&mut compiler, &inventory);
            let fresh = compile(&mut Compiler::default(), &inventory);
            let identities = identities(&compiled);
            prop_assert_eq!(&identities, &super::disputes::identities(&fresh));
            for (address, identity) in &identities {
                let owner = expected(&inventory, *address);
                prop_assert_eq!(identity.is_some(), owner.is_some(), "{}", address);
                if let Some(Claimant::Workload(id)) = &owner {
                    prop_assert!(inventory.is_owner(id, *address));
                    let labels = &inventory.workload(id).unwrap().labels;
                    let found = identity.as_ref().and_then(Identity::workload).unwrap();
                    let app = found.labels.get("app");
                    prop_assert!(app.is_none() || app == labels.get("app"), "{}", address);
                }
            }
            let claimed = inventory.workloads.values().flat_map(|it| it.addresses.clone());
            for address in claimed {
                prop_assert!(identities.contains_key(&address), "{} is world", address);
            }
        }
    });
}

#[test]
fn an_explanation_says_what_the_compiled_rows_say() {
    proptest!(cases(300), |((claims, node) in claims())| {
        let inventory = Arc::new(inventory(&text(&claims, &node)));
        let (policies, now) = (policies(), WallTime(0));
        let evaluator = Evaluator::new(&inventory, &policies, now).unwrap();
        let named = inventory.workloads.values().filter(|it| !it.addresses.is_empty());
        let mut ends: Vec<End> = named.map(|it| End::Workload(it.id.clone())).collect();
        ends.extend((1..=7).map(|number| End::Address(IpAddr::from([10, 0, 0, number]))));
        for (from, to) in ends.iter().flat_map(|from| ends.iter().map(move |to| (from, to))) {
            let query = Query {
                from: from.clone(),
                to: to.clone(),
                port: PortMatch::Range { protocol: Protocol::Tcp, first: 80, last: 80 },
                family: None,
            };
            let answer = evaluator.ask(&query).unwrap();
            let explained = explain(&inventory, &policies, now, &query, false).unwrap();
            let sides = [(answer.egress, explained.egress), (answer.ingress, explained.ingress)];
            for (compiled, explained) in sides {
                prop_assert_eq!(compiled.verdict, explained.verdict, "{:?}", query);
                prop_assert_eq!(compiled.rule, explained.rule, "{:?}", query);
            }
        }
    });
}

#[test]
fn an_address_without_an_owner_is_denied_as_a_peer_and_may_be_used() {
    let text = text(
        &vec![
            (vec![1], true, 0),
            (vec![2], false, 1),
            (vec![2], false, 1),
            (vec![3], false, 1),
        ],
        &(true, vec![6]),
    );
    let inventory = Arc::new(inventory(&text));
    let evaluator = Evaluator::new(&inventory, &policies(), WallTime(0)).unwrap();
    let ask = |from: End| {
        let query = Query {
            from,
            to: End::Workload("shop/a".parse().unwrap()),
            port: PortMatch::Range {
                protocol: Protocol::Tcp,
                first: 80,
                last: 80,
            },
            family: None,
        };
        let answer = evaluator.ask(&query).unwrap();
        (answer.ingress.verdict, answer.ingress.rule)
    };
    assert_eq!(
        ask(End::Workload("shop/d".parse().unwrap())).0,
        Verdict::Allow,
        "the control"
    );
    let denied = (Verdict::Deny, "unknown-peer".to_owned());
    assert_eq!(
        ask(End::Workload("shop/b".parse().unwrap())),
        denied,
        "though both have the label"
    );
    assert_eq!(ask(End::Address("10.0.0.2".parse().unwrap())), denied);
}

#[test]
fn an_endpoint_may_not_use_an_address_of_its_node() {
    let record = |(local, address): (bool, u8)| {
        let node = (local, vec![address]);
        let text = text(&vec![(vec![1, 2], true, 0)], &node);
        let compiled = compile(&mut Compiler::default(), &Arc::new(inventory(&text)));
        compiled.state.endpoints[&1].ip4.map(Ip4::to_wire)
    };
    let [unused, first, second] = [[0; 4], [10, 0, 0, 1], [10, 0, 0, 2]];
    assert_eq!(record((true, 6)), [first, second, unused], "the control");
    assert_eq!(record((true, 1)), [second, unused, unused]);
    assert_eq!(record((false, 1)), [first, second, unused], "elsewhere");
}

#[test]
fn an_endpoint_with_an_address_of_its_own_does_not_have_one_that_is_nobodys() {
    let claims = vec![
        (vec![1, 2], true, 0),
        (vec![1, 3], true, 0),
        (vec![4], true, 0),
        (vec![4], true, 0),
    ];
    let text = text(&claims, &(true, vec![6])).replacen("10.0.0.3", "fd00::3", 1);
    let compiled = compile(&mut Compiler::default(), &Arc::new(inventory(&text)));
    let [a, b, c, d] = [1, 2, 3, 4].map(|ifindex| &compiled.state.endpoints[&ifindex]);
    let ip4 = |record: &Endpoint| record.ip4.map(Ip4::to_wire);
    let [unused, disputed, own] = [[0; 4], [10, 0, 0, 1], [10, 0, 0, 2]];
    assert_eq!(ip4(a), [own, unused, unused]);
    // It would have no address left of this family.
    assert_eq!(ip4(b), [disputed, unused, unused]);
    assert_ne!(b.ip6[0], Ip6::default());
    for alone in [c, d] {
        assert_eq!(ip4(alone), [[10, 0, 0, 4], unused, unused]);
    }
    let identity = |address: [u8; 4]| {
        compiled
            .state
            .addresses
            .get(&IpAddr::from(address))
            .copied()
    };
    assert_eq!(identity(disputed), Some(IdentityId::UNKNOWN));
    assert_eq!(
        identity(own),
        Some(a.identity),
        "its other address has its identity"
    );
    assert_ne!(a.identity, IdentityId::UNKNOWN);
}

#[test]
fn an_address_stays_with_its_owner_when_another_claimant_is_relabelled() {
    let mut compiler = Compiler::default();
    for label in [1, 2] {
        let claims = vec![(vec![1], true, 0), (vec![1], false, label)];
        let inventory = Arc::new(inventory(&text(&claims, &(true, vec![6]))));
        let compiled = compile(&mut compiler, &inventory);
        let identities = identities(&compiled);
        let identity = identities[&"10.0.0.1".parse::<IpAddr>().unwrap()].clone();
        let labels = identity.unwrap().workload().unwrap().labels.clone();
        assert_eq!(labels.get("app"), Some("l0"), "{label}");
    }
}
