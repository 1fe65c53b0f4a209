//! Reconcile: compiles the desired state and brings the kernel's maps to it in a safe order.
//!
//! Invariants: the reconciler is the only writer of the control maps; numbers are written to the
//! ledger before they appear in a map; a state that does not fit the maps changes nothing; after a
//! failed write, the next pass plans from the writes that were made; a row is retired only after a
//! grace period without any reference to it. Where the desired state comes from is decided
//! elsewhere.

mod attachments;
mod bridging;
mod entries;
mod fit;
mod ledger;
mod local_endpoints;
mod lockdown;
mod number_life;
mod pickup;
mod room;
mod service_room;
mod table_mark;
mod unnamed;
mod verification;
mod verify;
mod workload_interfaces;

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use ringfence_common::{endpoint::Endpoint, ids::TableId, mode::Mode};

use attachments::{Attachments, Fences};
pub use attachments::{Presence, Presences, Unfenced};
use bridging::Bridging;
use entries::EntryRound;
pub use ledger::{Ledger, LedgerError, Recorded};
use number_life::NumberLife;
pub use number_life::{QUARANTINE, Walk};
pub use pickup::PICKUP_WINDOW;
pub use room::WithoutRoom;
use table_mark::FoundMarks;
use verification::Verification;
pub use verification::{Degraded, MOVE_INTERVAL};
pub use verify::{Repair, RepairKind};
use workload_interfaces::WorkloadInterfaces;

use crate::{
    datapath::{Clocks, Datapath, DatapathError, Refused},
    model::{Inventory, Lockdown, NamespaceName, PolicySet, WallTime},
    plan::{self, Action, CapacityError, GRACE, RetireQueue, State},
    policy::{Clock, Compiled, Compiler, Exhausted, Inputs, Modes},
    source::interfaces::Links,
};

/// Why the desired state is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A number space is exhausted.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The state does not fit a map.
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    /// The kernel refused a write, or to detach.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The ledger could not be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl ReconcileError {
    /// Whether fewer policies might be published.
    const fn is_no_room(&self) -> bool {
        matches!(self, Self::Exhausted(_) | Self::Capacity(_))
    }
}

/// The desired state.
#[derive(Debug, Clone, Copy)]
pub struct Desired<'a> {
    /// Workloads, namespaces and nodes.
    pub inventory: &'a Arc<Inventory>,
    /// Policies.
    pub policies: &'a Arc<PolicySet>,
    /// Interfaces of this node.
    pub interfaces: &'a Links,
    /// Modes of namespaces.
    pub modes: &'a Modes,
    /// The workloads to lock down: refused policy files without last good content apply to them.
    pub locked: &'a [Lockdown],
    /// Whether sources know all objects. If not, what the kernel has and the state does not know may be of an
    /// object that they have not named, and stays.
    pub is_complete: bool,
    /// Wall-clock time.
    pub now: WallTime,
}

/// The result of a successful pass.
#[derive(Debug)]
pub struct Published {
    /// The compiled state in force.
    pub compiled: Compiled,
    /// The inventory that it was compiled from.
    pub inventory: Arc<Inventory>,
    /// The policies in force.
    pub policies: Arc<PolicySet>,
    /// The policies that are not, because there is no room for them. Subjects of those of which no
    /// earlier version is in force are locked down.
    pub without_room: Vec<WithoutRoom>,
    /// The namespaces whose Services have no backends in force, because they have no room.
    pub services_without_room: Vec<NamespaceName>,
    /// Whose subjects are locked down.
    pub locked: Vec<Lockdown>,
    /// The number of map writes made.
    pub writes: usize,
    /// When, by the boot clock, another pass has something to retire.
    pub retire_due: Option<u64>,
    /// Interfaces with a fence.
    pub fenced: BTreeSet<u32>,
    /// The kernel programs' clocks at the start of the pass.
    pub clocks: Clocks,
}

/// The only writer of the control maps.
pub struct Reconciler<D> {
    datapath: D,
    compiler: Compiler,
    /// The policies of the last pass that succeeded.
    policies: Arc<PolicySet>,
    ledger: Ledger,
    actual: State,
    retire_queue: RetireQueue,
    /// Whether stored verdicts may be wrong: a pass failed after writing addresses and before
    /// starting their new epochs, or the marks of table numbers disagree.
    epochs_pending: bool,
    attachments: Attachments,
    bridging: Bridging,
    fenced: BTreeSet<u32>,
    verification: Verification,
    entry_round: EntryRound,
    life: NumberLife,
}

impl<D: Datapath> Reconciler<D> {
    /// Adopts the state in the kernel's maps and the numbers in the ledger. If the two disagree about
    /// the table numbers given so far, the ledger is not used, and the first pass makes every stored
    /// verdict stale.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn adopt(mut datapath: D, mut ledger: Ledger) -> Result<Self, ReconcileError> {
        let actual = datapath.read()?;
        let recorded = ledger.load()?;
        let marks = FoundMarks {
            ledger: recorded.tables_below,
            kernel: datapath.table_mark()?,
        };
        let mark = marks.agreed(&actual);
        let mut compiler = Compiler::default();
        let numbers = &mut compiler.numbers;
        if mark.is_some() {
            numbers.restore(recorded.allocations);
        } else {
            number_life::reserve_held(numbers, &datapath.held_numbers()()?);
        }
        number_life::reserve_used(numbers, &actual);
        numbers.skip_tables_below(marks.highest(&actual));
        Ok(Self {
            datapath,
            compiler,
            policies: Arc::default(),
            ledger,
            actual,
            retire_queue: RetireQueue::default(),
            epochs_pending: mark.is_none(),
            attachments: Attachments::default(),
            bridging: Bridging::default(),
            fenced: BTreeSet::new(),
            verification: Verification::default(),
            entry_round: EntryRound::default(),
            life: NumberLife {
                mark,
                changed: true,
                next_walk: 0,
            },
        })
    }

    /// The datapath, for operations that are not part of reconcile.
    pub fn datapath(&mut self) -> &mut D {
        &mut self.datapath
    }

    /// Makes one pass. Can be repeated after an error.
    ///
    /// # Errors
    /// Why the desired state is not (wholly) in force. New endpoints are then fenced without a
    /// policy, so that they are closed if their namespace enforces, and namespaces in lockdown are
    /// closed nevertheless.
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
        match self.apply_what_fits(&inputs, desired) {
            Ok(fitted) => {
                let tables = has_unused_tables(&fitted.compiled)
                    .then(|| fitted.passed.saturating_add(GRACE));
                let retire_due = [tables, self.retire_queue.next_due()];
                let fenced = self.fenced.clone();
                Ok(Published {
                    compiled: fitted.compiled,
                    inventory: fitted.inventory,
                    policies: Arc::clone(&self.policies),
                    without_room: fitted.without_room,
                    services_without_room: fitted.services_without_room,
                    locked: fitted.locked,
                    writes: fitted.writes,
                    retire_due: retire_due.into_iter().flatten().min(),
                    fenced,
                    clocks,
                })
            }
            Err(error) => {
                if matches!(error, ReconcileError::Exhausted(_)) {
                    self.life.next_walk = 0;
                }
                let locked_down = self.lock_down(desired);
                self.fence_without_policy(&inputs, desired)?;
                locked_down?;
                Err(error)
            }
        }
    }

    /// The workloads that name an interface of this node, and whether they have a fence, as of the last
    /// pass, which had these interfaces.
    pub fn presences(&self, interfaces: &Links) -> Presences {
        let fences = Fences {
            attached: &self.fenced,
            degraded: self.verification.degraded(),
            failures: self.verification.failures(),
        };
        self.attachments.presences(interfaces, &fences)
    }

    /// Removes rows that nothing has referred to for a grace period. Call it before each pass.
    ///
    /// # Errors
    /// When the kernel refuses a removal; the next pass plans the rest again.
    pub fn retire(&mut self) -> Result<usize, ReconcileError> {
        let due = self.retire_queue.take_due(self.datapath.clocks()?.boot);
        self.life.changed |= !due.is_empty();
        self.write(&due)?;
        Ok(due.len())
    }

    fn apply(
        &mut self,
        inputs: &Inputs<'_>,
        desired: &Desired<'_>,
    ) -> Result<(Compiled, usize, u64), ReconcileError> {
        self.life.changed = true;
        let compiled = self.compiler.compile(inputs)?;
        let mut state = Cow::Borrowed(&compiled.state);
        if !desired.is_complete {
            unnamed::keep(&self.actual, state.to_mut(), desired.interfaces);
        }
        if let Err(error) = self.prepare(&state, desired) {
            self.compiler.withdraw();
            return Err(error);
        }
        self.retire_queue.keep_referenced(&state);
        let plan = plan::plan(&self.actual, &state);
        let writes = plan.publish.len();
        self.publish_all(&plan.publish, &state)?;
        self.compiler.in_force();
        self.policies = Arc::clone(inputs.policies);
        let passed = self.datapath.clocks()?.boot;
        self.retire_queue.record_pass(passed, &plan.retire);
        self.attach_endpoints(&compiled.state, desired);
        Ok((compiled, writes, passed))
    }

    /// What comes before the writes of a pass.
    fn prepare(&mut self, state: &State, desired: &Desired<'_>) -> Result<(), ReconcileError> {
        plan::check(&self.actual, state, &self.datapath.capacities())?;
        // Before the marks: if they are new, stored verdicts have numbers of another life.
        if self.epochs_pending {
            self.write(&[Action::BumpAllEpochs])?;
            self.epochs_pending = false;
        }
        self.write_down()?;
        self.detach_removed(state, desired)
    }

    /// Whether there is room for what these inputs lead to.
    fn have_room(&mut self, inputs: &Inputs<'_>) -> bool {
        let compiled = self.compiler.compile(inputs);
        let fits = compiled.is_ok_and(|compiled| {
            let capacities = self.datapath.capacities();
            plan::check(&self.actual, &compiled.state, &capacities).is_ok()
        });
        self.compiler.withdraw();
        fits
    }

    /// Makes writes, and records those that were made.
    fn write(&mut self, actions: &[Action]) -> Result<(), ReconcileError> {
        let outcome = self.datapath.write_all(actions);
        let made = outcome
            .as_ref()
            .map_or_else(|refused| refused.made, |()| actions.len());
        self.record_writes(actions, made);
        Ok(outcome.map_err(|refused| refused.error)?)
    }

    fn record_writes(&mut self, actions: &[Action], made: usize) {
        let (made, left) = actions.split_at(made.min(actions.len()));
        for action in made {
            self.actual.record(action);
        }
        // The next plan has no difference at addresses already written, so it would not start their
        // epochs.
        self.epochs_pending |= left.iter().any(Action::bumps_epochs);
    }

    /// Makes the writes of a plan. Once all are made, the actual state is the desired one plus the
    /// rows still to be retired; recording each write would cost more than making it.
    fn publish_all(&mut self, actions: &[Action], state: &State) -> Result<(), ReconcileError> {
        if let Err(Refused { made, error }) = self.datapath.write_all(actions) {
            self.record_writes(actions, made);
            return Err(error.into());
        }
        self.actual.overlay(state);
        Ok(())
    }

    /// Detaches fences before their endpoints are removed: a fenced interface without an endpoint
    /// has the node's default mode, which may differ from the namespace's.
    fn detach_removed(
        &mut self,
        state: &State,
        desired: &Desired<'_>,
    ) -> Result<(), ReconcileError> {
        for ifindex in self.datapath.attached() {
            let is_named = state.endpoints.contains_key(&ifindex);
            let may_go = desired.is_complete || !unnamed::stays(ifindex, desired.interfaces);
            if !is_named && may_go {
                self.datapath.detach(ifindex)?;
                self.fenced.remove(&ifindex);
                self.verification.forget(ifindex);
            }
        }
        Ok(())
    }

    /// Attaches a fence to every endpoint that this process has not attached yet; first those that are to
    /// be in force at once.
    fn attach_endpoints(&mut self, state: &State, desired: &Desired<'_>) {
        self.bridging.look(desired.interfaces);
        let new = state.endpoints.iter();
        let new = new.filter(|(ifindex, _)| !self.fenced.contains(ifindex));
        let (first, others): (Vec<_>, Vec<_>) =
            new.partition(|(_, endpoint)| self.bridging.is_for(endpoint, state));
        let first = first.into_iter().map(|(ifindex, _)| (*ifindex, true));
        let others = others.into_iter().map(|(ifindex, _)| (*ifindex, false));
        for (ifindex, at_once) in first.chain(others).collect::<Vec<_>>() {
            if let Some(link) = desired.interfaces.get(ifindex) {
                self.attach(ifindex, &link.name, at_once);
            }
        }
    }

    /// Attaches a fence; returns whether it is attached. A failure concerns that interface alone: it is
    /// kept for the status, and leaves neither the other interfaces nor the policy behind.
    fn attach(&mut self, ifindex: u32, interface: &str, at_once: bool) -> bool {
        let outcome = if at_once {
            self.datapath.attach_at_once(ifindex, interface)
        } else {
            self.datapath.attach(ifindex, interface)
        };
        match outcome {
            Ok(_) => {
                self.fenced.insert(ifindex);
                self.verification.attached(ifindex);
                return true;
            }
            // A notice follows, and with it another pass.
            Err(DatapathError::Gone { .. }) => self.verification.forget(ifindex),
            Err(error) => self.verification.failed(ifindex, error.to_string()),
        }
        self.fenced.remove(&ifindex);
        false
    }

    /// Attaches a fence that is missing, or not first, to an endpoint.
    fn attach_again(&mut self, ifindex: u32, interface: &str) -> bool {
        let endpoint = self.actual.endpoints.get(&ifindex);
        let at_once = endpoint.is_some_and(|it| self.bridging.is_for(it, &self.actual));
        self.attach(ifindex, interface, at_once)
    }

    /// Fences new endpoints whose policy could not be published: their table has no rows. One that
    /// fails leaves no other open. A fence of an agent with another layout stays as it is: it has the
    /// last good policy.
    fn fence_without_policy(
        &mut self,
        inputs: &Inputs<'_>,
        desired: &Desired<'_>,
    ) -> Result<(), ReconcileError> {
        let mut others = self.datapath.attached();
        others.retain(|ifindex| !self.fenced.contains(ifindex));
        let mut state = self.actual.clone();
        let mut failure = None;
        let attachments = inputs.endpoints.iter();
        let attachments = attachments.flat_map(|it| it.attachments.iter().map(move |at| (it, *at)));
        for (local, attachment) in attachments {
            let ifindex = attachment.ifindex;
            if self.actual.endpoints.contains_key(&ifindex) || others.contains(&ifindex) {
                continue;
            }
            let found = self.compiler.without_policy(inputs, local, attachment);
            let Some((endpoint, mode)) = found else {
                continue;
            };
            if let Err(error) = self.put_without_policy(ifindex, endpoint, mode) {
                // Without a record its fence has the node's default mode, which may drop.
                failure = Some(error);
                if mode == Mode::Observe && endpoint.mode_override == 0 {
                    continue;
                }
            }
            state.endpoints.insert(ifindex, endpoint);
        }
        self.attach_endpoints(&state, desired);
        failure.map_or(Ok(()), Err)
    }

    fn put_without_policy(
        &mut self,
        ifindex: u32,
        endpoint: Endpoint,
        mode: Mode,
    ) -> Result<(), ReconcileError> {
        self.ledger.append(self.compiler.numbers.fresh())?;
        self.compiler.numbers.written();
        self.write(&[
            Action::SetMode(endpoint.namespace(), mode),
            Action::PutEndpoint(ifindex, endpoint),
        ])
    }
}

/// Whether the state has tables that no endpoint uses any more.
fn has_unused_tables(compiled: &Compiled) -> bool {
    let used: BTreeSet<TableId> = compiled.endpoints.values().map(|e| e.table).collect();
    compiled
        .state
        .tables
        .keys()
        .any(|table| !used.contains(table))
}

#[cfg(test)]
mod tests;
