//! The verdicts of a policy table for one peer class, at every port.
//!
//! Invariants: read from the compiled rows by the same lookup as the kernel's, at every port where
//! a row begins or ends. The ranges of a protocol cover all of its ports, in order, and adjacent
//! ranges differ. Protocols without rows of their own share one verdict.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    rc::Rc,
};

use ringfence_common::{
    ids::{ClassId, RuleSlot, TableId},
    mode::{Direction, Verdict},
    net::Port,
    policy::{self, PolicyKey},
};

use super::host_table::HostTable;
use crate::plan::State;

/// What decided a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum DecidedBy {
    /// A rule or a default.
    Rule(RuleSlot),
    /// Nothing: that end is not a workload.
    NotAWorkload,
}

/// A verdict and what decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DecidedVerdict {
    pub(crate) verdict: Verdict,
    pub(crate) by: DecidedBy,
}

/// Ports `first` to `last`, both included, and their verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PortVerdict {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) decided: DecidedVerdict,
}

/// All verdicts of a table for a class in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PortVerdicts {
    pub(crate) protocols: BTreeMap<u8, Vec<PortVerdict>>,
    /// Every other protocol.
    pub(crate) elsewhere: DecidedVerdict,
}

impl PortVerdicts {
    /// One verdict for everything.
    pub(crate) const fn all(decided: DecidedVerdict) -> Self {
        Self {
            protocols: BTreeMap::new(),
            elsewhere: decided,
        }
    }

    fn at(&self, protocol: Option<u8>, port: u16) -> DecidedVerdict {
        let spans = protocol.and_then(|number| self.protocols.get(&number));
        spans
            .and_then(|spans| spans.iter().find(|span| port <= span.last))
            .map_or(self.elsewhere, |span| span.decided)
    }

    /// True if nothing is allowed on any port.
    pub(crate) fn denies_everything(&self) -> bool {
        let mut named = self.protocols.values().flatten().map(|span| span.decided);
        self.elsewhere.verdict == Verdict::Deny
            && named.all(|decided| decided.verdict == Verdict::Deny)
    }

    /// The verdicts alone, in a form that is equal for equal verdicts.
    pub(crate) fn verdicts(&self) -> Verdicts {
        let mut protocols = BTreeMap::new();
        for (number, spans) in &self.protocols {
            let mut pieces: Vec<(u16, Verdict)> = Vec::new();
            for span in spans {
                if pieces
                    .last()
                    .is_none_or(|(_, last)| *last != span.decided.verdict)
                {
                    pieces.push((span.first, span.decided.verdict));
                }
            }
            if !matches!(pieces.as_slice(), [(_, only)] if *only == self.elsewhere.verdict) {
                protocols.insert(*number, pieces);
            }
        }
        Verdicts {
            protocols,
            elsewhere: self.elsewhere.verdict,
        }
    }
}

/// Verdicts at every port, without what decided them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Verdicts {
    protocols: BTreeMap<u8, Vec<(u16, Verdict)>>,
    elsewhere: Verdict,
}

/// A port range in which each of several tables has one verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedRange<const N: usize> {
    /// `None` for every protocol without ranges of its own.
    pub(crate) protocol: Option<u8>,
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) decided: [DecidedVerdict; N],
}

/// Intersects the ranges of several tables: protocols with ranges in order, then all others.
pub(crate) fn overlay<const N: usize>(layers: [&PortVerdicts; N]) -> Vec<SharedRange<N>> {
    let protocols: BTreeSet<u8> = layers
        .iter()
        .flat_map(|spans| spans.protocols.keys().copied())
        .collect();
    let mut stretches = Vec::new();
    for protocol in protocols.into_iter().map(Some).chain([None]) {
        let named = |spans: &&PortVerdicts| protocol.and_then(|p| spans.protocols.get(&p).cloned());
        let mut starts: BTreeSet<u16> = layers
            .iter()
            .filter_map(named)
            .flatten()
            .map(|span| span.first)
            .collect();
        starts.insert(0);
        let starts: Vec<u16> = starts.into_iter().collect();
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
        for (first, last) in starts.iter().copied().zip(ends) {
            stretches.push(SharedRange {
                protocol,
                first,
                last,
                decided: layers.map(|spans| spans.at(protocol, first)),
            });
        }
    }
    stretches
}

type Asked = (TableId, ClassId, Direction);

/// First and last ports of the rows of a class, by protocol.
type RowBounds = BTreeMap<u8, BTreeSet<u32>>;

/// Reads verdicts from compiled rows, each only once.
pub(crate) struct VerdictReader<'a> {
    rows: &'a HostTable,
    now: u64,
    marks: HashMap<Asked, RowBounds>,
    own: HashMap<(TableId, Direction), Vec<ClassId>>,
    read: HashMap<Asked, Rc<PortVerdicts>>,
    /// Equal verdicts are stored once, so that their addresses identify them.
    distinct: HashSet<Rc<PortVerdicts>>,
}

impl<'a> VerdictReader<'a> {
    /// A reader of the rows of a state, at a boot-clock time.
    pub(crate) fn new(state: &State, rows: &'a HostTable, now: u64) -> Self {
        let mut marks: HashMap<Asked, RowBounds> = HashMap::new();
        for (bits, key) in state.tables.values().flat_map(|rows| rows.keys()) {
            let Some(direction) = Direction::from_raw(key.direction % PolicyKey::PERIOD) else {
                continue;
            };
            let own = marks.entry((key.table, key.class, direction)).or_default();
            if let Some(free) = PolicyKey::FULL_BITS.checked_sub(*bits)
                && *bits >= PolicyKey::PROTOCOL_BITS
            {
                let first = u32::from(key.port.number());
                own.entry(key.protocol)
                    .or_default()
                    .extend([first, first + (1 << free)]);
            }
        }
        let mut own: HashMap<(TableId, Direction), Vec<ClassId>> = HashMap::new();
        for (table, class, direction) in marks.keys() {
            own.entry((*table, *direction)).or_default().push(*class);
        }
        Self {
            rows,
            now,
            marks,
            own,
            read: HashMap::new(),
            distinct: HashSet::new(),
        }
    }

    /// The classes for which a table has other verdicts than the any-class ones.
    pub(crate) fn classes_with_rows(&self, table: TableId, direction: Direction) -> &[ClassId] {
        let own = self.own.get(&(table, direction));
        own.map_or(&[][..], Vec::as_slice)
    }

    /// The verdicts of a table for a class in a direction.
    pub(crate) fn spans(
        &mut self,
        table: TableId,
        class: ClassId,
        direction: Direction,
    ) -> Rc<PortVerdicts> {
        let own = self.marks.contains_key(&(table, class, direction));
        let class = if own { class } else { ClassId::ANY };
        let asked = (table, class, direction);
        if let Some(known) = self.read.get(&asked) {
            return Rc::clone(known);
        }
        let read = self.look(asked);
        let spans = match self.distinct.get(&read) {
            Some(known) => Rc::clone(known),
            None => {
                let new = Rc::new(read);
                self.distinct.insert(Rc::clone(&new));
                new
            }
        };
        self.read.insert(asked, Rc::clone(&spans));
        spans
    }

    fn look(&self, (table, class, direction): Asked) -> PortVerdicts {
        let mut marks = RowBounds::new();
        for class in [class, ClassId::ANY] {
            for (number, own) in self
                .marks
                .get(&(table, class, direction))
                .into_iter()
                .flatten()
            {
                marks.entry(*number).or_default().extend(own);
            }
        }
        let unnamed = (0..=u8::MAX)
            .rev()
            .find(|number| !marks.contains_key(number));
        let ask = |protocol, port: u32| {
            let port = Port::new(u16::try_from(port).unwrap_or(u16::MAX));
            let query = policy::Query {
                table,
                class,
                direction,
                protocol,
                port,
            };
            self.ask(&query)
        };
        let mut protocols = BTreeMap::new();
        for (number, mut starts) in marks {
            starts.insert(0);
            starts.remove(&0x1_0000);
            let mut spans: Vec<PortVerdict> = Vec::new();
            for start in starts {
                let decided = ask(number, start);
                let first = u16::try_from(start).unwrap_or(u16::MAX);
                match spans.last_mut() {
                    Some(last) if last.decided == decided => continue,
                    Some(last) => last.last = first.saturating_sub(1),
                    None => {}
                }
                spans.push(PortVerdict {
                    first,
                    last: u16::MAX,
                    decided,
                });
            }
            protocols.insert(number, spans);
        }
        PortVerdicts {
            protocols,
            elsewhere: ask(unnamed.unwrap_or(u8::MAX), 0),
        }
    }

    fn ask(&self, query: &policy::Query) -> DecidedVerdict {
        let decision = policy::decide(self.rows, query, self.now);
        decision.map_or(
            DecidedVerdict {
                verdict: Verdict::Deny,
                by: DecidedBy::Rule(RuleSlot::NONE),
            },
            |decision| DecidedVerdict {
                verdict: decision.verdict,
                by: DecidedBy::Rule(decision.rule),
            },
        )
    }
}
