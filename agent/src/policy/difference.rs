//! Which flows change their verdict from one policy set to another.
//!
//! Invariants: compares every pair of groups of workloads, nodes and outside prefixes at every
//! port, from compiled rows alone; a change of the deciding rule without one of the verdict is no
//! change. Workloads that only one of two inventories has are counted, not compared. Modes are
//! ignored.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
    sync::Arc,
};

use ringfence_common::{
    ids::{ClassId, RuleSlot, TableId},
    mode::{Direction, Verdict},
};
use serde::Serialize;

pub use super::groups::{GroupKind, GroupName};
use super::{
    evaluate::Evaluator,
    groups::{Group, Set, groups},
    kinds::{Looks, reduce},
    numbers::Exhausted,
    port_list::PortList,
    spans::{By, Ruling, SpanReader, Spans, Stretch, overlay},
};
use crate::model::{Inventory, PolicySet, WallTime};

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// Workloads, namespaces and nodes.
    pub inventory: &'a Inventory,
    /// Policies.
    pub policies: &'a Arc<PolicySet>,
}

/// What one version says of a change's flows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Said {
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// Who decided: the end or ends that deny, or both ends that allow.
    pub by: Vec<String>,
}

/// Flows that change alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// Who opens them.
    pub from: Vec<GroupName>,
    /// Whom they are opened to.
    pub to: Vec<GroupName>,
    /// Their destination ports.
    pub ports: String,
    /// What the old version says.
    pub old: Said,
    /// What the new version says.
    pub new: Said,
}

/// Everything that changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The changes.
    pub changes: Vec<Change>,
    /// Pairs of groups with flows that are allowed now.
    pub opened: usize,
    /// Pairs of groups with flows that are denied now.
    pub closed: usize,
    /// Groups of workloads that were compared.
    pub groups: usize,
    /// Workloads that were compared.
    pub workloads: usize,
    /// Workloads of one inventory only.
    pub not_compared: usize,
}

/// Compares two versions as of a moment.
///
/// # Errors
/// When a version has more identities or rules than a node can number.
pub fn difference(
    old: Version<'_>,
    new: Version<'_>,
    now: WallTime,
) -> Result<Difference, Exhausted> {
    let looks = Looks::of(&[old.policies, new.policies]);
    let reduced = [old, new].map(|version| reduce(version.inventory, &looks));
    let [before, after] = &reduced;
    let old_rules = Evaluator::new(Arc::clone(&before.inventory), old.policies, now)?;
    let new_rules = Evaluator::new(Arc::clone(&after.inventory), new.policies, now)?;
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
    let groups = groups(sets, &looks);
    let mut comparison = Comparison {
        evaluators: [&old_rules, &new_rules],
        readers: [old_rules.spans(), new_rules.spans()],
        differs: HashMap::new(),
        words: HashMap::new(),
        own_node: allowed(By::Rule(RuleSlot::OWN_NODE)),
        outside: allowed(By::NotAWorkload),
    };
    let compared: usize = groups.iter().map(|group| group.members.len()).sum();
    let all = old.inventory.workloads.len() + new.inventory.workloads.len();
    let mut difference = Difference {
        groups: groups
            .iter()
            .filter(|group| group.kind == GroupKind::Workloads)
            .count(),
        workloads: compared,
        not_compared: all.saturating_sub(2 * compared),
        ..Difference::default()
    };
    let found = comparison.all(&groups, &mut difference);
    difference.changes = merge(found, &groups);
    Ok(difference)
}

/// What changes between two groups, in words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Words {
    old: Said,
    new: Said,
    ports: String,
}

/// The tables of an end in both versions, the other end's classes, and the direction.
type Asked = ([Option<TableId>; 2], [ClassId; 2], Direction);

struct Comparison<'a> {
    evaluators: [&'a Evaluator; 2],
    readers: [SpanReader<'a>; 2],
    differs: HashMap<Asked, bool>,
    words: HashMap<[*const Spans; 4], Rc<Vec<Words>>>,
    own_node: Rc<Spans>,
    outside: Rc<Spans>,
}

impl Comparison<'_> {
    /// By the places of two groups, what changes between them.
    fn all(
        &mut self,
        groups: &[Group<2>],
        difference: &mut Difference,
    ) -> BTreeMap<(usize, Vec<Words>), Vec<usize>> {
        let mut found: BTreeMap<(usize, Vec<Words>), Vec<usize>> = BTreeMap::new();
        for (to, target) in groups.iter().enumerate() {
            for (from, source) in groups.iter().enumerate() {
                let outside = source.members.is_empty() && target.members.is_empty();
                if outside || (from == to && source.members.len() < 2) {
                    continue;
                }
                let changes = self.pair(source, target);
                if changes.is_empty() {
                    continue;
                }
                let becomes = |verdict: Verdict| {
                    usize::from(
                        changes
                            .iter()
                            .any(|words| words.new.verdict == verdict.name()),
                    )
                };
                difference.opened += becomes(Verdict::Allow);
                difference.closed += becomes(Verdict::Deny);
                found.entry((to, changes)).or_default().push(from);
            }
        }
        found
    }

    fn pair(&mut self, source: &Group<2>, target: &Group<2>) -> Vec<Words> {
        let mut changes: BTreeSet<Words> = BTreeSet::new();
        for (own, theirs) in source.meet(target) {
            let egress = (source.tables, theirs, Direction::Egress);
            let ingress = (target.tables, own, Direction::Ingress);
            let from_host = source.kind == GroupKind::Host;
            if !self.differs(egress) && (from_host || !self.differs(ingress)) {
                continue;
            }
            let [old_out, new_out] = self.both(egress);
            let [old_in, new_in] = if from_host {
                [Rc::clone(&self.own_node), Rc::clone(&self.own_node)]
            } else {
                self.both(ingress)
            };
            let words = self.words(&[old_out, old_in, new_out, new_in]);
            changes.extend(words.iter().cloned());
        }
        changes.into_iter().collect()
    }

    /// What changes between two ends, given what each says: old and new, out and in.
    fn words(&mut self, spans: &[Rc<Spans>; 4]) -> Rc<Vec<Words>> {
        // Spans live as long as their readers, so that their places name them.
        let key = spans.each_ref().map(Rc::as_ptr);
        if let Some(known) = self.words.get(&key) {
            return Rc::clone(known);
        }
        let [old_out, old_in, new_out, new_in] = spans;
        let stretches = overlay([&**old_out, old_in, new_out, new_in]);
        let said: Vec<Option<(Said, Said)>> = stretches.iter().map(|s| self.said(s)).collect();
        let distinct: BTreeSet<&(Said, Said)> = said.iter().flatten().collect();
        let words = distinct.into_iter().map(|wanted| {
            let mut ports = PortList::default();
            for (stretch, said) in stretches.iter().zip(&said) {
                let meant = said.as_ref() == Some(wanted);
                ports.add(stretch.protocol, (stretch.first, stretch.last), meant);
            }
            let (old, new) = wanted.clone();
            let ports = ports.to_string();
            Words { old, new, ports }
        });
        let words = Rc::new(words.collect::<Vec<_>>());
        self.words.insert(key, Rc::clone(&words));
        words
    }

    /// What is said of a stretch, if the verdict changes.
    fn said(&self, stretch: &Stretch<4>) -> Option<(Said, Said)> {
        let [old_out, old_in, new_out, new_in] = stretch.rulings;
        let [old, new] = self.evaluators;
        let changes = old_out.verdict.max(old_in.verdict) != new_out.verdict.max(new_in.verdict);
        changes.then(|| (said(old, [old_out, old_in]), said(new, [new_out, new_in])))
    }

    /// Whether the two versions' tables say different verdicts anywhere.
    fn differs(&mut self, asked: Asked) -> bool {
        if let Some(known) = self.differs.get(&asked) {
            return *known;
        }
        let [old, new] = self.both(asked);
        let differs = old.verdicts() != new.verdicts();
        self.differs.insert(asked, differs);
        differs
    }

    fn both(&mut self, (tables, classes, direction): Asked) -> [Rc<Spans>; 2] {
        let mut at = self.readers.iter_mut().zip(tables).zip(classes);
        [(); 2].map(|()| match at.next() {
            Some(((reader, Some(table)), class)) => reader.spans(table, class, direction),
            _ => Rc::clone(&self.outside),
        })
    }
}

fn allowed(by: By) -> Rc<Spans> {
    let verdict = Verdict::Allow;
    Rc::new(Spans::all(Ruling { verdict, by }))
}

fn said(evaluator: &Evaluator, [egress, ingress]: [Ruling; 2]) -> Said {
    let verdict = egress.verdict.max(ingress.verdict);
    let ends = [(Direction::Egress, egress), (Direction::Ingress, ingress)];
    let by = ends
        .iter()
        .filter(|(_, ruling)| ruling.verdict == verdict && ruling.by != By::NotAWorkload)
        .map(|(direction, ruling)| match evaluator.title(ruling.by) {
            title if title.starts_with(direction.name()) => title,
            title => format!("{} {title}", direction.name()),
        });
    Said {
        verdict: verdict.name(),
        by: by.collect(),
    }
}

/// One change for all who share it: first the sources of one target, then the targets of these.
fn merge(found: BTreeMap<(usize, Vec<Words>), Vec<usize>>, groups: &[Group<2>]) -> Vec<Change> {
    let mut merged: BTreeMap<(Vec<usize>, Words), BTreeSet<usize>> = BTreeMap::new();
    for ((to, changes), sources) in found {
        for words in changes {
            merged
                .entry((sources.clone(), words))
                .or_default()
                .insert(to);
        }
    }
    let name = |place: usize| groups.get(place).map(|group| group.name.clone());
    merged
        .into_iter()
        .map(|((from, words), to)| Change {
            from: from.into_iter().filter_map(name).collect(),
            to: to.into_iter().filter_map(name).collect(),
            ports: words.ports,
            old: words.old,
            new: words.new,
        })
        .collect()
}
