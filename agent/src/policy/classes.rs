//! Peer classes: identities that no selector in use can tell apart.
//!
//! Invariants: a class is named by the set of selectors it matches, so an identity that moves to
//! another class keeps its meaning. Identities that match no selector have no class of their own
//! and use the any-class rows. An update matches only new selectors and new identities, with the
//! same result as matching all of them again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ringfence_common::ids::{ClassId, IdentityId};

use super::{
    candidates::Candidates,
    digest::{Digest, digest_of},
    identity::Identity,
    numbers::{Exhausted, Numbers, Space},
    resolve::Resolved,
    selector::Selector,
    table::TableSpec,
};
use crate::{model::ServicePort, ordmap::Map};

/// The selectors that the identities of a class match, sorted.
pub(crate) type Matched = Arc<[Digest]>;

/// What may be behind each port of a Service: classes at their ports; no class for what is unknown.
pub(crate) type ServicePorts = BTreeMap<ServicePort, BTreeSet<(Option<ClassId>, u16)>>;

struct Class {
    matched: Matched,
    /// Of a class of Services, which matches no selector.
    ports: Option<Arc<ServicePorts>>,
    identities: usize,
}

struct Asked {
    selector: Selector,
    tables: usize,
}

/// All classes, and the class of each identity.
#[derive(Default)]
pub(crate) struct Classes {
    selectors: HashMap<Digest, Asked>,
    candidates: Candidates,
    classes: HashMap<ClassId, Class>,
    /// The classes that match a selector.
    matching: HashMap<Digest, BTreeSet<ClassId>>,
    services: BTreeSet<IdentityId>,
    pub(crate) of: Map<IdentityId, ClassId>,
}

/// Selectors that tables started and stopped to use.
#[derive(Default)]
pub(crate) struct Turn {
    came: Vec<Selector>,
    gone: HashSet<Digest>,
}

type Identities = Map<IdentityId, Arc<Identity>>;

impl Classes {
    /// Registers the selectors of new tables, and removes those of tables that are gone.
    pub(crate) fn turn(&mut self, came: &[Arc<TableSpec>], gone: &[Arc<TableSpec>]) -> Turn {
        let mut turn = Turn::default();
        for selector in came.iter().flat_map(|spec| spec.selectors()) {
            let asked = self
                .selectors
                .entry(selector.digest)
                .or_insert_with(|| Asked {
                    selector: selector.clone(),
                    tables: 0,
                });
            if asked.tables == 0 {
                turn.came.push(selector.clone());
            }
            asked.tables += 1;
        }
        for selector in gone.iter().flat_map(|spec| spec.selectors()) {
            let Some(asked) = self.selectors.get_mut(&selector.digest) else {
                continue;
            };
            asked.tables -= 1;
            if asked.tables == 0 {
                self.selectors.remove(&selector.digest);
                turn.gone.insert(selector.digest);
            }
        }
        turn
    }

    /// Updates the class of each identity. Returns whether the set of classes changed.
    pub(crate) fn update(
        &mut self,
        turn: &Turn,
        identities: &Identities,
        resolved: &Resolved,
        numbers: &mut Numbers,
    ) -> Result<bool, Exhausted> {
        let mut left = Vec::new();
        let mut moved: BTreeSet<IdentityId> = resolved.came.clone();
        for (id, identity) in &resolved.gone {
            self.candidates.remove(*id, identity);
            self.services.remove(id);
            left.extend(self.of.remove(id));
            moved.insert(*id);
        }
        let gains = self.gains(turn, identities, resolved);
        let mut moves = Moves::default();
        let mut others = false;
        for (id, gained) in gains {
            let before = self.of.get(&id).copied();
            let after = moves.target(self, before, gained, &turn.gone, numbers)?;
            if before == Some(after.0) {
                continue;
            }
            others |= self.join(after.0, after.1, None);
            self.of.insert(id, after.0);
            left.extend(before);
            moved.insert(id);
        }
        others |= self.update_services(&moved, identities, &mut left, numbers)?;
        for class in left {
            others |= self.leave(class);
        }
        Ok(others)
    }

    /// Updates the classes of Services that came or of which a backend's class changed.
    fn update_services(
        &mut self,
        moved: &BTreeSet<IdentityId>,
        identities: &Identities,
        left: &mut Vec<ClassId>,
        numbers: &mut Numbers,
    ) -> Result<bool, Exhausted> {
        let mut others = false;
        if moved.is_empty() {
            return Ok(others);
        }
        for id in self.services.clone() {
            let Some(backends) = identities.get(&id).and_then(|it| it.service()) else {
                continue;
            };
            let mut behind = backends.values().flatten();
            if !moved.contains(&id) && !behind.any(|(backend, _)| moved.contains(backend)) {
                continue;
            }
            let class = |identity: &IdentityId| self.of.get(identity).copied();
            let ports = backends.iter().map(|(port, backends)| {
                let backends = backends.iter().map(|(id, port)| (class(id), *port));
                (*port, backends.collect())
            });
            let ports: ServicePorts = ports.collect();
            let digest = self.digest(&ports);
            let after = numbers.number(Space::Class, digest).map(ClassId)?;
            let before = self.of.get(&id).copied();
            if before == Some(after) {
                continue;
            }
            others |= self.join(after, Matched::from([]), Some(Arc::new(ports)));
            self.of.insert(id, after);
            left.extend(before);
        }
        Ok(others)
    }

    /// Names a class of Services by the selectors that each of its backends matches: the number of a class may be
    /// that of another later.
    fn digest(&self, ports: &ServicePorts) -> Digest {
        let content = ports.iter().map(|(port, backends)| {
            let matched = |class: &Option<ClassId>| class.map(|it| self.matched(it));
            let backends = backends.iter();
            let backends = backends.map(|(class, port)| (matched(class), *port));
            (port, backends.collect::<BTreeSet<_>>())
        });
        digest_of(&("service", content.collect::<BTreeMap<_, _>>()))
    }

    /// Every identity whose class may have changed, with the selectors that it newly matches.
    fn gains(
        &mut self,
        turn: &Turn,
        identities: &Identities,
        resolved: &Resolved,
    ) -> BTreeMap<IdentityId, Vec<Digest>> {
        let mut gains: BTreeMap<IdentityId, Vec<Digest>> = BTreeMap::new();
        let new: HashSet<Digest> = turn.came.iter().map(|selector| selector.digest).collect();
        let known = self.selectors.iter();
        let known: Vec<(&Digest, &Asked)> =
            known.filter(|(digest, _)| !new.contains(*digest)).collect();
        for id in &resolved.came {
            let Some(identity) = identities.get(id) else {
                continue;
            };
            self.candidates.add(*id, identity);
            if identity.service().is_some() {
                self.services.insert(*id);
                continue;
            }
            let matched = known
                .iter()
                .filter(|(_, asked)| asked.selector.matches(identity));
            gains.insert(*id, matched.map(|(digest, _)| **digest).collect());
        }
        for selector in &turn.came {
            self.candidates.of(selector, &mut |id| {
                if identities.get(&id).is_some_and(|i| selector.matches(i)) {
                    gains.entry(id).or_default().push(selector.digest);
                }
            });
        }
        let forgetful: HashSet<ClassId> = turn
            .gone
            .iter()
            .filter_map(|digest| self.matching.get(digest))
            .flatten()
            .copied()
            .collect();
        if !forgetful.is_empty() {
            let members = self
                .of
                .iter()
                .filter(|(_, class)| forgetful.contains(class));
            let members: Vec<IdentityId> = members.map(|(id, _)| *id).collect();
            for id in members {
                gains.entry(id).or_default();
            }
        }
        gains
    }

    /// Adds an identity to its class; returns whether the class is new.
    fn join(&mut self, id: ClassId, matched: Matched, ports: Option<Arc<ServicePorts>>) -> bool {
        if let Some(class) = self.classes.get_mut(&id) {
            class.identities += 1;
            return false;
        }
        for digest in matched.iter() {
            self.matching.entry(*digest).or_default().insert(id);
        }
        let identities = 1;
        self.classes.insert(
            id,
            Class {
                matched,
                ports,
                identities,
            },
        );
        true
    }

    /// Removes an identity from its class; returns whether the class is gone.
    fn leave(&mut self, id: ClassId) -> bool {
        let Some(class) = self.classes.get_mut(&id) else {
            return false;
        };
        class.identities -= 1;
        if class.identities > 0 {
            return false;
        }
        let Some(class) = self.classes.remove(&id) else {
            return false;
        };
        for digest in class.matched.iter() {
            if let Some(classes) = self.matching.get_mut(digest) {
                classes.remove(&id);
                if classes.is_empty() {
                    self.matching.remove(digest);
                }
            }
        }
        true
    }

    /// The number of classes, without that of identities that match nothing.
    pub(crate) fn len(&self) -> usize {
        self.classes.len() - usize::from(self.classes.contains_key(&ClassId::ANY))
    }

    /// The number of every class.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = ClassId> {
        self.classes.keys().copied()
    }

    /// The classes that match any of these selectors.
    pub(crate) fn matching<'a>(
        &'a self,
        asked: impl IntoIterator<Item = &'a Digest>,
    ) -> BTreeSet<ClassId> {
        let classes = asked
            .into_iter()
            .filter_map(|digest| self.matching.get(digest));
        classes.flatten().copied().collect()
    }

    /// The classes of Services, with what is behind them.
    pub(crate) fn services(&self) -> impl Iterator<Item = (ClassId, &Arc<ServicePorts>)> {
        let classes = self.services.iter().filter_map(|id| self.of.get(id));
        let classes: BTreeSet<ClassId> = classes.copied().collect();
        let ports = |id: ClassId| Some((id, self.classes.get(&id)?.ports.as_ref()?));
        classes.into_iter().filter_map(ports)
    }

    /// The selectors that the identities of a class match.
    pub(crate) fn matched(&self, id: ClassId) -> &[Digest] {
        self.classes.get(&id).map_or(&[], |class| &class.matched)
    }
}

type From = (Option<ClassId>, Vec<Digest>);

/// New classes of identities: those of one class that newly match the same selectors move to the
/// same class.
#[derive(Default)]
struct Moves {
    known: HashMap<From, (ClassId, Matched)>,
}

impl Moves {
    fn target(
        &mut self,
        classes: &Classes,
        before: Option<ClassId>,
        gained: Vec<Digest>,
        gone: &HashSet<Digest>,
        numbers: &mut Numbers,
    ) -> Result<(ClassId, Matched), Exhausted> {
        let from = (before, gained);
        if let Some(known) = self.known.get(&from) {
            return Ok(known.clone());
        }
        let held = before.map_or(&[][..], |class| classes.matched(class));
        let kept = held.iter().filter(|digest| !gone.contains(*digest));
        let mut matched: Vec<Digest> = kept.chain(&from.1).copied().collect();
        matched.sort_unstable();
        matched.dedup();
        let class = name(&matched, numbers)?;
        let target = (class, Matched::from(matched));
        self.known.insert(from, target.clone());
        Ok(target)
    }
}

fn name(matched: &[Digest], numbers: &mut Numbers) -> Result<ClassId, Exhausted> {
    if matched.is_empty() {
        return Ok(ClassId::ANY);
    }
    numbers
        .number(Space::Class, digest_of(&matched))
        .map(ClassId)
}
