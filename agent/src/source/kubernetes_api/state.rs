//! What the Kubernetes API has said so far, and what of it is to be delivered next.
//!
//! Pure. Invariants: what is delivered in the end does not depend on the order in which objects of different
//! kinds come; nothing of the server is delivered before every kind was listed whole once, and nothing at all
//! before the interfaces of the pods of this node were looked up, so that a restart takes no fence off; a list that begins again removes nothing
//! before it is whole. A policy that cannot be read leaves its last good content in force, and that
//! of no other one of its name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::cluster_ranges::{ClusterRanges, PodRanges};
use super::first_lists::FirstLists;
use super::kept::Kept;
use super::local_pods::{LocalPods, Unreached};
use super::object::{Converted, Key, Kind, Object};
use super::restored::Restored;
use super::services::Services;
use crate::model::quote::sanitise;
use crate::model::{InventoryFault, Lockdown, PolicyId};
use crate::ordmap::Map;
use crate::source::object_sources::Known;
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
#[derive(Debug)]
pub struct ApiState {
    is_synced: bool,
    /// What was said before every kind was listed whole.
    pub(super) first: Option<FirstLists>,
    /// What an earlier agent left, until the API server has said everything.
    pub(super) restored: Option<Restored>,
    /// Why nothing can be restored.
    pub(super) unusable: Option<String>,
    kinds: BTreeMap<Kind, OfKind>,
    policies: OfPolicies,
    pub(super) local: LocalPods,
    ranges: ClusterRanges,
    services: Services,
    /// What is to be delivered; `None` if it is gone.
    pub(super) changed: BTreeMap<Key, Option<Object>>,
    /// What is kept for a start without the API server.
    kept: Map<Key, Kept>,
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
            is_synced: false,
            first: Some(FirstLists::default()),
            restored: None,
            unusable: None,
            kinds: BTreeMap::new(),
            policies: OfPolicies::default(),
            local: LocalPods::default(),
            ranges: ClusterRanges::new(pods),
            services: Services::default(),
            changed: BTreeMap::new(),
            kept: Map::new(),
            refused: BTreeMap::new(),
            errors: BTreeMap::new(),
            warnings: BTreeMap::new(),
        }
    }

    /// How much is known: everything once every kind was listed whole and the interfaces of this node's pods
    /// were looked up then, or what an earlier agent left.
    #[must_use]
    pub fn known(&self) -> Known {
        match &self.restored {
            _ if self.is_synced => Known::All,
            Some(restored) if restored.is_checked => Known::Restored,
            _ => Known::NotYet,
        }
    }

    /// Whether every kind was listed whole.
    pub(super) const fn was_listed(&self) -> bool {
        self.first.is_none()
    }

    /// What is to be kept of all objects.
    #[must_use]
    pub const fn kept(&self) -> &Map<Key, Kept> {
        &self.kept
    }

    /// Takes over what a watch says.
    pub fn take(&mut self, update: Update) {
        let update = match &mut self.first {
            Some(first) => first.take(update),
            None => Some(update),
        };
        if let Some(update) = update {
            self.note(update);
        }
        if let Some(first) = self.first.take_if(|first| first.are_whole()) {
            self.local.have_lapsed = false;
            first.into_updates().for_each(|update| self.note(update));
        }
        self.settle();
    }

    /// Notes what is known by now.
    pub(super) fn settle(&mut self) {
        self.check_restored();
        self.is_synced |= self.first.is_none() && self.local.are_settled();
        if self.is_synced {
            self.restored = None;
            self.unusable = None;
        }
    }

    pub(super) fn note(&mut self, update: Update) {
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

    /// Notes what is to be kept of an object. Of a policy that cannot be read, that is its last good content.
    fn keep(&mut self, converted: &Converted) {
        let key = &converted.key;
        if let (Key::Policy(id), Object::UnreadablePolicy(_)) = (key, &converted.object)
            && self.policies.good.get(id) == Some(&converted.uid)
            && self.kept.contains_key(key)
        {
            return;
        }
        match Kept::of(converted) {
            Some(kept) if self.kept.get(key) == Some(&kept) => {}
            Some(kept) => _ = self.kept.insert(key.clone(), kept),
            None => _ = self.kept.remove(key),
        }
    }

    fn upsert(&mut self, converted: Converted) {
        self.keep(&converted);
        let Converted {
            key,
            uid,
            object,
            text: _,
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
        self.kept.remove(&key);
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
        self.settle();
    }

    /// Delivers what has changed.
    pub fn deliver(&mut self, objects: &mut Objects, now: Instant) -> Report {
        let mut report = Report::default();
        let lapses = self.lapse(now);
        if self.known() != Known::NotYet {
            let pods = self.local.changes();
            self.changed.extend(pods);
            self.apply(objects);
            let locked = self.policies.locked.values().cloned().collect();
            objects.set_refused(KUBERNETES, locked);
            report.cluster_ranges = self.ranges.all();
            report.services = self.services.all();
        }
        let unreached = self.local.unreached(now);
        report.next_change = unreached.next.into_iter().chain(lapses).min();
        let restored = self.restored.as_ref().filter(|it| it.is_checked);
        report.restored = restored.map(|it| it.at);
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
            let in_force = match self.known() {
                Known::All => "what is in force stays",
                Known::Restored => "what an earlier run stored is in force",
                Known::NotYet => "nothing of the cluster is in force yet",
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
        let unusable = self.unusable.iter().cloned().map(error);
        let failures = failures.chain(unusable);
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
            Key::EndpointSlice(_) => "; what cannot be read of it is a backend that no rule allows",
            Key::Service(_) => "; a port that cannot be read is denied",
            Key::ServiceCidr(_) => "; ranges that were read of it before stay",
            _ => "",
        }
    }
}

impl Default for ApiState {
    fn default() -> Self {
        Self::new(PodRanges::default())
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
