//! What a workload can reach, directly and through the workloads it reached, hop by hop.
//!
//! Invariants: a flow counts if the egress of its source and the ingress of its destination allow
//! it on some port. Every group of workloads is visited once, on a shortest path. Nodes and the
//! world can be reached, but the search does not continue from them. Modes, and what an application
//! forwards, are ignored.

use std::{
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    sync::Arc,
};

use ringfence_common::{
    ids::{ClassId, TableId},
    mode::{Direction, Verdict},
};
use serde::Serialize;

pub use super::peer_groups::{GroupKind, GroupName};
use super::{
    evaluate::{Evaluator, QueryError},
    inventory_reduction::{PolicyFeatures, reduce},
    numbers::Exhausted,
    peer_groups::{Group, Set, groups},
    port_list::PortList,
    port_verdicts::{DecidedBy, DecidedVerdict, PortVerdicts, SharedRange, VerdictReader, overlay},
    ports::{self, PortRange},
};
use crate::model::{Inventory, PolicySet, PortMatch, Ports, WallTime, WorkloadId};

/// Why reach cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// More identities or rules than a node can number.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The workload does not exist.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// A reach query.
#[derive(Debug, Clone)]
pub struct Question {
    /// The compromised workload.
    pub from: WorkloadId,
    /// Whether to continue from the workloads that were reached.
    pub transitive: bool,
    /// Only flows to this port; of a range or protocol, any port counts.
    pub port: Option<PortMatch>,
}

/// A group that can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reached {
    /// The group.
    pub to: GroupName,
    /// The number of hops.
    pub hop: usize,
    /// The source of the last hop.
    pub via: String,
    /// Its destination ports.
    pub ports: String,
    /// Names of declared ports among them, with their numbers.
    pub declared: Vec<String>,
    /// The rules and defaults that allow it: egress, then ingress.
    pub by: Vec<String>,
}

/// Everything that can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// The compromised workload.
    pub from: String,
    /// What it reaches, in order of hops.
    pub reached: Vec<Reached>,
    /// The number of workloads reached.
    pub workloads: usize,
    /// The number reached in one hop.
    pub direct: usize,
    /// The number of all other workloads.
    pub of: usize,
}

/// Computes what a workload can reach at a point in time.
///
/// # Errors
/// If the workload does not exist, or there are more identities or rules than a node can number.
pub fn reach(
    inventory: &Inventory,
    policies: &Arc<PolicySet>,
    now: WallTime,
    question: &Question,
) -> Result<Reach, ReachError> {
    if inventory.workload(&question.from).is_none() {
        return Err(QueryError::UnknownWorkload(question.from.to_string()).into());
    }
    let features = PolicyFeatures::of(&[policies]);
    let reduced = reduce(inventory, &features);
    let evaluator = Evaluator::new(&reduced.inventory, policies, now)?;
    let set = Set {
        evaluator: &evaluator,
        inventory,
        reduced: &reduced,
    };
    let groups = groups([set], &features);
    let mut search = Search {
        groups: &groups,
        evaluator: &evaluator,
        reader: evaluator.spans(),
        question,
    };
    let reached = search.run();
    let others = |reached: &&Reached| reached.to.kind == GroupKind::Workloads;
    let count = |hops: usize| -> usize {
        let near = reached.iter().filter(others).filter(|r| r.hop <= hops);
        near.map(|reached| reached.to.count).sum()
    };
    Ok(Reach {
        from: question.from.to_string(),
        workloads: count(usize::MAX),
        direct: count(1),
        of: inventory.workloads.len().saturating_sub(1),
        reached,
    })
}

struct Search<'a> {
    groups: &'a [Group<1>],
    evaluator: &'a Evaluator,
    reader: VerdictReader<'a>,
    question: &'a Question,
}

/// A hop from one group to another.
struct Link {
    ports: PortList,
    by: BTreeSet<String>,
}

impl Search<'_> {
    fn run(&mut self) -> Vec<Reached> {
        let groups = self.groups;
        let from = &self.question.from;
        let Some(start) = groups.iter().position(|group| group.members.contains(from)) else {
            return Vec::new();
        };
        let mut entered: BTreeSet<usize> = BTreeSet::new();
        let mut reached = Vec::new();
        let mut next = VecDeque::from([(start, 0_usize, from.to_string())]);
        while let Some((place, hop, name)) = next.pop_front() {
            let Some(source) = groups.get(place) else {
                continue;
            };
            for (target, group) in groups.iter().enumerate() {
                // Only the first group has members other than the one where the search starts.
                let alone = target == start && group.members.len() < 2;
                if entered.contains(&target) || alone {
                    continue;
                }
                let Some(link) = self.link(source, group) else {
                    continue;
                };
                entered.insert(target);
                let reached_group = self.describe(group, target == start, hop + 1, &name, &link);
                if self.question.transitive && !group.members.is_empty() {
                    next.push_back((target, hop + 1, reached_group.to.name.clone()));
                }
                reached.push(reached_group);
            }
        }
        reached
    }

    fn describe(&self, group: &Group<1>, own: bool, hop: usize, via: &str, link: &Link) -> Reached {
        let mut to = group.name.clone();
        if own {
            let from = self.question.from.to_string();
            to.count = to.count.saturating_sub(1);
            to.members.retain(|member| *member != from);
            to.name = format!("others like {from} ({})", to.count);
        }
        let declared = group
            .ports
            .iter()
            .filter(|port| link.ports.contains(port.protocol, port.port))
            .map(|port| format!("{} {}/{}", port.name, port.protocol, port.port));
        Reached {
            to,
            hop,
            via: via.to_owned(),
            ports: link.ports.to_string(),
            declared: declared.collect(),
            by: link.by.iter().cloned().collect(),
        }
    }

    /// The ports on which one group can open flows to another, and the rules that allow them.
    fn link(&mut self, source: &Group<1>, target: &Group<1>) -> Option<Link> {
        let mut link = Link {
            ports: PortList::default(),
            by: BTreeSet::new(),
        };
        let requested = self.requested(target);
        for ([own], [theirs]) in source.meet(target) {
            let egress = self.spans(source, theirs, Direction::Egress);
            let ingress = self.spans(target, own, Direction::Ingress);
            if egress.denies_everything() || ingress.denies_everything() {
                continue;
            }
            let stretches = overlay([&*egress, &ingress]);
            let pieces = match &requested {
                Some(requested) => clip(&stretches, requested),
                None => (0..)
                    .zip(&stretches)
                    .map(|(place, s)| (s.protocol, (s.first, s.last), place))
                    .collect(),
            };
            for (protocol, ports, place) in pieces {
                let Some(stretch) = stretches.get(place) else {
                    continue;
                };
                let mut decided = stretch.decided.iter();
                let allowed = decided.all(|decided| decided.verdict == Verdict::Allow);
                link.ports.add(protocol, ports, allowed);
                if allowed {
                    let ends = [Direction::Egress, Direction::Ingress];
                    let by = ends.iter().zip(stretch.decided);
                    link.by
                        .extend(by.filter_map(|(end, decided)| self.by(*end, decided)));
                }
            }
        }
        (!link.ports.is_empty()).then_some(link)
    }

    fn spans(&mut self, group: &Group<1>, peer: ClassId, direction: Direction) -> Rc<PortVerdicts> {
        let [table]: [Option<TableId>; 1] = group.tables;
        match table {
            Some(table) => self.reader.spans(table, peer, direction),
            None => Rc::new(PortVerdicts::all(DecidedVerdict {
                verdict: Verdict::Allow,
                by: DecidedBy::NotAWorkload,
            })),
        }
    }

    fn by(&self, direction: Direction, decided: DecidedVerdict) -> Option<String> {
        if decided.by == DecidedBy::NotAWorkload {
            return None;
        }
        let title = self.evaluator.title(decided.by);
        Some(if title.starts_with(direction.name()) {
            title
        } else {
            format!("{} {title}", direction.name())
        })
    }

    /// The requested ports for a group; `None` for all.
    fn requested(&self, target: &Group<1>) -> Option<Vec<PortRange>> {
        let matches = self.question.port.clone()?;
        let resolved = ports::split(&Ports::Of(vec![matches]))?;
        let mut ranges = resolved.fixed;
        for name in &resolved.named {
            for port in ports::declared(name, &target.ports) {
                ranges.extend(ports::exact(port));
            }
        }
        Some(ranges.into_iter().collect())
    }
}

/// The requested part of each range, with its index.
fn clip<const N: usize>(
    stretches: &[SharedRange<N>],
    requested: &[PortRange],
) -> Vec<(Option<u8>, (u16, u16), usize)> {
    let mut clipped = Vec::new();
    for range in requested {
        let named = stretches.iter().any(|s| s.protocol == Some(range.protocol));
        let about = named.then_some(range.protocol);
        for (place, stretch) in stretches.iter().enumerate() {
            let ports = (stretch.first.max(range.first), stretch.last.min(range.last));
            if stretch.protocol == about && ports.0 <= ports.1 {
                clipped.push((Some(range.protocol), ports, place));
            }
        }
    }
    clipped
}
