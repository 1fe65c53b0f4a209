//! From a table's specification to the rows of the `POLICY` map.
//!
//! Invariants: the any-class rows cover every lookup. A class has rows only where its outcome
//! differs. Every row holds the outcome of its class at every point that it covers, so the longest
//! prefix is right whichever row it is. A pure function of the specification and the classes: the
//! clock was read when the table was laid out.

mod services;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use ringfence_common::{
    ids::{ClassId, RuleSlot, TableId},
    mode::{Direction, Verdict},
    net::Port,
    packet::protocol,
    policy::PolicyKey,
};

use super::{
    digest::Digest,
    outcome::{Decider, Timeline, default_of, timeline},
    schedules::{ScheduleId, Schedules},
    table::{Edge, Fence, FenceRule, TableSpec},
    tunnels::Tunnels,
};
use crate::plan::TableRows;
pub(crate) use services::add_services;

/// Protocols that the egress default allows; tunnels and raw protocols need a rule.
const PLAIN: [u8; 5] = [
    protocol::TCP,
    protocol::UDP,
    protocol::SCTP,
    protocol::ICMP,
    protocol::ICMPV6,
];

/// A peer class with the selectors it matches.
#[derive(Clone, Copy)]
pub(crate) struct Peers<'a> {
    pub(crate) id: ClassId,
    /// The selectors that its identities match.
    pub(crate) matched: &'a [Digest],
}

/// The any-class rows of one table.
pub(crate) fn for_anyone(table: TableId, spec: &TableSpec) -> TableRows {
    let mut rows = TableRows::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        let schedules = RefCell::new(Schedules::default());
        let mut writer = Writer {
            table,
            direction,
            rows: &mut rows,
            schedules: &schedules,
        };
        let any = View::of((spec, direction), None, &schedules, |_, rule| {
            rule.peers.is_none()
        });
        let protocols = protocols_of(spec.fence(direction), direction);
        let outcomes = Outcomes::of(&any, &protocols);
        writer.whole(&[ClassId::ANY], &outcomes);
    }
    rows
}

/// Adds the rows of classes, from the specification and the selectors that each class matches.
pub(crate) fn add_classes<'a>(
    rows: &mut TableRows,
    (table, spec): (TableId, &TableSpec),
    classes: &(impl Iterator<Item = Peers<'a>> + Clone),
) {
    for direction in [Direction::Ingress, Direction::Egress] {
        let fence = spec.fence(direction);
        let mut asking: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (index, rule) in fence.rules.iter().enumerate() {
            for selector in rule.peers.iter().flatten() {
                asking.entry(selector.digest).or_default().push(index);
            }
        }
        // Classes that the same rules match have the same rows, unless some may end tunnels.
        let mut alike: BTreeMap<(BTreeSet<usize>, bool), Vec<ClassId>> = BTreeMap::new();
        let tunnels = fence.tunnels.as_deref();
        for class in classes.clone() {
            let rules = class.matched.iter().filter_map(|digest| asking.get(digest));
            let rules: BTreeSet<usize> = rules.flatten().copied().collect();
            let is_end = tunnels.is_some_and(|tunnels| tunnels.end_at(class.matched));
            if !rules.is_empty() || is_end {
                alike.entry((rules, is_end)).or_default().push(class.id);
            }
        }
        if alike.is_empty() {
            continue;
        }
        let schedules = RefCell::new(Schedules::default());
        let mut writer = Writer {
            table,
            direction,
            rows,
            schedules: &schedules,
        };
        let protocols = protocols_of(fence, direction);
        let any = View::of((spec, direction), None, &schedules, |_, rule| {
            rule.peers.is_none()
        });
        let any = Outcomes::of(&any, &protocols);
        for ((asking, is_end), ids) in alike {
            let tunnels = tunnels.filter(|_| is_end);
            let own = View::of((spec, direction), tunnels, &schedules, |index, rule| {
                rule.peers.is_none() || asking.contains(&index)
            });
            writer.difference(&ids, &Outcomes::of(&own, &protocols), &any);
        }
    }
}

fn protocols_of(fence: &Fence, direction: Direction) -> BTreeSet<u8> {
    let mut protocols: BTreeSet<u8> = fence
        .rules
        .iter()
        .filter_map(|rule| rule.ports.as_ref())
        .flatten()
        .map(|r| r.protocol)
        .collect();
    if direction == Direction::Egress && !fence.isolated {
        protocols.extend(PLAIN);
    }
    if fence.tunnels.is_some() {
        protocols.extend(Tunnels::protocols());
    }
    protocols
}

/// A fence, restricted to the rules that match one class.
struct View<'a> {
    rules: Vec<&'a FenceRule>,
    /// Of a class that may end tunnels: the tunnels.
    tunnels: Option<&'a Tunnels>,
    default: Decider,
    plain_only: bool,
    edge: Option<Edge>,
    schedules: &'a RefCell<Schedules>,
}

/// Outcomes over all ports of a protocol: each holds from its port up to the next one's.
type Pieces = Vec<(u32, ScheduleId)>;

impl<'a> View<'a> {
    fn of(
        (spec, direction): (&'a TableSpec, Direction),
        tunnels: Option<&'a Tunnels>,
        schedules: &'a RefCell<Schedules>,
        sees: impl Fn(usize, &FenceRule) -> bool,
    ) -> Self {
        let fence = spec.fence(direction);
        Self {
            rules: fence
                .rules
                .iter()
                .enumerate()
                .filter(|(index, rule)| sees(*index, rule))
                .map(|(_, rule)| rule)
                .collect(),
            tunnels,
            default: default_of(fence),
            plain_only: direction == Direction::Egress && !fence.isolated,
            edge: spec.edge,
            schedules,
        }
    }

    fn default_for(&self, plain: bool) -> Decider {
        if self.plain_only && !plain {
            Decider::of(Verdict::Deny, RuleSlot::RAW_PROTOCOL)
        } else {
            self.default
        }
    }

    fn decided(&self, default: Decider, matches: impl Fn(&FenceRule) -> bool) -> Timeline {
        let matching: Vec<&FenceRule> = self
            .rules
            .iter()
            .copied()
            .filter(|rule| matches(rule))
            .collect();
        timeline(&matching, default, self.edge)
    }

    /// The outcome of a protocol that is in no rule.
    fn elsewhere(&self) -> ScheduleId {
        let decided = self.decided(self.default_for(false), |rule| rule.ports.is_none());
        self.schedules.borrow_mut().of(decided)
    }

    /// The outcome of a port.
    fn timeline(&self, number: u8, port: u32) -> Timeline {
        let default = self.default_for(PLAIN.contains(&number));
        if self.tunnels.is_some_and(|it| it.lead(number, port)) {
            return self.decided(Tunnels::default(default), |rule| {
                covers(rule, number, port) && Tunnels::heed(rule, number, port)
            });
        }
        self.decided(default, |rule| covers(rule, number, port))
    }

    fn pieces(&self, number: u8) -> Pieces {
        let ranges = || {
            let named = self.rules.iter().filter_map(|rule| rule.ports.as_ref());
            named
                .flatten()
                .filter(move |range| range.protocol == number)
        };
        let mut starts = BTreeSet::from([0u32]);
        for range in ranges() {
            starts.insert(u32::from(range.first));
            starts.insert(u32::from(range.last) + 1);
        }
        let edges = self.tunnels.map(|tunnels| tunnels.edges(number));
        starts.extend(edges.into_iter().flatten());
        starts.remove(&0x1_0000);
        let mut pieces: Pieces = Vec::with_capacity(starts.len());
        for start in starts {
            let row = self.schedules.borrow_mut().of(self.timeline(number, start));
            if pieces.last().is_none_or(|(_, last)| *last != row) {
                pieces.push((start, row));
            }
        }
        pieces
    }
}

/// All outcomes of a view: for protocols in no rule, and for each other protocol.
struct Outcomes {
    elsewhere: ScheduleId,
    named: Vec<(u8, Pieces)>,
}

impl Outcomes {
    fn of(view: &View<'_>, protocols: &BTreeSet<u8>) -> Self {
        let named = protocols
            .iter()
            .map(|number| (*number, view.pieces(*number)));
        Self {
            elsewhere: view.elsewhere(),
            named: named.collect(),
        }
    }
}

fn covers(rule: &FenceRule, number: u8, port: u32) -> bool {
    rule.ports.as_ref().is_none_or(|ports| {
        ports.iter().any(|range| {
            range.protocol == number
                && (u32::from(range.first)..=u32::from(range.last)).contains(&port)
        })
    })
}

/// The outcome at a port.
fn at(pieces: &Pieces, port: u32) -> Option<ScheduleId> {
    let after = pieces.partition_point(|(start, _)| *start <= port);
    pieces.get(after.checked_sub(1)?).map(|(_, row)| *row)
}

/// The outcome of a block of ports, if it is uniform.
fn constant(pieces: &Pieces, first: u32, size: u32) -> Option<ScheduleId> {
    let next = pieces.partition_point(|(start, _)| *start <= first);
    let ends_inside = pieces
        .get(next)
        .is_some_and(|(start, _)| *start < first + size);
    if ends_inside { None } else { at(pieces, first) }
}

/// The outcome of most ports.
fn most_common(pieces: &Pieces) -> Option<ScheduleId> {
    let mut spans: Vec<(ScheduleId, u32)> = Vec::new();
    for (index, (start, row)) in pieces.iter().enumerate() {
        let end = pieces.get(index + 1).map_or(0x1_0000, |(next, _)| *next);
        match spans.iter_mut().find(|(known, _)| known == row) {
            Some((_, span)) => *span += end - start,
            None => spans.push((*row, end - start)),
        }
    }
    spans
        .into_iter()
        .max_by_key(|(_, span)| *span)
        .map(|(row, _)| row)
}

struct Writer<'a> {
    table: TableId,
    direction: Direction,
    rows: &'a mut TableRows,
    schedules: &'a RefCell<Schedules>,
}

impl Writer<'_> {
    /// All outcomes of classes.
    fn whole(&mut self, classes: &[ClassId], own: &Outcomes) {
        self.put(classes, PolicyKey::ANY_PROTOCOL_BITS, 0, 0, own.elsewhere);
        for (number, pieces) in &own.named {
            self.protocol(classes, *number, pieces, own.elsewhere);
        }
    }

    /// Only the outcomes that differ from the any-class outcome.
    fn difference(&mut self, classes: &[ClassId], own: &Outcomes, any: &Outcomes) {
        if own.elsewhere != any.elsewhere {
            // A row for every protocol hides the any-class rows, so all outcomes are needed.
            return self.whole(classes, own);
        }
        for ((number, own), (_, any)) in own.named.iter().zip(&any.named) {
            self.differing(classes, *number, (own, any), 0, 0x1_0000);
        }
    }

    fn protocol(
        &mut self,
        classes: &[ClassId],
        number: u8,
        pieces: &Pieces,
        inherited: ScheduleId,
    ) {
        let Some(base) = most_common(pieces) else {
            return;
        };
        if base != inherited {
            self.put(classes, PolicyKey::PROTOCOL_BITS, number, 0, base);
        }
        self.unlike(classes, number, pieces, base, (0, 0x1_0000));
    }

    fn unlike(
        &mut self,
        classes: &[ClassId],
        number: u8,
        pieces: &Pieces,
        base: ScheduleId,
        (first, size): (u32, u32),
    ) {
        match constant(pieces, first, size) {
            Some(row) if row == base => {}
            Some(row) => self.block(classes, number, first, size, row),
            None => {
                let half = size / 2;
                self.unlike(classes, number, pieces, base, (first, half));
                self.unlike(classes, number, pieces, base, (first + half, half));
            }
        }
    }

    fn differing(
        &mut self,
        classes: &[ClassId],
        number: u8,
        (own, any): (&Pieces, &Pieces),
        first: u32,
        size: u32,
    ) {
        let ours = constant(own, first, size);
        if let Some(ours) = ours {
            let differs = constant(any, first, size) != Some(ours);
            if differs {
                self.block(classes, number, first, size, ours);
            }
            return;
        }
        let half = size / 2;
        self.differing(classes, number, (own, any), first, half);
        self.differing(classes, number, (own, any), first + half, half);
    }

    fn block(
        &mut self,
        classes: &[ClassId],
        number: u8,
        first: u32,
        size: u32,
        schedule: ScheduleId,
    ) {
        let bits = PolicyKey::FULL_BITS - size.trailing_zeros();
        self.put(classes, bits, number, first, schedule);
    }

    fn put(&mut self, classes: &[ClassId], bits: u32, number: u8, port: u32, schedule: ScheduleId) {
        for class in classes {
            let mut key = PolicyKey {
                table: self.table,
                class: *class,
                direction: self.direction as u8,
                protocol: number,
                port: Port::new(u16::try_from(port).unwrap_or(u16::MAX)),
            };
            for row in self.schedules.borrow().periods(schedule) {
                self.rows.insert((bits, key), row);
                key.direction += PolicyKey::PERIOD;
            }
        }
    }
}
