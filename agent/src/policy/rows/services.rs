//! The rows of classes of Services: what a table says of their backends, at their ports.
//!
//! A packet to a Service is seen before the node translates it, and which backend it gets is not known then. So a port
//! is allowed if each backend is, and denied if none is; if some are, it is denied for that. Invariants: a port
//! without backends, every other port, and every protocol that the Service does not have are denied where the table
//! has anything to say; what is behind a port counts as it stands, by its own address and port.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
};

use ringfence_common::{
    ids::{ClassId, RuleSlot, TableId},
    mode::{Direction, Verdict},
};

use super::{
    super::{
        classes::ServicePorts,
        digest::Digest,
        outcome::{Decider, Timeline},
        schedules::{ScheduleId, Schedules},
        table::TableSpec,
    },
    Outcomes, Pieces, View, Writer, at, protocols_of,
};
use crate::plan::TableRows;

/// Adds the rows of classes of Services; `matched` gives the selectors that a backend's class matches.
pub(crate) fn add_services<'a>(
    rows: &mut TableRows,
    (table, spec): (TableId, &TableSpec),
    services: impl Iterator<Item = (ClassId, &'a ServicePorts)> + Clone,
    matched: impl Fn(ClassId) -> &'a [Digest],
) {
    let direction = Direction::Egress;
    let fence = spec.fence(direction);
    let mut protocols = protocols_of(fence, direction);
    let ports = services.clone().flat_map(|(_, ports)| ports.keys());
    protocols.extend(ports.map(|port| port.protocol));
    let schedules = RefCell::new(Schedules::default());
    let any = View::of((spec, direction), None, &schedules, |_, rule| {
        rule.peers.is_none()
    });
    let any = Outcomes::of(&any, &protocols);
    // A port without a backend may lead to a node's tunnel, as any unlisted address of the cluster.
    let tunnels = fence.tunnels.as_deref();
    let nothing = View::of((spec, direction), tunnels, &schedules, |_, rule| {
        rule.peers.is_none()
    });
    let nothing = Outcomes::of(&nothing, &protocols);
    let mut behind = Behind {
        spec,
        schedules: &schedules,
        nothing: &nothing,
        known: HashMap::new(),
    };
    let mut writer = Writer {
        table,
        direction,
        rows,
        schedules: &schedules,
    };
    for (id, ports) in services {
        let own = behind.outcomes(ports, &matched);
        writer.difference(&[id], &own, &any);
    }
}

/// The outcomes of a table for what is behind Services.
struct Behind<'a> {
    spec: &'a TableSpec,
    schedules: &'a RefCell<Schedules>,
    /// What the table says of a peer of which nothing is known but that it may be a node.
    nothing: &'a Outcomes,
    /// By the class of a backend, its protocol and its port.
    known: HashMap<(Option<ClassId>, u8, u16), Timeline>,
}

impl Behind<'_> {
    fn outcomes<'a>(
        &mut self,
        ports: &ServicePorts,
        matched: &impl Fn(ClassId) -> &'a [Digest],
    ) -> Outcomes {
        let mut named: Vec<(u8, Pieces)> = Vec::with_capacity(self.nothing.named.len());
        for (number, any) in &self.nothing.named {
            let mut pieces = self.without_backends(any);
            for (port, backends) in ports.iter().filter(|(it, _)| it.protocol == *number) {
                let backends = backends.iter();
                let all: Vec<Timeline> = backends
                    .map(|(class, port)| self.backend((*class, *number, *port), matched))
                    .collect();
                if !all.is_empty() {
                    let together = self.schedules.borrow_mut().of(together(&all));
                    set(&mut pieces, u32::from(port.port), together);
                }
            }
            named.push((*number, pieces));
        }
        Outcomes {
            elsewhere: self.denied(self.nothing.elsewhere),
            named,
        }
    }

    /// Without a policy of egress, what a Service lacks is left to the node.
    fn is_open(&self) -> bool {
        !self.spec.fence(Direction::Egress).has_policies
    }

    fn without_backends(&self, any: &Pieces) -> Pieces {
        let pieces = any.iter();
        let mut denied: Pieces = Vec::with_capacity(any.len());
        for (start, schedule) in pieces {
            let schedule = self.denied(*schedule);
            if denied.last().is_none_or(|(_, last)| *last != schedule) {
                denied.push((*start, schedule));
            }
        }
        denied
    }

    /// An outcome of the any-class rows, where there is no backend.
    fn denied(&self, any: ScheduleId) -> ScheduleId {
        if self.is_open() {
            return any;
        }
        let mut schedules = self.schedules.borrow_mut();
        let mut denied = schedules.timeline(any);
        for (_, decider) in &mut denied {
            if decider.verdict == Verdict::Allow {
                *decider = Decider::of(Verdict::Deny, RuleSlot::SERVICE_PORT);
            }
        }
        denied.dedup_by_key(|(_, decider)| *decider);
        schedules.of(denied)
    }

    /// What the table says of a backend.
    fn backend<'a>(
        &mut self,
        key: (Option<ClassId>, u8, u16),
        matched: &impl Fn(ClassId) -> &'a [Digest],
    ) -> Timeline {
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let (class, number, port) = key;
        let decided = match class {
            // An unknown peer is denied whatever the rules say.
            None => vec![(0, self.unknown())],
            Some(class) => self.decide(matched(class), number, u32::from(port)),
        };
        self.known.insert(key, decided.clone());
        decided
    }

    /// What is said of a backend that nothing is known of: the default if that denies, which takes no row.
    fn unknown(&self) -> Decider {
        let is_isolated = self.spec.fence(Direction::Egress).isolated;
        let slot = if is_isolated {
            RuleSlot::DEFAULT_DENY
        } else {
            RuleSlot::SERVICE_PORT
        };
        Decider::of(Verdict::Deny, slot)
    }

    fn decide(&self, matched: &[Digest], number: u8, port: u32) -> Timeline {
        let matched: BTreeSet<&Digest> = matched.iter().collect();
        let fence = self.spec.fence(Direction::Egress);
        let tunnels = fence.tunnels.as_deref();
        let tunnels = tunnels.filter(|it| matched.contains(&it.ends.digest));
        let view = View::of(
            (self.spec, Direction::Egress),
            tunnels,
            self.schedules,
            |_, rule| {
                let peers = rule.peers.as_ref();
                peers.is_none_or(|peers| peers.iter().any(|it| matched.contains(&it.digest)))
            },
        );
        view.timeline(number, port)
    }
}

/// The outcome of a port by those of its backends, of which there is at least one.
fn together(backends: &[Timeline]) -> Timeline {
    let times: BTreeSet<u64> = backends.iter().flatten().map(|(from, _)| *from).collect();
    let mut timeline: Timeline = Vec::with_capacity(times.len());
    for time in times {
        let now = backends.iter().filter_map(|it| decider_at(it, time));
        let decider = one_of(now);
        if timeline.last().is_none_or(|(_, last)| *last != decider) {
            timeline.push((time, decider));
        }
    }
    timeline
}

fn decider_at(timeline: &Timeline, time: u64) -> Option<Decider> {
    let after = timeline.partition_point(|(from, _)| *from <= time);
    timeline.get(after.checked_sub(1)?).map(|(_, it)| *it)
}

/// The outcome of several: if they agree, that of the first rule by number.
fn one_of(deciders: impl Iterator<Item = Decider>) -> Decider {
    let mut found: Option<Decider> = None;
    for decider in deciders {
        found = Some(match found {
            None => decider,
            Some(first) if first.verdict != decider.verdict => {
                return Decider::of(Verdict::Deny, RuleSlot::SERVICE_MIXED);
            }
            Some(first) => {
                let reject = first.reject && decider.reject;
                let slot = first.slot.min(decider.slot);
                Decider {
                    reject,
                    slot,
                    ..first
                }
            }
        });
    }
    found.unwrap_or(Decider::of(Verdict::Deny, RuleSlot::SERVICE_PORT))
}

/// Sets the outcome of one port.
fn set(pieces: &mut Pieces, port: u32, schedule: ScheduleId) {
    let after = at(pieces, port + 1).filter(|_| port < 0xffff);
    let place = pieces.partition_point(|(start, _)| *start < port);
    let replaced = pieces.get(place).is_some_and(|(start, _)| *start == port);
    let next = place + usize::from(replaced);
    let is_split = pieces.get(next).is_none_or(|(start, _)| *start > port + 1);
    let mut put = vec![(port, schedule)];
    put.extend(after.filter(|_| is_split).map(|after| (port + 1, after)));
    pieces.splice(place..next, put);
    pieces.dedup_by_key(|(_, schedule)| *schedule);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(slot: u32) -> Decider {
        Decider::of(Verdict::Allow, RuleSlot(slot))
    }

    fn deny(slot: u32) -> Decider {
        Decider::of(Verdict::Deny, RuleSlot(slot))
    }

    #[test]
    fn backends_that_differ_are_denied_for_that() {
        let mixed = Decider::of(Verdict::Deny, RuleSlot::SERVICE_MIXED);
        for (backends, expected) in [
            (vec![allow(20), allow(17)], allow(17)),
            (vec![deny(20), deny(1)], deny(1)),
            (vec![allow(20), allow(17), deny(1)], mixed),
            (vec![deny(20), allow(17)], mixed),
        ] {
            assert_eq!(one_of(backends.into_iter()), expected);
        }
        let reject = Decider {
            reject: true,
            ..deny(20)
        };
        assert!(one_of([reject, reject].into_iter()).reject);
        assert!(!one_of([reject, deny(20)].into_iter()).reject);
    }

    #[test]
    fn outcomes_change_when_one_backend_does() {
        let first = vec![(0, allow(20)), (100, deny(1))];
        let second = vec![(0, allow(21)), (50, deny(1)), (200, allow(22))];
        let mixed = Decider::of(Verdict::Deny, RuleSlot::SERVICE_MIXED);
        assert_eq!(
            together(&[first, second]),
            [(0, allow(20)), (50, mixed), (100, deny(1)), (200, mixed)]
        );
    }

    #[test]
    fn one_port_has_another_outcome() {
        let mut schedules = Schedules::default();
        let mut of = |slot| schedules.of(vec![(0, allow(slot))]);
        let (one, two, new) = (of(20), of(21), of(22));
        let outcomes = [(0, one), (80, two), (90, one)];
        for port in [0, 1, 79, 80, 81, 89, 90, 443, 0xffff] {
            let mut pieces: Pieces = outcomes.to_vec();
            set(&mut pieces, port, new);
            for asked in [
                0, 1, 2, 78, 79, 80, 81, 82, 88, 89, 90, 91, 442, 443, 444, 0xffff,
            ] {
                let before = at(&outcomes.to_vec(), asked);
                let expected = if asked == port { Some(new) } else { before };
                assert_eq!(at(&pieces, asked), expected, "{port}: {asked}");
            }
            assert!(pieces.is_sorted_by_key(|(start, _)| *start));
        }
    }
}
