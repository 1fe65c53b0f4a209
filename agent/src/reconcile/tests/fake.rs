//! An in-memory kernel that fails on demand.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    rc::Rc,
};

use ipnet::IpNet;
use ringfence_common::{
    SECOND,
    ids::{RuleSlot, TableId},
};

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

/// Bits, class, direction, protocol and port.
type RowPlace = (u32, u32, u8, u8, u16);

fn place(row: &Row) -> RowPlace {
    let key = &row.key;
    let port = key.port.number();
    (row.bits, key.class.0, key.direction, key.protocol, port)
}

/// The last entry that a walk showed of the map where it is; `None` before the first.
#[derive(Debug, Clone, Copy)]
pub(super) enum Walked {
    Addresses(Option<IpAddr>),
    Prefixes(Option<IpNet>),
    Rows(Option<(TableId, RowPlace)>),
}

impl Default for Walked {
    fn default() -> Self {
        Self::Addresses(None)
    }
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
    pub(super) walked: Walked,
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
    fn next_entries(&mut self, most: usize) -> Vec<Action> {
        let mut kernel = self.0.borrow_mut();
        let state = &kernel.state;
        let (page, walked) = match kernel.walked {
            Walked::Addresses(last) => {
                let all = state.addresses.iter().map(|(ip, id)| (*ip, *id));
                let (page, last) = page(all, last, most);
                let page = page.map(|(ip, id)| Action::PutAddress(ip, id)).collect();
                let next = Walked::Prefixes(None);
                (
                    page,
                    last.map_or(next, |last| Walked::Addresses(Some(last))),
                )
            }
            Walked::Prefixes(last) => {
                let all = state.prefixes.iter().map(|(net, id)| (*net, *id));
                let (page, last) = page(all, last, most);
                let page = page.map(|(net, id)| Action::PutPrefix(net, id)).collect();
                let next = Walked::Rows(None);
                (page, last.map_or(next, |last| Walked::Prefixes(Some(last))))
            }
            Walked::Rows(last) => {
                let tables = state.tables.iter();
                let all = tables.flat_map(|(table, rows)| {
                    rows.iter().map(|((bits, key), row)| {
                        let row = Row {
                            bits: *bits,
                            key: *key,
                            row: *row,
                        };
                        ((*table, place(&row)), row)
                    })
                });
                let (page, last) = page(all, last, most);
                let page = page.map(|(_, row)| Action::PutRow(row)).collect();
                let next = Walked::Addresses(None);
                (page, last.map_or(next, |last| Walked::Rows(Some(last))))
            }
        };
        kernel.walked = walked;
        page
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

/// The entries after the last one shown, at most so many, and the last one of them if there may be more.
fn page<K: Copy + Ord, V>(
    all: impl Iterator<Item = (K, V)>,
    last: Option<K>,
    most: usize,
) -> (impl Iterator<Item = (K, V)>, Option<K>) {
    let left = all.filter(|(key, _)| last.is_none_or(|last| *key > last));
    let mut page: Vec<(K, V)> = left.collect();
    page.sort_by_key(|(key, _)| *key);
    page.truncate(most);
    let is_full = page.len() == most;
    let last = page.last().filter(|_| is_full).map(|(key, _)| *key);
    (page.into_iter(), last)
}
