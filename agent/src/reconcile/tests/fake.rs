//! An in-memory kernel that fails on demand.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashSet},
    rc::Rc,
};

use ringfence_common::{SECOND, ids::RuleSlot};

use crate::{
    datapath::{
        AttachKind, Clocks, Datapath, DatapathError, HeldNumbers, HeldWalk, Look, Standing,
    },
    plan::{Action, Capacities, Row, State},
};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Call {
    Write(Action),
    Mark(u32),
    Walk,
    ClearRule(RuleSlot),
    Attach(u32),
    Detach(u32),
}

#[derive(Default)]
pub(super) struct Kernel {
    pub(super) state: State,
    pub(super) attached: BTreeSet<u32>,
    /// Those of them that were attached at once.
    pub(super) at_once: Vec<u32>,
    pub(super) calls: Vec<Call>,
    /// Writes that succeed before one fails; `None` for no failure.
    pub(super) writes_left: Option<usize>,
    pub(super) capacities: Option<Capacities>,
    /// An interface to which nothing can be attached.
    pub(super) unattachable: Option<u32>,
    /// An interface that is gone when it is to be attached to.
    pub(super) gone: Option<u32>,
    /// An interface whose endpoint cannot be written.
    pub(super) unwritable: Option<u32>,
    /// Nanoseconds that have passed.
    pub(super) elapsed: u64,
    /// The mark of table numbers.
    pub(super) table_mark: Option<u32>,
    /// What conntrack and deny aggregates hold.
    pub(super) held: HeldNumbers,
    /// Fences that are not as they were attached.
    pub(super) standings: BTreeMap<u32, Standing>,
}

#[derive(Clone, Default)]
pub(super) struct Fake(pub(super) Rc<RefCell<Kernel>>);

impl Datapath for Fake {
    fn capacities(&self) -> Capacities {
        self.0.borrow().capacities.unwrap_or_default()
    }
    fn read(&mut self) -> Result<State, DatapathError> {
        Ok(self.0.borrow().state.clone())
    }
    fn write(&mut self, action: &Action) -> Result<(), DatapathError> {
        let mut kernel = self.0.borrow_mut();
        let refused = || DatapathError::Map {
            map: "POLICY",
            operation: "write",
            reason: "injected".to_owned(),
        };
        if let Some(left) = &mut kernel.writes_left {
            if *left == 0 {
                kernel.writes_left = None;
                return Err(refused());
            }
            *left -= 1;
        }
        if let Action::PutEndpoint(ifindex, _) = action
            && kernel.unwritable == Some(*ifindex)
        {
            return Err(refused());
        }
        kernel.state.record(action);
        kernel.calls.push(Call::Write(*action));
        Ok(())
    }
    fn attached(&self) -> BTreeSet<u32> {
        self.0.borrow().attached.clone()
    }
    fn attach(&mut self, ifindex: u32, interface: &str) -> Result<AttachKind, DatapathError> {
        let mut kernel = self.0.borrow_mut();
        if kernel.gone == Some(ifindex) {
            return Err(DatapathError::Gone {
                interface: interface.to_owned(),
                ifindex,
            });
        }
        if kernel.unattachable == Some(ifindex) {
            return Err(DatapathError::Map {
                map: "links",
                operation: "attach",
                reason: "injected".to_owned(),
            });
        }
        kernel.attached.insert(ifindex);
        kernel.standings.remove(&ifindex);
        kernel.calls.push(Call::Attach(ifindex));
        Ok(AttachKind::Tcx)
    }
    fn attach_at_once(
        &mut self,
        ifindex: u32,
        interface: &str,
    ) -> Result<AttachKind, DatapathError> {
        let kind = self.attach(ifindex, interface)?;
        self.0.borrow_mut().at_once.push(ifindex);
        Ok(kind)
    }
    fn detach(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        let mut kernel = self.0.borrow_mut();
        kernel.attached.remove(&ifindex);
        kernel.calls.push(Call::Detach(ifindex));
        Ok(())
    }
    fn look(&mut self) -> Result<Look, DatapathError> {
        let kernel = self.0.borrow();
        let mut found: BTreeMap<u32, Standing> = kernel
            .attached
            .iter()
            .map(|ifindex| (*ifindex, Standing::First))
            .collect();
        found.extend(kernel.standings.clone());
        Ok(Box::new(move || found))
    }
    fn holds(&mut self, write: &Action) -> Result<bool, DatapathError> {
        let kernel = self.0.borrow();
        let mut written = kernel.state.clone();
        written.record(write);
        Ok(written == kernel.state)
    }
    fn next_entries(&mut self, _most: usize) -> Vec<Action> {
        let state = &self.0.borrow().state;
        let rows = state.tables.values().flat_map(|rows| rows.iter());
        let rows = rows.map(|((bits, key), row)| {
            Action::PutRow(Row {
                bits: *bits,
                key: *key,
                row: *row,
            })
        });
        let addresses = state.addresses.iter();
        addresses
            .map(|(address, identity)| Action::PutAddress(*address, *identity))
            .chain(rows)
            .collect()
    }
    fn clocks(&mut self) -> Result<Clocks, DatapathError> {
        Ok(Clocks {
            boot: 1_000 * SECOND + self.0.borrow().elapsed,
            ticks: 1_300 * SECOND,
        })
    }
    fn held_numbers(&mut self) -> HeldWalk {
        let mut kernel = self.0.borrow_mut();
        kernel.calls.push(Call::Walk);
        let held = kernel.held.clone();
        Box::new(move || Ok(held))
    }
    fn clear_rules(&mut self, rules: &HashSet<RuleSlot>) -> Result<(), DatapathError> {
        let mut kernel = self.0.borrow_mut();
        kernel.held.denying.retain(|rule| !rules.contains(rule));
        let mut rules: Vec<_> = rules.iter().copied().collect();
        rules.sort_unstable();
        kernel.calls.extend(rules.into_iter().map(Call::ClearRule));
        Ok(())
    }
    fn table_mark(&mut self) -> Result<Option<u32>, DatapathError> {
        Ok(self.0.borrow().table_mark)
    }
    fn set_table_mark(&mut self, mark: u32) -> Result<(), DatapathError> {
        let mut kernel = self.0.borrow_mut();
        kernel.table_mark = Some(mark);
        kernel.calls.push(Call::Mark(mark));
        Ok(())
    }
}
