//! The `POLICY` map and the order of its lookups.
//!
//! Invariants: a row of the peer's class takes precedence over an any-class row, whatever their
//! prefixes. Within a class the longest prefix wins. A missing row is an error, never an allow.
//! Rules are compiled into rows by the agent.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    drop_reason::DropReason,
    ids::{ClassId, RuleSlot, TableId},
    layout::shared_layout,
    mode::{Direction, Verdict},
    net::Port,
};

/// LPM key data, 12 bytes after the prefix length.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PolicyKey {
    /// The endpoint's table.
    pub table: TableId,
    /// The peer's class, or [`ClassId::ANY`].
    pub class: ClassId,
    /// A [`Direction`]; rows of a later period have [`PolicyKey::PERIOD`] added for each period.
    pub direction: u8,
    /// IP protocol number, ignored by rows of [`PolicyKey::ANY_PROTOCOL_BITS`].
    pub protocol: u8,
    /// Destination port of the flow's original direction; [`Port::NONE`] without ports.
    pub port: Port,
}
shared_layout!(
    PolicyKey, size 12, table at 0, class at 4, direction at 8, protocol at 9, port at 10,
);

impl PolicyKey {
    /// Prefix length of a row for every protocol.
    pub const ANY_PROTOCOL_BITS: u32 = 72;
    /// Prefix length of a row for every port of one protocol.
    pub const PROTOCOL_BITS: u32 = 80;
    /// Prefix length of a row for one port, and of every lookup.
    pub const FULL_BITS: u32 = 96;
    /// Added to the direction for each period after the first.
    pub const PERIOD: u8 = 4;

    /// The key as words in memory order: table, class, and the rest.
    #[must_use]
    #[inline(always)]
    pub fn words(&self) -> [u32; 3] {
        zerocopy::transmute!(*self)
    }
}

/// No end: the row is valid until it is replaced.
pub const FOREVER: u64 = u64::MAX;

/// LPM value, 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PolicyRow {
    /// Boot-clock time at which the second verdict takes effect, or [`FOREVER`].
    pub valid_until: u64,
    /// The rule that decides until then.
    pub rule: RuleSlot,
    /// The rule that decides afterwards.
    pub then_rule: RuleSlot,
    /// A [`Verdict`].
    pub verdict: u8,
    /// The [`Verdict`] afterwards.
    pub then_verdict: u8,
    /// Bits of [`row`].
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 5],
}
shared_layout!(
    PolicyRow, size 24, valid_until at 0, rule at 8, then_rule at 12, verdict at 16,
    then_verdict at 17, flags at 18,
);

/// Bits of [`PolicyRow::flags`].
pub mod row {
    /// The rule rejects.
    pub const REJECT: u8 = 1;
    /// The second rule rejects.
    pub const THEN_REJECT: u8 = 2;
    /// The second verdict does not last: afterwards the row of the next period decides.
    pub const NEXT_PERIOD: u8 = 4;
}

/// How many rows of a schedule [`decide`] follows. Each period adds a change; after the last one
/// nothing is allowed.
pub const MAX_PERIODS: u8 = 8;

impl PolicyRow {
    /// A row that is valid until it is replaced.
    #[must_use]
    pub const fn lasting(verdict: Verdict, rule: RuleSlot) -> Self {
        Self {
            valid_until: FOREVER,
            rule,
            then_rule: rule,
            verdict: verdict as u8,
            then_verdict: verdict as u8,
            flags: 0,
            reserved: [0; 5],
        }
    }

    /// A row whose verdict changes at a boot-clock time.
    #[must_use]
    pub const fn until(
        (verdict, rule): (Verdict, RuleSlot),
        valid_until: u64,
        (then_verdict, then_rule): (Verdict, RuleSlot),
    ) -> Self {
        Self {
            valid_until,
            rule,
            then_rule,
            verdict: verdict as u8,
            then_verdict: then_verdict as u8,
            flags: 0,
            reserved: [0; 5],
        }
    }

    /// Returns the row with additional [`row`] flags.
    #[must_use]
    pub const fn with(mut self, flags: u8) -> Self {
        self.flags |= flags;
        self
    }

    /// The decision at a boot-clock time; the clock is read only if the row has an end. None if the
    /// row of a later period decides.
    #[must_use]
    #[inline(always)]
    pub fn at(&self, now: impl FnOnce() -> u64) -> Option<Decision> {
        if self.valid_until == FOREVER || now() < self.valid_until {
            return Some(Decision {
                verdict: Verdict::from_raw(self.verdict),
                rule: self.rule,
                recheck: self.valid_until,
                reject: self.flags & row::REJECT != 0,
            });
        }
        if self.flags & row::NEXT_PERIOD != 0 {
            return None;
        }
        Some(Decision {
            verdict: Verdict::from_raw(self.then_verdict),
            rule: self.then_rule,
            recheck: FOREVER,
            reject: self.flags & row::THEN_REJECT != 0,
        })
    }
}

/// Longest-prefix lookup, over the kernel's map in the programs and over a host map in the agent.
pub trait PolicyTable {
    /// The row with the longest prefix of `key`, which has [`PolicyKey::FULL_BITS`] bits.
    fn row(&self, key: &PolicyKey) -> Option<PolicyRow>;
}

/// One lookup in a policy table.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The endpoint's table.
    pub table: TableId,
    /// The peer's class.
    pub class: ClassId,
    /// Direction of the flow's first packet, seen from the workload.
    pub direction: Direction,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port of the flow's first packet.
    pub port: Port,
}

impl Query {
    /// The key of the first period and of the peer's own class.
    #[must_use]
    #[inline(always)]
    pub const fn key(&self) -> PolicyKey {
        PolicyKey {
            table: self.table,
            class: self.class,
            direction: self.direction as u8,
            protocol: self.protocol,
            port: self.port,
        }
    }
}

/// The result of a lookup: the verdict, the rule that made it, and when to look up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// The rule, or default, that decided.
    pub rule: RuleSlot,
    /// Boot-clock time from which the decision is stale.
    pub recheck: u64,
    /// True if the rule rejects.
    pub reject: bool,
}

impl Decision {
    /// A decision that is valid until the policy table changes.
    #[must_use]
    #[inline(always)]
    pub const fn lasting(verdict: Verdict, rule: RuleSlot) -> Self {
        Self {
            verdict,
            rule,
            recheck: FOREVER,
            reject: false,
        }
    }
}

/// Looks up the class's rows first, then the any-class rows.
///
/// # Errors
/// [`DropReason::NoPolicyRow`] if neither has a row: the table does not exist (yet). Also if the
/// row of a later period is missing or lies beyond [`MAX_PERIODS`].
pub fn decide(table: &impl PolicyTable, query: &Query, now: u64) -> Result<Decision, DropReason> {
    let mut key = query.key();
    let decision = match lookup_current(table, &mut key, || now)? {
        Some(decision) => Some(decision),
        None => lookup_later(table, &mut key, now),
    };
    decision.ok_or(DropReason::NoPolicyRow)
}

/// The first part of [`decide`]: the row of the first period. Stores the class of the row in `key`.
/// If the result is `None`, [`lookup_later`] continues. Two parts, because the stack of the kernel
/// programs does not hold both.
///
/// # Errors
/// As for [`decide`].
#[inline(always)]
pub fn lookup_current(
    table: &impl PolicyTable,
    key: &mut PolicyKey,
    now: impl FnOnce() -> u64,
) -> Result<Option<Decision>, DropReason> {
    if let Some(row) = table.row(key) {
        return Ok(row.at(now));
    }
    key.class = ClassId::ANY;
    table
        .row(key)
        .map(|row| row.at(now))
        .ok_or(DropReason::NoPolicyRow)
}

/// The second part: follows the schedule from the row that [`lookup_current`] found. Every row of a
/// later period has a row of the period before under the same prefix, so the longest prefix of each
/// period is the same. None if a row is missing or lies beyond [`MAX_PERIODS`].
#[inline(always)]
pub fn lookup_later(table: &impl PolicyTable, key: &mut PolicyKey, now: u64) -> Option<Decision> {
    for _ in 1..MAX_PERIODS {
        key.direction += PolicyKey::PERIOD;
        if let Some(decision) = table.row(key)?.at(|| now) {
            return Some(decision);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rows(Vec<(u32, PolicyKey, PolicyRow)>);

    impl PolicyTable for Rows {
        fn row(&self, key: &PolicyKey) -> Option<PolicyRow> {
            let bits = |k: &PolicyKey, len: u32| {
                let mut bytes = [0u8; 16];
                bytes[..12].copy_from_slice(k.as_bytes());
                u128::from_be_bytes(bytes) >> (128 - len)
            };
            self.0
                .iter()
                .filter(|(len, k, _)| bits(k, *len) == bits(key, *len))
                .max_by_key(|(len, ..)| *len)
                .map(|(.., row)| *row)
        }
    }

    fn key(class: u32, protocol: u8, port: u16) -> PolicyKey {
        PolicyKey {
            table: TableId(7),
            class: ClassId(class),
            direction: Direction::Ingress as u8,
            protocol,
            port: Port::new(port),
        }
    }

    fn ask(rows: &Rows, class: u32, protocol: u8, port: u16, now: u64) -> Option<Decision> {
        let query = Query {
            table: TableId(7),
            class: ClassId(class),
            direction: Direction::Ingress,
            protocol,
            port: Port::new(port),
        };
        decide(rows, &query, now).ok()
    }

    #[test]
    fn a_row_of_the_class_precedes_a_longer_any_class_row() {
        let rows = Rows(vec![
            (
                PolicyKey::FULL_BITS,
                key(0, 6, 80),
                PolicyRow::lasting(Verdict::Deny, RuleSlot(20)),
            ),
            (
                PolicyKey::ANY_PROTOCOL_BITS,
                key(3, 0, 0),
                PolicyRow::lasting(Verdict::Allow, RuleSlot(21)),
            ),
        ]);
        assert_eq!(ask(&rows, 3, 6, 80, 0).map(|d| d.rule), Some(RuleSlot(21)));
        assert_eq!(ask(&rows, 4, 6, 80, 0).map(|d| d.rule), Some(RuleSlot(20)));
        assert_eq!(
            ask(&rows, 4, 6, 81, 0),
            None,
            "without a row there is no decision"
        );
    }

    #[test]
    fn a_row_changes_its_verdict_on_time() {
        let row = PolicyRow::until(
            (Verdict::Allow, RuleSlot(20)),
            1000,
            (Verdict::Deny, RuleSlot::DEFAULT_DENY),
        );
        let rows = Rows(vec![(PolicyKey::PROTOCOL_BITS, key(0, 6, 0), row)]);
        let before = ask(&rows, 1, 6, 443, 999).unwrap();
        assert_eq!((before.verdict, before.recheck), (Verdict::Allow, 1000));
        let after = ask(&rows, 1, 6, 443, 1000).unwrap();
        assert_eq!((after.verdict, after.recheck), (Verdict::Deny, FOREVER));
    }

    #[test]
    fn rows_of_later_periods_are_followed_to_the_last_one() {
        let deny = (Verdict::Deny, RuleSlot::DEFAULT_DENY);
        let allow = (Verdict::Allow, RuleSlot(20));
        let later = PolicyKey {
            direction: Direction::Ingress as u8 + PolicyKey::PERIOD,
            ..key(0, 6, 0)
        };
        let first = PolicyRow::until(deny, 1000, allow).with(row::NEXT_PERIOD);
        let second = PolicyRow::until(allow, 2000, deny).with(row::THEN_REJECT);
        let mut rows = Rows(vec![(PolicyKey::PROTOCOL_BITS, key(0, 6, 0), first)]);
        assert_eq!(
            ask(&rows, 1, 6, 443, 1000),
            None,
            "the row of the period is missing"
        );
        rows.0.push((PolicyKey::PROTOCOL_BITS, later, second));
        let at = |now| ask(&rows, 1, 6, 443, now).map(|d| (d.verdict, d.recheck, d.reject));
        assert_eq!(at(999), Some((Verdict::Deny, 1000, false)));
        assert_eq!(at(1000), Some((Verdict::Allow, 2000, false)));
        assert_eq!(at(2000), Some((Verdict::Deny, FOREVER, true)));
    }
}
