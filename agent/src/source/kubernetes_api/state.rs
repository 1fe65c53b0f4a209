//! What the Kubernetes API has said so far, and what of it is to be delivered next.
//!
//! Pure. Invariants: what is delivered in the end does not depend on the order in which objects of different
//! kinds come; nothing is delivered before every kind was listed whole once and the interfaces of the pods of
//! this node were looked up, so that a restart takes no fence off; a list that begins again removes nothing
//! before it is whole. A policy that cannot be read leaves its last good content in force, and that
//! of no other one of its name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::cluster_ranges::{ClusterRanges, PodRanges};
use super::local_pods::{LocalPods, Unreached};
use super::object::{Converted, Key, Kind, Object};
use super::services::Services;
use crate::model::quote::sanitise;
use crate::model::{InventoryFault, Lockdown, PolicyId};
use crate::source::objects::{ObjectChanges, Objects, SourceId};
use crate::source::pod_interfaces::FoundInterfaces;
use crate::source::{Report, SourceError};

/// The source of these objects, after the files.
pub const KUBERNETES: SourceId = SourceId {
    rank: 1,
    name: "kubernetes",
};
/// The most errors that are listed one by one.
const MOST: usize = 100;
/// The longest error of the API that is shown, in characters.
const LONGEST: usize = 400;

/// What a watch of one kind has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// A list of all objects of the kind begins, again if it has begun before.
    Begins(Kind),
    /// An object is listed, or is new, or has changed.
    Is(Box<Converted>),
    /// An object is there, of which nothing but its name can be read. What is in force of it stays.
    IsUnreadable(Key, String),
    /// An object is gone.
    IsGone(Key),
    /// The list is whole: what it lacks is gone.
    IsWhole(Kind),
    /// The API cannot be asked for the kind, or an object is no such object. What is in force stays.
    Fails(Kind, String),
    /// The API answers again.
    Works(Kind),
}

/// What is known of one kind.
#[derive(Debug, Default)]
struct OfKind {
    known: BTreeSet<Key>,
    /// The objects of a list that is not whole yet.
    listed: Option<BTreeSet<Key>>,
    was_whole: bool,
    failure: Option<String>,
}

impl OfKind {
    /// Notes that an object is there.
    fn insert(&mut self, key: &Key) {
        self.known.insert(key.clone());
        if let Some(listed) = &mut self.listed {
            listed.insert(key.clone());
        }
    }
}

/// What is known of a policy.
#[derive(Debug, Default)]
struct OfPolicies {
    /// Those of which content can be in force, and what tells each from others of its name.
    good: BTreeMap<PolicyId, Arc<str>>,
    /// The subjects of those that never were good.
    locked: BTreeMap<PolicyId, Lockdown>,
    /// Those that are not as the API has them.
    unreadable: BTreeSet<PolicyId>,
}

/// The state of the source.
#[derive(Debug, Default)]
pub struct ApiState {
    is_synced: bool,
    kinds: BTreeMap<Kind, OfKind>,
    policies: OfPolicies,
    local: LocalPods,
    ranges: ClusterRanges,
    services: Services,
    /// What is to be delivered; `None` if it is gone.
    changed: BTreeMap<Key, Option<Object>>,
    /// What contradicts other objects, and is delivered again.
    refused: BTreeMap<Key, (Option<Object>, Vec<String>)>,
    errors: BTreeMap<Key, Vec<String>>,
    warnings: BTreeMap<Key, Vec<SourceError>>,
}

impl ApiState {
    /// A state before anything is known, of a cluster with these ranges of pods.
    #[must_use]
    pub fn new(pods: PodRanges) -> Self {
        Self {
            ranges: ClusterRanges::new(pods),
            ..Self::default()
        }
    }

    /// Whether every kind was listed whole once, and the interfaces of this node's pods were looked up then.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.is_synced
    }

    fn has_all(&self) -> bool {
        let mut kinds = Kind::ALL.iter();
        let are_whole = kinds.all(|kind| self.kinds.get(kind).is_some_and(|it| it.was_whole));
        are_whole && self.local.are_settled()
    }

    /// Takes over what a watch says.
    pub fn take(&mut self, update: Update) {
        self.note(update);
        self.is_synced = self.is_synced || self.has_all();
    }

    fn note(&mut self, update: Update) {
        match update {
            Update::Begins(kind) => self.of(kind).listed = Some(BTreeSet::new()),
            Update::Is(converted) => {
                self.of(converted.key.kind()).insert(&converted.key);
                self.upsert(*converted);
            }
            Update::IsUnreadable(key, error) => {
                self.of(key.kind()).insert(&key);
                let error =
                    format!("it cannot be read ({error}): what was read of it before stays");
                set(&mut self.errors, &key, vec![error]);
            }
            Update::IsGone(key) => {
                let of_kind = self.of(key.kind());
                of_kind.known.remove(&key);
                if let Some(listed) = &mut of_kind.listed {
                    listed.remove(&key);
                }
                self.remove(key);
            }
            Update::IsWhole(kind) => {
                let of_kind = self.of(kind);
                of_kind.was_whole = true;
                let Some(listed) = of_kind.listed.take() else {
                    return;
                };
                let known = std::mem::replace(&mut of_kind.known, listed);
                let gone: Vec<Key> = known.difference(&self.of(kind).known).cloned().collect();
                gone.into_iter().for_each(|key| self.remove(key));
            }
            Update::Fails(kind, failure) => {
                let failure: String = failure.chars().take(LONGEST).collect();
                self.of(kind).failure = Some(sanitise(&failure));
            }
            Update::Works(kind) => self.of(kind).failure = None,
        }
    }

    fn of(&mut self, kind: Kind) -> &mut OfKind {
        self.kinds.entry(kind).or_default()
    }

    fn upsert(&mut self, converted: Converted) {
        let Converted {
            key,
            uid,
            object,
            ranges,
            errors,
            warnings,
        } = converted;
        self.ranges.take(&key, ranges, errors.is_empty());
        set(&mut self.errors, &key, errors);
        set(&mut self.warnings, &key, warnings);
        match (&key, object) {
            (Key::Policy(id), Object::UnreadablePolicy(subjects)) => {
                let policies = &mut self.policies;
                policies.unreadable.insert(id.clone());
                // Another one of its name has no part in what that was.
                if policies.good.get(id).is_some_and(|good| *good != uid) {
                    policies.good.remove(id);
                    self.changed.insert(key.clone(), None);
                }
                if !policies.good.contains_key(id)
                    && let Some(subjects) = subjects
                {
                    policies.locked.insert(id.clone(), subjects);
                }
            }
            (Key::Policy(id), object) => {
                self.policies.unreadable.remove(id);
                self.policies.locked.remove(id);
                self.policies.good.insert(id.clone(), uid);
                self.changed.insert(key, Some(object));
            }
            (Key::Pod(_), Object::Pod(pod)) => {
                if let Some(pod) = self.local.upsert(pod) {
                    self.changed.insert(key, Some(Object::Pod(pod)));
                }
            }
            (Key::Pod(id), _) => {
                // One of this node is delivered once its interface is gone, too.
                if !self.local.remove(id) {
                    self.changed.insert(key, None);
                }
            }
            (Key::Service(id), Object::Service(service)) => self.services.set(id, Some(service)),
            (Key::EndpointSlice(id), Object::EndpointSlice(slice)) => {
                self.services.set_slice(id, Some(slice));
            }
            (Key::ServiceCidr(_) | Key::Service(_) | Key::EndpointSlice(_), _) => {}
            (_, object) => _ = self.changed.insert(key, Some(object)),
        }
    }

    fn remove(&mut self, key: Key) {
        self.errors.remove(&key);
        self.warnings.remove(&key);
        self.ranges.remove(&key);
        match &key {
            Key::Policy(id) => {
                self.policies.good.remove(id);
                self.policies.locked.remove(id);
                self.policies.unreadable.remove(id);
            }
            // One of this node is delivered once its interface is gone, too.
            Key::Pod(id) if self.local.remove(id) => return,
            Key::ServiceCidr(_) => return,
            Key::Service(id) => return self.services.set(id, None),
            Key::EndpointSlice(id) => return self.services.set_slice(id, None),
            _ => {}
        }
        self.changed.insert(key, None);
    }

    /// The addresses of the pods of this node.
    #[must_use]
    pub fn local_addresses(&self) -> BTreeSet<IpAddr> {
        self.local.addresses()
    }

    /// Takes over which interface each address of a pod of this node is behind.
    pub fn take_interfaces(&mut self, found: FoundInterfaces) {
        self.local.interfaces = found.names;
        self.local.settled = found.settled;
        self.is_synced = self.is_synced || self.has_all();
    }

    /// Delivers what has changed.
    pub fn deliver(&mut self, objects: &mut Objects, now: Instant) -> Report {
        let mut report = Report::default();
        if self.is_synced {
            let pods = self.local.changes();
            self.changed.extend(pods);
            self.apply(objects);
            let locked = self.policies.locked.values().cloned().collect();
            objects.set_refused(KUBERNETES, locked);
            report.cluster_ranges = self.ranges.all();
            report.services = self.services.all();
        }
        let unreached = self.local.unreached(now);
        report.next_change = unreached.next;
        report.errors = self.all_errors(&unreached);
        let warnings = self.warnings.values().flatten();
        report.warnings = warnings.take(MOST).cloned().collect();
        report
    }

    fn apply(&mut self, objects: &mut Objects) {
        // Others may have changed something since.
        for (key, (object, _)) in std::mem::take(&mut self.refused) {
            self.changed.entry(key).or_insert(object);
        }
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return;
        }
        let all = changes(changed.iter());
        if objects.apply(KUBERNETES, all).is_ok() {
            return;
        }
        // One by one: what is gone first, because what one object had, another one may have now.
        let (gone, there): (Vec<_>, Vec<_>) = changed.iter().partition(|(_, it)| it.is_none());
        for (key, object) in gone.into_iter().chain(there) {
            let one = changes(std::iter::once((key, object)));
            if let Err(faults) = objects.apply(KUBERNETES, one) {
                let faults = faults.iter().map(InventoryFault::to_string).collect();
                self.refused.insert(key.clone(), (object.clone(), faults));
            }
        }
    }

    fn all_errors(&self, unreached: &Unreached) -> Vec<SourceError> {
        let error = |message: String| SourceError::whole_file(KUBERNETES.name, message);
        let failures = self.kinds.iter().filter_map(|(kind, of_kind)| {
            let failure = of_kind.failure.as_ref()?;
            let in_force = if self.is_synced {
                "what is in force stays"
            } else {
                "nothing of the cluster is in force yet"
            };
            Some(error(format!("{}: {failure}; {in_force}", kind.name())))
        });
        let of_objects = self.errors.iter().flat_map(|(key, errors)| {
            let outcome = self.outcome(key);
            let errors = errors.iter();
            errors.map(move |text| error(format!("{key}: {text}{outcome}")))
        });
        let refused = self.refused.iter().flat_map(|(key, (_, faults))| {
            let faults = faults.iter();
            faults.map(move |fault| error(format!("{key} is not in force: {fault}")))
        });
        let unreached = unreached.texts.iter().cloned().map(error);
        let all = failures.chain(unreached).chain(refused).chain(of_objects);
        let mut all: Vec<SourceError> = all.collect();
        let left_out = all.len().saturating_sub(MOST);
        if left_out > 0 {
            all.truncate(MOST);
            all.push(error(format!("{left_out} more errors are not shown")));
        }
        all
    }

    /// What becomes of an object with an error.
    fn outcome(&self, key: &Key) -> &'static str {
        match key {
            Key::Policy(id) if !self.policies.unreadable.contains(id) => {
                "; what cannot be read of it allows nothing"
            }
            Key::Policy(id) if self.policies.good.contains_key(id) => {
                "; its last good content stays in force"
            }
            Key::Policy(id) if self.policies.locked.contains_key(id) => {
                "; it has no earlier content: the pods of its namespace are locked down where that is in \
                 enforce mode"
            }
            Key::Policy(_) => "; it has no earlier content: it is not applied",
            Key::Service(_) => "; a port that cannot be read has no backends",
            Key::ServiceCidr(_) => "; ranges that were read of it before stay",
            _ => "",
        }
    }
}

fn set<T>(map: &mut BTreeMap<Key, Vec<T>>, key: &Key, values: Vec<T>) {
    if values.is_empty() {
        map.remove(key);
    } else {
        map.insert(key.clone(), values);
    }
}

/// Changes as the model takes them.
fn changes<'a>(changed: impl Iterator<Item = (&'a Key, &'a Option<Object>)>) -> ObjectChanges {
    let mut changes = ObjectChanges::default();
    let inventory = &mut changes.inventory;
    for (key, object) in changed {
        match (key, object) {
            (Key::Namespace(name), Some(Object::Namespace(namespace))) => {
                let change = (name.clone(), Some(namespace.clone()));
                inventory.namespaces.push(change);
            }
            (Key::Namespace(name), _) => inventory.namespaces.push((name.clone(), None)),
            (Key::Node(name), Some(Object::Node(node))) => {
                inventory.nodes.push((name.clone(), Some(node.clone())));
            }
            (Key::Node(name), _) => inventory.nodes.push((name.clone(), None)),
            (Key::Pod(id), Some(Object::Pod(pod))) => {
                let change = (id.clone(), Some(pod.workload.clone()));
                inventory.workloads.push(change);
            }
            (Key::Pod(id), _) => inventory.workloads.push((id.clone(), None)),
            (Key::Policy(id), Some(Object::Policy(policy))) => {
                changes.policies.push((id.clone(), Some(policy.clone())));
            }
            (Key::Policy(id), _) => changes.policies.push((id.clone(), None)),
            // What is reported apart.
            (Key::ServiceCidr(_) | Key::Service(_) | Key::EndpointSlice(_), _) => {}
        }
    }
    changes
}

#[cfg(test)]
mod tests;
