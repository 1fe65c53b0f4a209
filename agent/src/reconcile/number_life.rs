//! The life of numbers: written down before use, retired when nothing refers to them, free again
//! when the kernel holds none of them.
//!
//! Invariants: a number is free only after no state and no record of the compiler referred to it
//! for [`QUARANTINE`], by observations at both ends, and after a walk of the kernel's maps that
//! began then and found no holder; a content that comes back meanwhile takes its number out of
//! quarantine. A slot of an array that is used again is written before anything refers to it,
//! because the actual state does not list free slots. What a failed pass does not need any more is
//! freed as well, so that the next one may succeed. The caller
//! drains the ring of flow events before a walk, and says which identities its flow history shows.

use std::collections::{BTreeMap, HashSet};

use ringfence_common::{
    SECOND,
    ids::{IdentityId, NamespaceSlot, RuleSlot},
};

use super::{ReconcileError, Reconciler, table_mark};
use crate::{
    datapath::{Datapath, HeldNumbers, HeldWalk},
    plan::State,
    policy::{Numbers, Space},
};

/// How long nothing must have referred to a number before it can be free. Packets in flight are
/// done within microseconds; the rest is a margin for a stalled machine.
pub const QUARANTINE: u64 = 2 * SECOND;
/// Least time between two walks of the kernel's maps, if the first could not free everything.
const WALK_INTERVAL: u64 = 30 * SECOND;

/// What the reconciler remembers about numbers, besides the numbers.
#[derive(Default)]
pub(super) struct NumberLife {
    /// The mark of table numbers in the ledger and in the kernel; `None` if they differ.
    pub(super) mark: Option<u32>,
    /// Whether the states have changed since numbers in use were last compared with those taken.
    pub(super) changed: bool,
    /// Boot-clock time before which the kernel's maps are not walked again.
    pub(super) next_walk: u64,
}

impl<D: Datapath> Reconciler<D> {
    /// Writes down the mark of table numbers and new allocations, before any of them is used.
    pub(super) fn write_down(&mut self) -> Result<(), ReconcileError> {
        let numbers = &mut self.compiler.numbers;
        if let Some(mark) = table_mark::to_write(self.life.mark, numbers.next_table()) {
            if self.life.mark.is_some() {
                self.ledger.mark_tables(mark)?;
            } else {
                let all: Vec<_> = numbers.all().collect();
                self.ledger.rewrite(&all, mark)?;
            }
            self.datapath.set_table_mark(mark)?;
            self.life.mark = Some(mark);
        }
        self.ledger.append(numbers.fresh())?;
        numbers.written();
        Ok(())
    }

    /// Retires numbers that nothing refers to, and frees those that no entry can hold. Returns the
    /// walk of the kernel's maps that the others need, if any is due. It costs as much as the state
    /// is large if that has changed; so it is not part of a pass.
    ///
    /// # Errors
    /// When the clock or the ledger fails; it can be repeated.
    pub fn start_freeing(&mut self) -> Result<Option<Walk>, ReconcileError> {
        if !self.life.changed && !self.compiler.numbers.has_retired() {
            return Ok(None);
        }
        let started = self.datapath.clocks()?.boot;
        if std::mem::take(&mut self.life.changed) {
            for space in Space::ALL {
                let mut in_use = self.compiler.numbers_in_use(space);
                in_use.extend(in_state(&self.actual, space));
                self.compiler.numbers.retire_unused(space, &in_use, started);
            }
        }
        let due = Due::of(&self.compiler.numbers, started);
        let needs_walk = due.needs_walk() && started >= self.life.next_walk;
        self.free(due.without_walk())?;
        Ok(needs_walk.then(|| Walk {
            started,
            run: self.datapath.held_numbers(),
        }))
    }

    /// Frees the numbers that were due when a walk started and that nothing holds. Returns how many.
    ///
    /// # Errors
    /// When the kernel or the ledger cannot be written; it can be repeated.
    pub fn finish_freeing(
        &mut self,
        started: u64,
        held: &HeldNumbers,
        in_history: &HashSet<IdentityId>,
    ) -> Result<usize, ReconcileError> {
        // Those that came back meanwhile are not due any more, even if they are retired again.
        let mut due = Due::of(&self.compiler.numbers, started);
        if due.keep_held(held, in_history) {
            self.life.next_walk = started.saturating_add(WALK_INTERVAL);
        }
        let slots: HashSet<_> = due.of_space(Space::Rule).map(RuleSlot).collect();
        self.datapath.clear_rules(&slots)?;
        self.free(due)
    }

    /// How many numbers of each space are taken, those waiting to be freed included.
    pub fn taken_numbers(&self) -> BTreeMap<Space, usize> {
        let mut taken = BTreeMap::new();
        for allocation in self.compiler.numbers.all() {
            *taken.entry(allocation.space).or_default() += 1;
        }
        taken
    }

    fn free(&mut self, due: Due) -> Result<usize, ReconcileError> {
        let mut freed = 0;
        for (space, numbers) in due.0 {
            freed += numbers.len();
            if space == Space::Namespace {
                for slot in &numbers {
                    self.actual.modes.remove(&NamespaceSlot(*slot));
                }
            }
            self.compiler.numbers.free(space, numbers);
        }
        self.compact_ledger()?;
        Ok(freed)
    }

    fn compact_ledger(&mut self) -> Result<(), ReconcileError> {
        let numbers = &mut self.compiler.numbers;
        if let Some(mark) = self.life.mark
            && self.ledger.is_mostly_old(numbers.count())
        {
            let all: Vec<_> = numbers.all().collect();
            self.ledger.rewrite(&all, mark)?;
            numbers.written();
        }
        Ok(())
    }
}

/// A walk of the kernel's maps, for any thread.
pub struct Walk {
    /// When it was due, on the boot clock.
    pub started: u64,
    /// Finds the numbers that the maps hold.
    pub run: HeldWalk,
}

/// Numbers that have been in quarantine long enough.
struct Due(Vec<(Space, HashSet<u32>)>);

impl Due {
    fn of(numbers: &Numbers, now: u64) -> Self {
        let Some(since) = now.checked_sub(QUARANTINE) else {
            return Self(Vec::new());
        };
        let due = |space| (space, numbers.retired_since(space, since));
        Self(Space::ALL.map(due).into())
    }

    fn of_space(&self, wanted: Space) -> impl Iterator<Item = u32> {
        let of_space = self.0.iter().filter(move |(space, _)| *space == wanted);
        of_space.flat_map(|(_, numbers)| numbers).copied()
    }

    /// Whether entries of conntrack can hold any of them.
    fn needs_walk(&self) -> bool {
        let mut all = self.0.iter();
        all.any(|(space, numbers)| is_held_by_entries(*space) && !numbers.is_empty())
    }

    fn without_walk(mut self) -> Self {
        self.0.retain(|(space, _)| !is_held_by_entries(*space));
        self
    }

    /// Leaves out numbers with a holder; returns whether there are any.
    fn keep_held(&mut self, held: &HeldNumbers, in_history: &HashSet<IdentityId>) -> bool {
        let mut any = false;
        for (space, numbers) in &mut self.0 {
            let before = numbers.len();
            numbers.retain(|number| match space {
                Space::Identity => {
                    let identity = IdentityId(*number);
                    !held.identities.contains(&identity) && !in_history.contains(&identity)
                }
                // Deny aggregates are removed with their rule: they would never end.
                Space::Rule => !held.rules.contains(&RuleSlot(*number)),
                Space::Class | Space::Table | Space::Namespace => true,
            });
            any |= numbers.len() < before;
        }
        any
    }
}

const fn is_held_by_entries(space: Space) -> bool {
    matches!(space, Space::Identity | Space::Rule)
}

/// Reserves the numbers that conntrack and deny aggregates hold, when the ledger does not know of
/// them.
pub(super) fn reserve_held(numbers: &mut Numbers, held: &HeldNumbers) {
    let rules = held.rules.union(&held.denying).map(|slot| slot.0);
    numbers.reserve(Space::Rule, rules);
    numbers.reserve(Space::Identity, held.identities.iter().map(|id| id.0));
}

/// Reserves numbers that the kernel's maps use: they may be missing in the ledger.
pub(super) fn reserve_used(numbers: &mut Numbers, actual: &State) {
    for space in Space::ALL {
        numbers.reserve(space, in_state(actual, space));
    }
}

/// The numbers of a space that a state uses in any map: rows remain for a grace period after the
/// classes and rules that they refer to.
fn in_state(state: &State, space: Space) -> Vec<u32> {
    let rows = || state.tables.values().flat_map(|rows| rows.iter());
    let endpoints = state.endpoints.values();
    match space {
        Space::Identity => {
            let used = state.addresses.values().chain(state.prefixes.values());
            let own = endpoints.map(|endpoint| endpoint.identity);
            let used = used.chain(state.classes.keys()).copied().chain(own);
            used.map(|id| id.0).collect()
        }
        Space::Class => {
            let classes = state.classes.values().map(|id| id.0);
            classes
                .chain(rows().map(|((_, key), _)| key.class.0))
                .collect()
        }
        Space::Table => {
            let in_force = endpoints.map(|endpoint| endpoint.table);
            let used = state.tables.keys().copied().chain(in_force);
            used.map(|id| id.0).collect()
        }
        Space::Rule => rows()
            .flat_map(|(_, row)| [row.rule.0, row.then_rule.0])
            .collect(),
        // A mode that no endpoint refers to is of no effect, so its slot is not in use.
        Space::Namespace => endpoints.map(|endpoint| endpoint.namespace().0).collect(),
    }
}
