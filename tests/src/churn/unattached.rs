//! The datapath in the kernel, except that nothing is attached to interfaces.
//!
//! Attaching waits for an RCU grace period, and a million workloads come and go here. Frames are
//! run through the programs instead; everything else is the kernel's.

use std::collections::{BTreeSet, HashSet};

use ringfence::datapath::{
    AttachKind, Clocks, Datapath, DatapathError, HeldWalk, KernelDatapath, Look, Refused,
};
use ringfence::plan::{Action, Capacities, State};
use ringfence_common::ids::RuleSlot;

pub(super) struct Unattached {
    pub(super) kernel: KernelDatapath,
    attached: BTreeSet<u32>,
}

impl Unattached {
    pub(super) const fn new(kernel: KernelDatapath) -> Self {
        Self {
            kernel,
            attached: BTreeSet::new(),
        }
    }
}

impl Datapath for Unattached {
    fn capacities(&self) -> Capacities {
        self.kernel.capacities()
    }

    fn read(&mut self) -> Result<State, DatapathError> {
        self.kernel.read()
    }

    fn write(&mut self, action: &Action) -> Result<(), DatapathError> {
        self.kernel.write(action)
    }

    fn write_all(&mut self, actions: &[Action]) -> Result<(), Refused> {
        self.kernel.write_all(actions)
    }

    fn attached(&self) -> BTreeSet<u32> {
        self.attached.clone()
    }

    fn attach(&mut self, ifindex: u32, _interface: &str) -> Result<AttachKind, DatapathError> {
        self.attached.insert(ifindex);
        Ok(self.kernel.attach_kind())
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        self.attached.remove(&ifindex);
        Ok(())
    }

    fn look(&mut self) -> Result<Look, DatapathError> {
        self.kernel.look()
    }

    fn holds(&mut self, write: &Action) -> Result<bool, DatapathError> {
        self.kernel.holds(write)
    }

    fn next_entries(&mut self, most: usize) -> Vec<Action> {
        self.kernel.next_entries(most)
    }

    fn clocks(&mut self) -> Result<Clocks, DatapathError> {
        self.kernel.clocks()
    }

    fn held_numbers(&mut self) -> HeldWalk {
        self.kernel.held_numbers()
    }

    fn clear_rules(&mut self, rules: &HashSet<RuleSlot>) -> Result<(), DatapathError> {
        self.kernel.clear_rules(rules)
    }

    fn table_mark(&mut self) -> Result<Option<u32>, DatapathError> {
        self.kernel.table_mark()
    }

    fn set_table_mark(&mut self, mark: u32) -> Result<(), DatapathError> {
        self.kernel.set_table_mark(mark)
    }
}
