//! An endpoint is its workload's, whatever interfaces it is attached to.

use std::sync::Arc;

use ringfence_common::endpoint::Endpoint;

use crate::{
    model::{Attachment, EndpointId, Inventory, PolicySet, WorkloadId},
    oracle::World,
    policy::{Compiler, LocalEndpoint},
    source::{inventory_toml, policy_toml},
};

const INVENTORY: &str = "[[namespace]]\nname = \"shop\"\n\
                         [[workload]]\nname = \"a\"\nnamespace = \"shop\"\naddresses = [\"10.0.0.1\"]\n\
                         [[workload]]\nname = \"b\"\nnamespace = \"shop\"\naddresses = [\"10.0.0.2\"]\n";
const POLICY: &str =
    "[[policy]]\nname = \"p\"\nnamespace = \"shop\"\nsubject = \"\"\ningress = []\n";

fn world() -> World {
    let read = inventory_toml::parse("i.toml", INVENTORY).unwrap();
    let namespaces = read.namespaces.into_iter().map(|it| it.item).collect();
    let workloads = read.workloads.into_iter().map(|it| it.item).collect();
    let policies = policy_toml::parse("p.toml", POLICY).unwrap().policies;
    World {
        inventory: Arc::new(Inventory::build(namespaces, workloads, Vec::new()).unwrap()),
        policies: Arc::new(PolicySet::build(policies).unwrap()),
    }
}

fn id(name: &str) -> WorkloadId {
    WorkloadId::new("shop", name).unwrap()
}

#[test]
fn every_attachment_of_an_endpoint_has_its_record() {
    let at = |ifindex: u32| Attachment {
        ifindex,
        pickup_until: 10 * ifindex,
    };
    let several = LocalEndpoint {
        id: EndpointId::of(id("a")),
        attachments: vec![at(3), at(8)],
    };
    let endpoints = [several, LocalEndpoint::at(id("b"), 5)];
    let compiled = world().attempt(&mut Compiler::default(), &endpoints);
    let ids: Vec<String> = compiled.endpoints.keys().map(ToString::to_string).collect();
    assert_eq!(ids, ["shop/a", "shop/b"]);
    let records = &compiled.state.endpoints;
    assert_eq!(records.keys().copied().collect::<Vec<_>>(), [3, 5, 8]);
    let (first, second) = (records[&3], records[&8]);
    assert_eq!((first.ifindex, first.pickup_until), (3, 30));
    assert_eq!((second.ifindex, second.pickup_until), (8, 80));
    let bare = |record: Endpoint| Endpoint {
        ifindex: 0,
        pickup_until: 0,
        ..record
    };
    assert_eq!(bare(first), bare(second));
    assert_ne!(bare(first), bare(records[&5]));
}

#[test]
fn an_endpoint_is_the_same_one_on_another_interface() {
    let mut compiler = Compiler::default();
    let mut compile = |ifindex: u32| {
        let compiled = world().attempt(&mut compiler, &[LocalEndpoint::at(id("a"), ifindex)]);
        compiler.in_force();
        let info = compiled.endpoints[&EndpointId::of(id("a"))].clone();
        let records: Vec<u32> = compiled.state.endpoints.keys().copied().collect();
        (info.table, info.identity, records)
    };
    let (table, identity, records) = compile(3);
    assert_eq!(records, [3]);
    assert_eq!(compile(9), (table, identity, vec![9]));
}
