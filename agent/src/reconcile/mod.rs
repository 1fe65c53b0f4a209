//! Reconcile: compile what is desired, and bring the kernel there in the right order.
//!
//! Invariants: one writer; numbers are written to the ledger before a map sees them; a state that
//! does not fit changes nothing; what could not be written is planned again from what was; nothing
//! is retired before a grace period has passed since it was last referred to. Where desired state
//! comes from is not known here.

mod attachable;
mod ledger;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use ringfence_common::{SECOND, ids::TableId};

use attachable::Attachable;
pub use ledger::{Ledger, LedgerError};

use crate::{
    datapath::{Clocks, Datapath, DatapathError, Refused},
    model::{Inventory, Lockdown, PolicySet, WallTime},
    plan::{self, Action, CapacityError, GRACE, Retiring, State},
    policy::{Clock, Compiled, Compiler, Exhausted, Inputs, LocalEndpoint, Modes, Space},
};

/// How long connections older than the fence are recognised by their middle, in seconds.
pub const PICKUP_WINDOW: u64 = 120;

/// Why the desired state is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// It needs too many numbers.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// It does not fit a map.
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    /// The kernel refused a write or an attachment.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The ledger could not be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What should be.
#[derive(Debug, Clone, Copy)]
pub struct Desired<'a> {
    /// Workloads, namespaces and nodes.
    pub inventory: &'a Arc<Inventory>,
    /// Policies.
    pub policies: &'a Arc<PolicySet>,
    /// Interfaces of this node by name.
    pub interfaces: &'a BTreeMap<String, u32>,
    /// Modes.
    pub modes: &'a Modes,
    /// Whose policies were refused before any of their content was in force.
    pub locked: &'a [Lockdown],
    /// Wall-clock time.
    pub now: WallTime,
}

/// What is, after a successful pass.
#[derive(Debug)]
pub struct Published {
    /// The compiled state in force.
    pub compiled: Compiled,
    /// How many map writes it took.
    pub writes: usize,
    /// When, by the boot clock, another pass has something to retire.
    pub settles: Option<u64>,
    /// Interfaces whose fence is in place.
    pub fenced: BTreeSet<u32>,
    /// What time the kernel programs had at the pass.
    pub clocks: Clocks,
}

/// The one writer of the maps.
pub struct Reconciler<D> {
    datapath: D,
    compiler: Compiler,
    ledger: Ledger,
    actual: State,
    retiring: Retiring,
    /// Whether a pass failed between writing addresses and beginning their epochs.
    owes_epochs: bool,
    attachable: Attachable,
    pickups: BTreeMap<u32, u32>,
    fenced: BTreeSet<u32>,
    compacted: bool,
}

impl<D: Datapath> Reconciler<D> {
    /// Takes over what the kernel holds and what the ledger knows.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn adopt(mut datapath: D, ledger: Ledger) -> Result<Self, ReconcileError> {
        let actual = datapath.read()?;
        let mut compiler = Compiler::default();
        compiler.numbers.restore(ledger.load()?);
        reserve(&mut compiler, &actual);
        let pickups = actual
            .endpoints
            .iter()
            .map(|(i, e)| (*i, e.pickup_until))
            .collect();
        Ok(Self {
            datapath,
            compiler,
            ledger,
            actual,
            retiring: Retiring::default(),
            owes_epochs: false,
            attachable: Attachable::default(),
            pickups,
            fenced: BTreeSet::new(),
            compacted: false,
        })
    }

    /// The datapath, for what is not reconcile's business.
    pub fn datapath(&mut self) -> &mut D {
        &mut self.datapath
    }

    /// Makes one pass. Safe to repeat after an error.
    ///
    /// # Errors
    /// Why the desired state is not (wholly) in force; endpoints without a policy are fenced all
    /// the same, so that what appears meanwhile is closed if its namespace enforces.
    pub fn publish(&mut self, desired: &Desired<'_>) -> Result<Published, ReconcileError> {
        let clocks = self.datapath.clocks()?;
        let endpoints = self.local_endpoints(desired, clocks.boot);
        let inputs = Inputs {
            inventory: desired.inventory,
            policies: desired.policies,
            endpoints: &endpoints,
            modes: desired.modes,
            locked: desired.locked,
            clock: Clock {
                now: desired.now,
                boot: clocks.boot,
            },
        };
        match self.bring_about(&inputs, desired) {
            Ok((compiled, writes, passed)) => {
                let carried = carries(&compiled).then(|| passed.saturating_add(GRACE));
                let settles = [carried, self.retiring.ripens()];
                self.compact(&compiled)?;
                let fenced = self.fenced.clone();
                Ok(Published {
                    compiled,
                    writes,
                    settles: settles.into_iter().flatten().min(),
                    fenced,
                    clocks,
                })
            }
            Err(error) => {
                self.fence_without_policy(&inputs, desired)?;
                Err(error)
            }
        }
    }

    /// Removes what nothing has referred to for a grace period. To be called before each pass.
    ///
    /// # Errors
    /// When the kernel refuses a removal; the rest is tried again next time.
    pub fn retire(&mut self) -> Result<usize, ReconcileError> {
        let ripe = self.retiring.take_ripe(self.datapath.clocks()?.boot);
        self.write(&ripe)?;
        Ok(ripe.len())
    }

    fn bring_about(
        &mut self,
        inputs: &Inputs<'_>,
        desired: &Desired<'_>,
    ) -> Result<(Compiled, usize, u64), ReconcileError> {
        let compiled = self.compiler.compile(inputs)?;
        plan::check(&self.actual, &compiled.state, &self.datapath.capacities())?;
        self.ledger.append(&self.compiler.numbers.take_fresh())?;
        self.take_off(&compiled.state)?;
        self.retiring.spare(&compiled.state);
        if self.owes_epochs {
            self.write(&[Action::BumpAllEpochs])?;
            self.owes_epochs = false;
        }
        let plan = plan::plan(&self.actual, &compiled.state);
        let writes = plan.publish.len();
        self.publish_all(&plan.publish, &compiled.state)?;
        self.compiler.in_force();
        let passed = self.datapath.clocks()?.boot;
        self.retiring.left_by_pass(passed, &plan.retire);
        self.put_on(&compiled.state, desired)?;
        Ok((compiled, writes, passed))
    }

    /// A workload's interface that exists makes it an endpoint of this node.
    fn local_endpoints(&mut self, desired: &Desired<'_>, boot: u64) -> Vec<LocalEndpoint> {
        let fresh = u32::try_from(boot / SECOND + PICKUP_WINDOW).unwrap_or(u32::MAX);
        let mut endpoints = Vec::new();
        for (workload, interface) in self.attachable.of(desired.inventory) {
            let Some(ifindex) = desired.interfaces.get(interface).copied() else {
                continue;
            };
            let pickup_until = *self.pickups.entry(ifindex).or_insert(fresh);
            endpoints.push(LocalEndpoint {
                ifindex,
                workload: workload.clone(),
                pickup_until,
            });
        }
        let present: BTreeSet<u32> = endpoints.iter().map(|e| e.ifindex).collect();
        self.pickups.retain(|ifindex, _| present.contains(ifindex));
        endpoints
    }

    /// Makes writes, and takes note of those that were made.
    fn write(&mut self, actions: &[Action]) -> Result<(), ReconcileError> {
        let outcome = self.datapath.write_all(actions);
        let made = outcome
            .as_ref()
            .map_or_else(|it| it.made, |()| actions.len());
        self.note(actions, made);
        Ok(outcome.map_err(|refused| refused.error)?)
    }

    fn note(&mut self, actions: &[Action], made: usize) {
        let (made, left) = actions.split_at(made.min(actions.len()));
        for action in made {
            self.actual.record(action);
        }
        // Addresses that are written are no difference any more, and no plan asks for their epochs.
        self.owes_epochs |= left.iter().any(Action::begins_epochs);
    }

    /// Makes the writes that lead to a state. Once all of them are made, the state is what is, but
    /// for rows that are still to be retired; noting each write would cost more than making it.
    fn publish_all(&mut self, actions: &[Action], state: &State) -> Result<(), ReconcileError> {
        if let Err(Refused { made, error }) = self.datapath.write_all(actions) {
            self.note(actions, made);
            return Err(error.into());
        }
        self.actual.overlay(state);
        Ok(())
    }

    /// Fences come off before their endpoint is forgotten: a fenced interface without an endpoint
    /// is treated by the node's default mode, which need not be the namespace's.
    fn take_off(&mut self, state: &State) -> Result<(), ReconcileError> {
        let kept = |ifindex: &u32| state.endpoints.contains_key(ifindex);
        for ifindex in self.datapath.attached() {
            if !kept(&ifindex) {
                self.datapath.detach(ifindex)?;
                self.fenced.remove(&ifindex);
            }
        }
        Ok(())
    }

    fn put_on(&mut self, state: &State, desired: &Desired<'_>) -> Result<(), ReconcileError> {
        let mut failure = None;
        for (name, ifindex) in desired.interfaces {
            if !state.endpoints.contains_key(ifindex) || self.fenced.contains(ifindex) {
                continue;
            }
            match self.datapath.attach(*ifindex, name) {
                Ok(_) => {
                    self.fenced.insert(*ifindex);
                }
                // The other interfaces must not stay open because of this one.
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Fences endpoints whose policy could not be brought about: they have a table without rows.
    fn fence_without_policy(
        &mut self,
        inputs: &Inputs<'_>,
        desired: &Desired<'_>,
    ) -> Result<(), ReconcileError> {
        for local in inputs.endpoints {
            if self.actual.endpoints.contains_key(&local.ifindex) {
                continue;
            }
            let Some((endpoint, mode)) = self.compiler.without_policy(inputs, local) else {
                continue;
            };
            self.ledger.append(&self.compiler.numbers.take_fresh())?;
            self.write(&[
                Action::SetMode(endpoint.namespace, mode),
                Action::PutEndpoint(local.ifindex, endpoint),
            ])?;
        }
        let state = self.actual.clone();
        self.put_on(&state, desired)
    }

    /// Once after a start, forgets numbers of an earlier life that nothing uses any more.
    fn compact(&mut self, compiled: &Compiled) -> Result<(), ReconcileError> {
        if self.compacted {
            return Ok(());
        }
        self.compacted = true;
        for space in [Space::Identity, Space::Class, Space::Table, Space::Rule] {
            let mut used: HashSet<u32> = [&self.actual, &compiled.state]
                .into_iter()
                .flat_map(|state| held(state, space))
                .collect();
            if space == Space::Rule {
                used.extend(compiled.rules.keys().map(|slot| slot.0));
            }
            self.compiler.numbers.retain(space, &used);
        }
        let all: Vec<_> = self.compiler.numbers.all().collect();
        self.ledger.rewrite(&all)?;
        Ok(())
    }
}

/// Whether tables stand that no endpoint uses any more.
fn carries(compiled: &Compiled) -> bool {
    let used: BTreeSet<TableId> = compiled.endpoints.values().map(|e| e.table).collect();
    compiled
        .state
        .tables
        .keys()
        .any(|table| !used.contains(table))
}

/// Numbers that are in use in the kernel but may be missing in the ledger.
fn reserve(compiler: &mut Compiler, actual: &State) {
    for space in Space::ALL {
        compiler.numbers.reserve(space, held(actual, space));
    }
}

/// The numbers of a space that a state holds, in whatever map: rows outlive the classes and rules that
/// they are about by a grace period.
fn held(state: &State, space: Space) -> Vec<u32> {
    let rows = || state.tables.values().flat_map(|rows| rows.iter());
    match space {
        Space::Identity => {
            let held = state.addresses.values().chain(state.prefixes.values());
            held.chain(state.classes.keys()).map(|id| id.0).collect()
        }
        Space::Class => {
            let classes = state.classes.values().map(|id| id.0);
            classes
                .chain(rows().map(|((_, key), _)| key.class.0))
                .collect()
        }
        Space::Table => state.tables.keys().map(|id| id.0).collect(),
        Space::Rule => rows()
            .flat_map(|(_, row)| [row.rule.0, row.then_rule.0])
            .collect(),
        Space::Namespace => state.modes.keys().map(|slot| slot.0).collect(),
    }
}

#[cfg(test)]
mod tests;
