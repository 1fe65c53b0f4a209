//! Names for flow records, built from the published state.
//!
//! Invariants: a directory is built after a publish and never changed. The address book is reused
//! while the inventory is the same, because with ten thousand workloads it is the expensive part.

use std::{net::IpAddr, sync::Arc};

use crate::{
    model::{Inventory, NamespaceName, WallTime, quote::sanitise},
    observe::{AddressBook, Directory, Owner, RuleName},
    policy::{Compiled, Identity, Kind, RuleInfo},
};

/// The owner of every address in the inventory.
pub(super) fn address_book(inventory: &Inventory) -> AddressBook {
    let workloads = inventory.workloads.values().flat_map(|workload| {
        let owner = |address: &IpAddr| (*address, Owner::Workload(Arc::clone(workload)));
        let owned = |it: &&IpAddr| inventory.is_owner(&workload.id, **it);
        let owned = workload.addresses.iter().filter(owned);
        owned.map(owner).collect::<Vec<_>>()
    });
    let nodes = inventory.nodes.values().flat_map(|node| {
        let owned = |it: &&IpAddr| inventory.is_owner_node(&node.name, **it);
        let owned = node.addresses.iter().filter(owned);
        owned.map(|address| (*address, Owner::Node(node.name.clone())))
    });
    AddressBook::new(workloads.chain(nodes))
}

/// All names that flow records need.
pub(super) fn name_directory(
    node: &str,
    book: &Arc<AddressBook>,
    compiled: &Compiled,
) -> Directory {
    let mut directory = Directory::new(node, Arc::clone(book));
    for (ifindex, endpoint) in &compiled.endpoints {
        directory = directory.with_endpoint(*ifindex, Arc::clone(&endpoint.workload));
    }
    for (id, identity) in &compiled.identities {
        if identity.workload().is_none() {
            directory = directory.with_identity(*id, kind_name(identity).into());
        }
    }
    for (slot, info) in &compiled.rules {
        directory = directory.with_rule(*slot, Arc::new(rule_name(info)));
    }
    directory
}

fn rule_name(info: &RuleInfo) -> RuleName {
    let about = &info.policy.about;
    let text = |value: &Option<String>| value.as_deref().map(Arc::from);
    let id = info.policy.id();
    let file = sanitise(&info.policy.origin.file);
    RuleName {
        policy: id.to_string().into(),
        kind: id.kind.name(),
        namespace: id
            .namespace
            .as_ref()
            .map_or("", NamespaceName::as_str)
            .into(),
        name: id.name.as_str().into(),
        rule: info.name().into(),
        owner: text(&about.owner),
        justification: text(&about.justification),
        ticket: text(&about.ticket),
        review_by: text(&about.review_by),
        expires: info.expires().map(|time| rfc3339(time).into()),
        origin: format!("{file}:{}", info.line).into(),
    }
}

/// Rounded to the second; times that the calendar cannot express as nanoseconds.
fn rfc3339(time: WallTime) -> String {
    jiff::Timestamp::from_nanosecond(time.0.into())
        .map_or_else(|_| time.0.to_string(), |time| format!("{time:.0}"))
}

/// The name of an identity's kind.
pub(super) fn kind_name(identity: &Identity) -> &'static str {
    match identity.kind {
        Kind::Host => "host",
        Kind::RemoteNode => "remote-node",
        Kind::World => "world",
        Kind::Workload(_) => "workload",
    }
}
