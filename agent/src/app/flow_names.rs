//! Names for flow records, updated from one published state to the next.
//!
//! Invariants: a directory is built after a publish and never changed. An update costs what has changed
//! since the one before, and what the node's own endpoints are.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ringfence_common::ids::{IdentityId, RuleSlot};

use crate::{
    model::{
        Inventory, NamespaceName, ServiceId, WallTime, WorkloadId, quote::sanitise,
        special_range_name,
    },
    observe::{Directory, RuleName},
    ordmap::Map,
    policy::{Compiled, Identity, Kind, RuleInfo},
};

/// The names of a published state, and what they were made from.
#[derive(Default)]
pub(super) struct FlowNames {
    inventory: Arc<Inventory>,
    identities: Map<IdentityId, Arc<Identity>>,
    rules: Map<RuleSlot, RuleInfo>,
    services: Arc<HashMap<IpAddr, ServiceId>>,
    directory: Directory,
}

impl FlowNames {
    /// No names yet but that of this node.
    pub(super) fn new(node: &str) -> Self {
        Self {
            directory: Directory::new(node, Map::new()),
            ..Self::default()
        }
    }

    /// Updates to a published state; returns the workloads that are gone since the last one.
    pub(super) fn update(
        &mut self,
        inventory: &Arc<Inventory>,
        compiled: &Compiled,
    ) -> Vec<WorkloadId> {
        let endpoints = compiled.endpoints.values().flat_map(|endpoint| {
            let attachments = endpoint.attachments.iter();
            attachments.map(|it| (it.ifindex, Arc::clone(&endpoint.workload)))
        });
        let services = if inventory.services.is_same(&self.inventory.services) {
            Arc::clone(&self.services)
        } else {
            Arc::new(services(inventory))
        };
        let directory = std::mem::take(&mut self.directory);
        let mut directory = directory
            .with_owners(inventory.owners.clone())
            .with_services(Arc::clone(&services))
            .with_endpoints(endpoints);
        compiled.identities.since(&self.identities, |change| {
            let described = change.new.filter(|identity| identity.workload().is_none());
            let described = described.map(|identity| kind_name(identity).into());
            directory.set_identity(*change.key, described);
        });
        compiled.rules.since(&self.rules, |change| {
            let name = change.new.map(|info| Arc::new(rule_name(info)));
            directory.set_rule(*change.key, name);
        });
        let mut gone = Vec::new();
        inventory
            .workloads
            .since(&self.inventory.workloads, |change| {
                gone.extend(change.new.is_none().then(|| change.key.clone()));
            });
        *self = Self {
            inventory: Arc::clone(inventory),
            identities: compiled.identities.clone(),
            rules: compiled.rules.clone(),
            services,
            directory,
        };
        gone
    }

    /// The names as of the last update.
    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }
}

/// The Services by the addresses that they alone claim.
fn services(inventory: &Inventory) -> HashMap<IpAddr, ServiceId> {
    let mut services: HashMap<IpAddr, Option<ServiceId>> = HashMap::new();
    for service in inventory.services.values() {
        for address in &service.addresses {
            services
                .entry(*address)
                .and_modify(|it| *it = None)
                .or_insert_with(|| Some(service.id.clone()));
        }
    }
    let alone = |(address, id): (IpAddr, Option<ServiceId>)| Some((address, id?));
    services.into_iter().filter_map(alone).collect()
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

/// The name of an identity's kind; of an address that no owner lists, also that of its special range.
pub(super) fn kind_name(identity: &Identity) -> &'static str {
    match identity.kind {
        Kind::Special => identity
            .special
            .map_or("special", |it| special_range_name(&it)),
        Kind::Cluster => "cluster",
        Kind::Host => "host",
        Kind::RemoteNode => "remote-node",
        Kind::World => "world",
        Kind::Workload(_) => "workload",
        Kind::Service(_) => "service",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        oracle::{cases, history},
        policy::Compiler,
    };

    #[test]
    fn names_after_any_updates_are_those_of_the_last_state() {
        proptest!(cases(60), |(worlds in history(5))| {
            let mut compiler = Compiler::default();
            let mut names = FlowNames::new("node-1");
            let mut before: BTreeSet<WorkloadId> = BTreeSet::new();
            for world in &worlds {
                let compiled = world.compile(&mut compiler);
                let gone: BTreeSet<_> = names.update(&world.inventory, &compiled).into_iter().collect();
                let mut fresh = FlowNames::new("node-1");
                fresh.update(&world.inventory, &compiled);
                prop_assert_eq!(names.directory(), fresh.directory());
                let now: BTreeSet<_> = world.inventory.workloads.keys().cloned().collect();
                prop_assert_eq!(gone, &before - &now);
                before = now;
            }
        });
    }
}
