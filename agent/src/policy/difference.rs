//! Which flows change their verdict from one policy set to another.
//!
//! Invariants: compares every pair of groups of workloads, nodes and outside prefixes at every
//! port, from compiled rows alone. A different deciding rule with the same verdict is no change.
//! Workloads that are in only one of two inventories are counted, not compared. Modes are ignored.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    rc::Rc,
    sync::Arc,
};

use ringfence_common::{
    ids::{ClassId, RuleSlot, TableId},
    mode::{Direction, Verdict},
};
use serde::Serialize;

pub use super::peer_groups::{GroupKind, GroupName};
use super::{
    evaluate::Evaluator,
    inventory_reduction::{PolicyFeatures, reduce},
    numbers::Exhausted,
    peer_groups::{Group, Set, groups},
    port_list::PortList,
    port_verdicts::{DecidedBy, DecidedVerdict, PortVerdicts, SharedRange, VerdictReader, overlay},
};
use crate::model::{Inventory, PolicySet, WallTime};

/// One version to compare.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// Workloads, namespaces and nodes.
    pub inventory: &'a Inventory,
    /// Policies.
    pub policies: &'a Arc<PolicySet>,
}

/// The verdict of one version for the flows of a change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Said {
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// The deciding rules: of the end or ends that deny, or of both ends if they allow.
    pub by: Vec<String>,
}

/// Flows with the same change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// Originators: indices of groups.
    pub from: Vec<usize>,
    /// Responders: indices of groups.
    pub to: Vec<usize>,
    /// Their destination ports.
    pub ports: String,
    /// Verdict of the old version.
    pub old: Said,
    /// Verdict of the new version.
    pub new: Said,
}

/// Everything that changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The changes.
    pub changes: Vec<Change>,
    /// Pairs of groups with newly allowed flows.
    pub opened: usize,
    /// Pairs of groups with newly denied flows.
    pub closed: usize,
    /// All compared ends, in groups that the policies treat alike.
    pub groups: Vec<GroupName>,
    /// The number of groups of workloads.
    pub kinds: usize,
    /// Workloads that were compared.
    pub workloads: usize,
    /// Workloads that are in only one inventory.
    pub not_compared: usize,
}

/// Compares two versions at a point in time.
///
/// # Errors
/// If a version has more identities or rules than a node can number.
pub fn difference(
    old: Version<'_>,
    new: Version<'_>,
    now: WallTime,
) -> Result<Difference, Exhausted> {
    let features = PolicyFeatures::of(&[old.policies, new.policies]);
    let reduced = [old, new].map(|version| reduce(version.inventory, &features));
    let [before, after] = &reduced;
    let old_rules = Evaluator::new(&before.inventory, old.policies, now)?;
    let new_rules = Evaluator::new(&after.inventory, new.policies, now)?;
    let sets = [
        Set {
            evaluator: &old_rules,
            inventory: old.inventory,
            reduced: before,
        },
        Set {
            evaluator: &new_rules,
            inventory: new.inventory,
            reduced: after,
        },
    ];
    let groups = groups(sets, &features);
    let mut comparison = Comparison {
        evaluators: [&old_rules, &new_rules],
        readers: [old_rules.spans(), new_rules.spans()],
        classes: groups
            .iter()
            .flat_map(|group| group.faces.iter().map(|(_, classes)| *classes))
            .collect(),
        texts: HashMap::new(),
        known: HashMap::new(),
        lists: Vec::new(),
        host_ingress: allowed(DecidedBy::Rule(RuleSlot::HOST_INGRESS)),
        outside: allowed(DecidedBy::NotAWorkload),
    };
    let compared: usize = groups.iter().map(|group| group.members.len()).sum();
    let all = old.inventory.workloads.len() + new.inventory.workloads.len();
    let mut difference = Difference {
        kinds: groups
            .iter()
            .filter(|group| group.kind == GroupKind::Workloads)
            .count(),
        workloads: compared,
        not_compared: all.saturating_sub(2 * compared),
        ..Difference::default()
    };
    let found = comparison.all(&groups, &mut difference);
    difference.changes = merge(found, &comparison.lists);
    difference.groups = groups.into_iter().map(|group| group.name).collect();
    Ok(difference)
}

/// The changes between two groups, as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Texts {
    old: Said,
    new: Said,
    ports: String,
}

/// The number of a list of texts; equal lists have equal numbers.
type TextId = usize;

/// The tables of an end in both versions, the other end's classes, and the direction.
type Asked = ([Option<TableId>; 2], [ClassId; 2], Direction);

/// The classes for which two versions of a table have different verdicts.
#[derive(Default)]
struct Differing {
    /// For the classes without rows of their own in either version.
    others: bool,
    /// Classes with rows of their own in either version.
    own: [HashSet<ClassId>; 2],
    /// Pairs of these classes with different verdicts.
    differ: HashSet<[ClassId; 2]>,
}

impl Differing {
    fn includes(&self, classes: [ClassId; 2]) -> bool {
        let mut own = self.own.iter().zip(classes);
        if own.any(|(own, class)| own.contains(&class)) {
            self.differ.contains(&classes)
        } else {
            self.others
        }
    }

    fn is_empty(&self) -> bool {
        !self.others && self.differ.is_empty()
    }
}

struct Comparison<'a> {
    evaluators: [&'a Evaluator; 2],
    readers: [VerdictReader<'a>; 2],
    /// Every pair of classes of a face.
    classes: BTreeSet<[ClassId; 2]>,
    texts: HashMap<[*const PortVerdicts; 4], TextId>,
    known: HashMap<Vec<Texts>, TextId>,
    lists: Vec<Vec<Texts>>,
    host_ingress: Rc<PortVerdicts>,
    outside: Rc<PortVerdicts>,
}

/// Sources by target and change.
type Found = BTreeMap<(usize, TextId), Vec<usize>>;

impl Comparison<'_> {
    /// The change between two groups, by their indices.
    fn all(&mut self, groups: &[Group<2>], difference: &mut Difference) -> Found {
        let mut known: HashMap<([Option<TableId>; 2], Direction), Rc<Differing>> = HashMap::new();
        let mut differing = |comparison: &mut Self, group: &Group<2>, direction| {
            let key = (group.tables, direction);
            let new = || Rc::new(comparison.differing(group.tables, direction));
            Rc::clone(known.entry(key).or_insert_with(new))
        };
        let mut ends = Vec::with_capacity(groups.len());
        for group in groups {
            let out = differing(self, group, Direction::Egress);
            let into = differing(self, group, Direction::Ingress);
            ends.push((group, out, into));
        }
        let mut found = Found::new();
        for (to, (target, _, into)) in ends.iter().enumerate() {
            for (from, (source, out, _)) in ends.iter().enumerate() {
                let outside = source.members.is_empty() && target.members.is_empty();
                if (out.is_empty() && into.is_empty())
                    || outside
                    || (from == to && source.members.len() < 2)
                {
                    continue;
                }
                if let Some(texts) = self.pair((source, out), (target, into)) {
                    self.count(texts, difference);
                    found.entry((to, texts)).or_default().push(from);
                }
            }
        }
        found
    }

    fn count(&self, texts: TextId, difference: &mut Difference) {
        let list = self.lists.get(texts).map_or(&[][..], Vec::as_slice);
        let becomes = |verdict: Verdict| {
            usize::from(list.iter().any(|texts| texts.new.verdict == verdict.name()))
        };
        difference.opened += becomes(Verdict::Allow);
        difference.closed += becomes(Verdict::Deny);
    }

    fn differing(&mut self, tables: [Option<TableId>; 2], direction: Direction) -> Differing {
        let mut at = self.readers.iter().zip(tables);
        let own = [(); 2].map(|()| match at.next() {
            Some((reader, Some(table))) => reader
                .classes_with_rows(table, direction)
                .iter()
                .copied()
                .collect(),
            _ => HashSet::new(),
        });
        let others = self.differs((tables, [ClassId::ANY; 2], direction));
        let mut differing = Differing {
            others,
            own,
            differ: HashSet::new(),
        };
        let [old, new] = &differing.own;
        let own: Vec<[ClassId; 2]> = self
            .classes
            .iter()
            .filter(|[before, after]| old.contains(before) || new.contains(after))
            .copied()
            .collect();
        for classes in own {
            if self.differs((tables, classes, direction)) {
                differing.differ.insert(classes);
            }
        }
        differing
    }

    fn pair(
        &mut self,
        (source, out): (&Group<2>, &Differing),
        (target, into): (&Group<2>, &Differing),
    ) -> Option<TextId> {
        let from_host = source.kind == GroupKind::Host;
        let mut lists: BTreeSet<TextId> = BTreeSet::new();
        for (own, theirs) in source.meet(target) {
            if !out.includes(theirs) && (from_host || !into.includes(own)) {
                continue;
            }
            let [old_out, new_out] = self.both((source.tables, theirs, Direction::Egress));
            let [old_in, new_in] = if from_host {
                [Rc::clone(&self.host_ingress), Rc::clone(&self.host_ingress)]
            } else {
                self.both((target.tables, own, Direction::Ingress))
            };
            lists.insert(self.texts(&[old_out, old_in, new_out, new_in]));
        }
        let texts = match lists.len() {
            0 => return None,
            1 => lists.first().copied()?,
            _ => {
                let lists = lists.iter().filter_map(|list| self.lists.get(*list));
                let all: BTreeSet<Texts> = lists.flatten().cloned().collect();
                self.number(all.into_iter().collect())
            }
        };
        let is_empty = self.lists.get(texts).is_none_or(Vec::is_empty);
        (!is_empty).then_some(texts)
    }

    fn number(&mut self, list: Vec<Texts>) -> TextId {
        if let Some(known) = self.known.get(&list) {
            return *known;
        }
        self.lists.push(list.clone());
        self.known.insert(list, self.lists.len() - 1);
        self.lists.len() - 1
    }

    /// The changes between two ends, from their verdicts: old and new, egress and ingress.
    fn texts(&mut self, spans: &[Rc<PortVerdicts>; 4]) -> TextId {
        // The readers own the `PortVerdicts`, so their addresses identify them.
        let key = spans.each_ref().map(Rc::as_ptr);
        if let Some(known) = self.texts.get(&key) {
            return *known;
        }
        let [old_out, old_in, new_out, new_in] = spans;
        let stretches = overlay([&**old_out, old_in, new_out, new_in]);
        let said: Vec<Option<(Said, Said)>> = stretches.iter().map(|s| self.said(s)).collect();
        let distinct: BTreeSet<&(Said, Said)> = said.iter().flatten().collect();
        let texts = distinct.into_iter().map(|wanted| {
            let mut ports = PortList::default();
            for (stretch, said) in stretches.iter().zip(&said) {
                let meant = said.as_ref() == Some(wanted);
                ports.add(stretch.protocol, (stretch.first, stretch.last), meant);
            }
            let (old, new) = wanted.clone();
            let ports = ports.to_string();
            Texts { old, new, ports }
        });
        let texts = self.number(texts.collect());
        self.texts.insert(key, texts);
        texts
    }

    /// The verdicts for a range, if they differ.
    fn said(&self, stretch: &SharedRange<4>) -> Option<(Said, Said)> {
        let [old_out, old_in, new_out, new_in] = stretch.decided;
        let [old, new] = self.evaluators;
        let changes = old_out.verdict.max(old_in.verdict) != new_out.verdict.max(new_in.verdict);
        changes.then(|| (said(old, [old_out, old_in]), said(new, [new_out, new_in])))
    }

    /// Whether the tables of the two versions have different verdicts anywhere.
    fn differs(&mut self, asked: Asked) -> bool {
        let [old, new] = self.both(asked);
        old.verdicts() != new.verdicts()
    }

    fn both(&mut self, (tables, classes, direction): Asked) -> [Rc<PortVerdicts>; 2] {
        let mut at = self.readers.iter_mut().zip(tables).zip(classes);
        [(); 2].map(|()| match at.next() {
            Some(((reader, Some(table)), class)) => reader.spans(table, class, direction),
            _ => Rc::clone(&self.outside),
        })
    }
}

fn allowed(by: DecidedBy) -> Rc<PortVerdicts> {
    let verdict = Verdict::Allow;
    Rc::new(PortVerdicts::all(DecidedVerdict { verdict, by }))
}

fn said(evaluator: &Evaluator, [egress, ingress]: [DecidedVerdict; 2]) -> Said {
    let verdict = egress.verdict.max(ingress.verdict);
    let ends = [(Direction::Egress, egress), (Direction::Ingress, ingress)];
    let by = ends
        .iter()
        .filter(|(_, decided)| decided.verdict == verdict && decided.by != DecidedBy::NotAWorkload)
        .map(|(direction, decided)| match evaluator.title(decided.by) {
            title if title.starts_with(direction.name()) => title,
            title => format!("{} {title}", direction.name()),
        });
    Said {
        verdict: verdict.name(),
        by: by.collect(),
    }
}

/// One change for all ends that share it: first the sources of one target, then the targets of
/// these.
fn merge(found: Found, lists: &[Vec<Texts>]) -> Vec<Change> {
    let mut merged: BTreeMap<(Rc<Vec<usize>>, &Texts), Vec<usize>> = BTreeMap::new();
    for ((to, texts), sources) in found {
        let sources = Rc::new(sources);
        for texts in lists.get(texts).into_iter().flatten() {
            let key = (Rc::clone(&sources), texts);
            merged.entry(key).or_default().push(to);
        }
    }
    merged
        .into_iter()
        .map(|((from, texts), to)| Change {
            from: from.to_vec(),
            to,
            ports: texts.ports.clone(),
            old: texts.old.clone(),
            new: texts.new.clone(),
        })
        .collect()
}
