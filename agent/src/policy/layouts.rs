//! The policy table of each kind of local workload.
//!
//! Invariants: workloads of one kind have one layout. A layout is kept until a policy that concerns
//! its kind changes, until declared ports change, or until the passage of time changes it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ringfence_common::{ids::TableId, mode::Direction};

use super::{
    desired::Clock,
    digest::digest_of,
    identity::WorkloadKind,
    numbers::{Exhausted, Numbers, Space},
    rulebook::{PolicyChange, Rulebook},
    table::{Layout, TableSpec},
    tunnels::Tunnels,
    workload_kinds::KindNumber,
};
use crate::model::{NamedPort, PolicyId};

/// The layout of a kind of workload.
#[derive(Clone)]
pub(crate) struct KindLayout {
    pub(crate) policies: Arc<[PolicyId]>,
    pub(crate) spec: Arc<TableSpec>,
    pub(crate) table: TableId,
}

/// The layouts in use.
#[derive(Default)]
pub(crate) struct Layouts {
    known: HashMap<KindNumber, (Arc<WorkloadKind>, KindLayout)>,
    tables: HashMap<Arc<TableSpec>, TableId>,
    clock: Option<Clock>,
    tunnels: Option<Arc<Tunnels>>,
}

impl Layouts {
    /// Sets the UDP ports of tunnels; other ones remove all layouts.
    pub(crate) fn set_tunnels(&mut self, ports: &BTreeSet<u16>) {
        if self
            .tunnels
            .as_ref()
            .is_none_or(|held| held.ports != *ports)
        {
            self.tunnels = Some(Arc::new(Tunnels::at(ports)));
            self.clear();
        }
    }

    /// Removes the layouts that the passage of time, up to this clock, has changed.
    pub(crate) fn pass_time(&mut self, clock: &Clock) {
        let before = self.clock.replace(*clock);
        // If the clock went back, lapsed rules may hold again; if it jumped, edges moved.
        let is_continuous = before
            .is_some_and(|before| before.now <= clock.now && before.boot(clock.now) == clock.boot);
        if !is_continuous {
            self.known.clear();
        }
        let remaining_window =
            |spec: &TableSpec| spec.edge.is_none_or(|edge| clock.now < edge.wall);
        self.known
            .retain(|_, (_, laid_out)| remaining_window(&laid_out.spec));
    }

    /// Removes the layouts that include a changed policy.
    pub(crate) fn change(&mut self, changes: &[PolicyChange]) {
        if !changes.is_empty() {
            let stands = |kind: &WorkloadKind| !changes.iter().any(|change| change.concerns(kind));
            self.known.retain(|_, (kind, _)| stands(kind));
        }
    }

    /// Removes all layouts, because other ports are declared or lead into tunnels.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
    }

    /// The layout of a kind.
    pub(crate) fn of(
        &mut self,
        (number, kind): (KindNumber, &Arc<WorkloadKind>),
        (rulebook, declared): (&Rulebook, &BTreeSet<NamedPort>),
        clock: &Clock,
        numbers: &mut Numbers,
    ) -> Result<KindLayout, Exhausted> {
        if let Some((_, known)) = self.known.get(&number) {
            return Ok(known.clone());
        }
        let policies: Arc<[PolicyId]> = rulebook.selecting(kind).into();
        let fence = |direction| {
            let layout = Layout {
                direction,
                subject: &kind.ports,
                declared,
                tunnels: self.tunnels.as_ref(),
                now: clock.now,
            };
            layout.fence(rulebook.asked(direction, &policies).collect())
        };
        let (ingress, egress) = (fence(Direction::Ingress), fence(Direction::Egress));
        let spec = TableSpec::new(ingress, egress, clock);
        let (spec, table) = self.table(spec, numbers)?;
        let laid_out = KindLayout {
            policies,
            spec,
            table,
        };
        let entry = (Arc::clone(kind), laid_out.clone());
        self.known.insert(number, entry);
        Ok(laid_out)
    }

    fn table(
        &mut self,
        spec: TableSpec,
        numbers: &mut Numbers,
    ) -> Result<(Arc<TableSpec>, TableId), Exhausted> {
        if let Some((spec, table)) = self.tables.get_key_value(&spec) {
            return Ok((Arc::clone(spec), *table));
        }
        let table = TableId(numbers.number(Space::Table, digest_of(&spec))?);
        let spec = Arc::new(spec);
        self.tables.insert(Arc::clone(&spec), table);
        Ok((spec, table))
    }

    /// Every specification that is kept, with its table.
    pub(crate) fn specs(&self) -> impl Iterator<Item = (TableId, &TableSpec)> {
        let of_kinds = self
            .known
            .values()
            .map(|(_, known)| (known.table, &*known.spec));
        let tables = self.tables.iter().map(|(spec, table)| (*table, &**spec));
        of_kinds.chain(tables)
    }

    /// Removes kinds without an endpoint, and tables that are not in force.
    pub(crate) fn retain(
        &mut self,
        kinds: &BTreeSet<KindNumber>,
        tables: &BTreeMap<TableId, Arc<TableSpec>>,
    ) {
        if self.known.len() > kinds.len() {
            self.known.retain(|number, _| kinds.contains(number));
        }
        if self.tables.len() > tables.len() {
            self.tables.retain(|_, table| tables.contains_key(table));
        }
    }
}
