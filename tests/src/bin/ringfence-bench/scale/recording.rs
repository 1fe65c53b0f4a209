//! A datapath that takes every write and keeps none: what a pass costs without the kernel.

use std::collections::{BTreeSet, HashSet};

use ringfence::datapath::{
    AttachKind, Clocks, Datapath, DatapathError, HeldNumbers, HeldWalk, Look, Refused,
};
use ringfence::plan::{Action, Capacities, State};
use ringfence_common::SECOND;
use ringfence_common::ids::RuleSlot;

/// Counts writes.
#[derive(Default)]
pub(super) struct Recording {
    pub(super) writes: usize,
    /// Nanoseconds that have passed.
    pub(super) elapsed: u64,
    attached: BTreeSet<u32>,
    table_mark: Option<u32>,
}

impl Datapath for Recording {
    fn capacities(&self) -> Capacities {
        Capacities {
            ipcache: 1 << 20,
            ..Capacities::default()
        }
    }

    fn read(&mut self) -> Result<State, DatapathError> {
        Ok(State::default())
    }

    fn write(&mut self, _: &Action) -> Result<(), DatapathError> {
        self.writes += 1;
        Ok(())
    }

    fn write_all(&mut self, actions: &[Action]) -> Result<(), Refused> {
        self.writes += actions.len();
        Ok(())
    }

    fn attached(&self) -> BTreeSet<u32> {
        self.attached.clone()
    }

    fn attach(&mut self, ifindex: u32, _: &str) -> Result<AttachKind, DatapathError> {
        self.attached.insert(ifindex);
        Ok(AttachKind::Tcx)
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        self.attached.remove(&ifindex);
        Ok(())
    }

    fn look(&mut self) -> Result<Look, DatapathError> {
        Ok(Box::new(Default::default))
    }

    fn holds(&mut self, _: &Action) -> Result<bool, DatapathError> {
        Ok(true)
    }

    fn next_entries(&mut self, _: usize) -> Vec<Action> {
        Vec::new()
    }

    fn clocks(&mut self) -> Result<Clocks, DatapathError> {
        Ok(Clocks {
            boot: 5_000 * SECOND + self.elapsed,
            ticks: 5_000 * SECOND,
        })
    }

    fn held_numbers(&mut self) -> HeldWalk {
        Box::new(|| Ok(HeldNumbers::default()))
    }

    fn clear_rules(&mut self, _: &HashSet<RuleSlot>) -> Result<(), DatapathError> {
        Ok(())
    }

    fn table_mark(&mut self) -> Result<Option<u32>, DatapathError> {
        Ok(self.table_mark)
    }

    fn set_table_mark(&mut self, mark: u32) -> Result<(), DatapathError> {
        self.table_mark = Some(mark);
        Ok(())
    }
}
