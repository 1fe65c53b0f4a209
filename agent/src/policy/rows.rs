//! From a table's specification to the rows of the `POLICY` map.
//!
//! Invariants: the any-class rows answer every question; a class has rows only where its outcome
//! differs; every row says what its class's outcome is at every point it covers, so that the
//! longest prefix is right whichever row it finds. A pure function of the specification and the
//! classes: the clock was read when the table was laid out.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashSet},
};

use ringfence_common::{
    ids::{ClassId, RuleSlot, TableId},
    mode::{Direction, Verdict},
    net::Port,
    packet::protocol,
    policy::PolicyKey,
};

use super::{
    numbers::Digest,
    outcome::{Decider, default_of, timeline},
    steps::{Course, Courses},
    table::{Edge, Fence, FenceRule, TableSpec},
};
use crate::plan::TableRows;

/// Protocols that an egress default allows; tunnels and raw protocols need a rule.
const PLAIN: [u8; 5] = [
    protocol::TCP,
    protocol::UDP,
    protocol::SCTP,
    protocol::ICMP,
    protocol::ICMPV6,
];

/// A class with the selectors that its identities match.
pub(crate) struct Class {
    pub(crate) id: ClassId,
    pub(crate) selectors: HashSet<Digest>,
}

/// The rows of one table for these classes.
pub(crate) fn rows(table: TableId, spec: &TableSpec, classes: &[Class]) -> TableRows {
    let mut rows = TableRows::new();
    let courses = RefCell::new(Courses::default());
    for direction in [Direction::Ingress, Direction::Egress] {
        let fence = spec.fence(direction);
        let protocols = protocols_of(fence, direction);
        let asked: HashSet<Digest> = fence
            .rules
            .iter()
            .filter_map(|rule| rule.peers.as_ref())
            .flatten()
            .map(|s| s.digest)
            .collect();
        let mut writer = Writer {
            table,
            direction,
            rows: &mut rows,
            courses: &courses,
        };
        let view = |sees: &dyn Fn(&FenceRule) -> bool| {
            View::of(fence, direction, spec.edge, &courses, sees)
        };
        let any = view(&|rule| rule.peers.is_none());
        writer.whole(ClassId::ANY, &any, &protocols);
        for class in classes {
            if class.selectors.is_disjoint(&asked) {
                continue;
            }
            let own = view(&|rule| {
                rule.peers
                    .as_ref()
                    .is_none_or(|peers| peers.iter().any(|s| class.selectors.contains(&s.digest)))
            });
            writer.difference(class.id, &own, &any, &protocols);
        }
    }
    rows
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
    protocols
}

/// A fence as one class of peers sees it.
struct View<'a> {
    rules: Vec<&'a FenceRule>,
    default: Decider,
    plain_only: bool,
    edge: Option<Edge>,
    courses: &'a RefCell<Courses>,
}

/// Outcomes over all ports of a protocol: each holds from its port to before the next one's.
type Pieces = Vec<(u32, Course)>;

impl<'a> View<'a> {
    fn of(
        fence: &'a Fence,
        direction: Direction,
        edge: Option<Edge>,
        courses: &'a RefCell<Courses>,
        sees: &dyn Fn(&FenceRule) -> bool,
    ) -> Self {
        Self {
            rules: fence.rules.iter().filter(|rule| sees(rule)).collect(),
            default: default_of(fence),
            plain_only: direction == Direction::Egress && !fence.isolated,
            edge,
            courses,
        }
    }

    fn default_for(&self, plain: bool) -> Decider {
        if self.plain_only && !plain {
            Decider::of(Verdict::Deny, RuleSlot::RAW_PROTOCOL)
        } else {
            self.default
        }
    }

    fn course(&self, plain: bool, matches: impl Fn(&FenceRule) -> bool) -> Course {
        let matching: Vec<&FenceRule> = self
            .rules
            .iter()
            .copied()
            .filter(|rule| matches(rule))
            .collect();
        let timeline = timeline(&matching, self.default_for(plain), self.edge);
        self.courses.borrow_mut().of(timeline)
    }

    /// The outcome of a protocol that no rule names.
    fn elsewhere(&self) -> Course {
        self.course(false, |rule| rule.ports.is_none())
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
        starts.remove(&0x1_0000);
        let mut pieces: Pieces = Vec::with_capacity(starts.len());
        for start in starts {
            let row = self.course(PLAIN.contains(&number), |rule| covers(rule, number, start));
            if pieces.last().is_none_or(|(_, last)| *last != row) {
                pieces.push((start, row));
            }
        }
        pieces
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
fn at(pieces: &Pieces, port: u32) -> Option<Course> {
    let after = pieces.partition_point(|(start, _)| *start <= port);
    pieces.get(after.checked_sub(1)?).map(|(_, row)| *row)
}

/// The one outcome of a block of ports, if it has only one.
fn constant(pieces: &Pieces, first: u32, size: u32) -> Option<Course> {
    let next = pieces.partition_point(|(start, _)| *start <= first);
    let ends_inside = pieces
        .get(next)
        .is_some_and(|(start, _)| *start < first + size);
    if ends_inside { None } else { at(pieces, first) }
}

/// The outcome that most ports have.
fn commonest(pieces: &Pieces) -> Option<Course> {
    let mut spans: Vec<(Course, u32)> = Vec::new();
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
    courses: &'a RefCell<Courses>,
}

impl Writer<'_> {
    /// Every outcome of a class.
    fn whole(&mut self, class: ClassId, view: &View, protocols: &BTreeSet<u8>) {
        let elsewhere = view.elsewhere();
        self.put(class, PolicyKey::ANY_PROTOCOL_BITS, 0, 0, elsewhere);
        for number in protocols {
            self.protocol(class, *number, &view.pieces(*number), elsewhere);
        }
    }

    /// Only the outcomes in which a class differs from any class.
    fn difference(&mut self, class: ClassId, own: &View, any: &View, protocols: &BTreeSet<u8>) {
        if own.elsewhere() != any.elsewhere() {
            // A row for every protocol hides the any-class rows, so all has to be said again.
            return self.whole(class, own, protocols);
        }
        for number in protocols {
            let (own, any) = (own.pieces(*number), any.pieces(*number));
            self.differing(class, *number, (&own, &any), 0, 0x1_0000);
        }
    }

    fn protocol(&mut self, class: ClassId, number: u8, pieces: &Pieces, inherited: Course) {
        let Some(base) = commonest(pieces) else {
            return;
        };
        if base != inherited {
            self.put(class, PolicyKey::PROTOCOL_BITS, number, 0, base);
        }
        self.unlike(class, number, pieces, base, (0, 0x1_0000));
    }

    fn unlike(
        &mut self,
        class: ClassId,
        number: u8,
        pieces: &Pieces,
        base: Course,
        (first, size): (u32, u32),
    ) {
        match constant(pieces, first, size) {
            Some(row) if row == base => {}
            Some(row) => self.block(class, number, first, size, row),
            None => {
                let half = size / 2;
                self.unlike(class, number, pieces, base, (first, half));
                self.unlike(class, number, pieces, base, (first + half, half));
            }
        }
    }

    fn differing(
        &mut self,
        class: ClassId,
        number: u8,
        (own, any): (&Pieces, &Pieces),
        first: u32,
        size: u32,
    ) {
        let ours = constant(own, first, size);
        if let Some(ours) = ours {
            if constant(any, first, size) != Some(ours) {
                self.block(class, number, first, size, ours);
            }
            return;
        }
        let half = size / 2;
        self.differing(class, number, (own, any), first, half);
        self.differing(class, number, (own, any), first + half, half);
    }

    fn block(&mut self, class: ClassId, number: u8, first: u32, size: u32, course: Course) {
        let bits = PolicyKey::FULL_BITS - size.trailing_zeros();
        self.put(class, bits, number, first, course);
    }

    fn put(&mut self, class: ClassId, bits: u32, number: u8, port: u32, course: Course) {
        let mut key = PolicyKey {
            table: self.table,
            class,
            direction: self.direction as u8,
            protocol: number,
            port: Port::new(u16::try_from(port).unwrap_or(u16::MAX)),
        };
        for row in self.courses.borrow().steps(course) {
            self.rows.insert((bits, key), row);
            key.direction += PolicyKey::STEP;
        }
    }
}
