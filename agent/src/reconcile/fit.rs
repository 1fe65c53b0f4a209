//! Puts into force what fits into the kernel's maps of what is asked for.
//!
//! Invariants: what does not fit is named in the result; if leaving out backends of Services is enough, every policy is in
//! force, and otherwise Services keep theirs unless not even the policies in force fit with them.

use std::sync::Arc;

use super::{Desired, ReconcileError, Reconciler, WithoutRoom, room, service_room};
use crate::{
    datapath::Datapath,
    model::{Inventory, Lockdown, NamespaceName},
    policy::{Compiled, Inputs},
};

/// What was put into force.
pub(super) struct Fitted {
    pub(super) compiled: Compiled,
    pub(super) inventory: Arc<Inventory>,
    pub(super) writes: usize,
    /// When the writes were made, on the boot clock.
    pub(super) passed: u64,
    pub(super) without_room: Vec<WithoutRoom>,
    pub(super) services_without_room: Vec<NamespaceName>,
    pub(super) locked: Vec<Lockdown>,
}

impl<D: Datapath> Reconciler<D> {
    pub(super) fn apply_what_fits(
        &mut self,
        inputs: &Inputs<'_>,
        desired: &Desired<'_>,
    ) -> Result<Fitted, ReconcileError> {
        let is_full = |error: &ReconcileError| error.is_no_room();
        match self.applied(inputs, desired, (Vec::new(), Vec::new())) {
            Err(error) if is_full(&error) => {}
            outcome => return outcome,
        }
        let reduced = service_room::reduce(inputs.inventory, |inventory| {
            self.have_room(&Inputs {
                inventory,
                ..*inputs
            })
        });
        if let Some(reduced) = reduced {
            let inputs = Inputs {
                inventory: &reduced.inventory,
                ..*inputs
            };
            return self.applied(&inputs, desired, (Vec::new(), reduced.namespaces));
        }
        match self.with_fewer_policies(inputs, desired, Vec::new()) {
            Err(error) if is_full(&error) => {}
            outcome => return outcome,
        }
        let all = service_room::without_any(inputs.inventory);
        let inputs = Inputs {
            inventory: &all.inventory,
            ..*inputs
        };
        self.with_fewer_policies(&inputs, desired, all.namespaces)
    }

    fn with_fewer_policies(
        &mut self,
        inputs: &Inputs<'_>,
        desired: &Desired<'_>,
        services: Vec<NamespaceName>,
    ) -> Result<Fitted, ReconcileError> {
        let chosen = room::choose(&self.policies.clone(), inputs.policies, |policies| {
            self.have_room(&Inputs {
                policies,
                ..*inputs
            })
        });
        let Some(chosen) = chosen else {
            return self.applied(inputs, desired, (Vec::new(), services));
        };
        let mut locked = desired.locked.to_vec();
        locked.extend(room::locked(&chosen.without_room));
        let inputs = Inputs {
            policies: &chosen.policies,
            locked: &locked,
            ..*inputs
        };
        self.applied(&inputs, desired, (chosen.without_room, services))
    }

    fn applied(
        &mut self,
        inputs: &Inputs<'_>,
        desired: &Desired<'_>,
        (without_room, services_without_room): (Vec<WithoutRoom>, Vec<NamespaceName>),
    ) -> Result<Fitted, ReconcileError> {
        let (compiled, writes, passed) = self.apply(inputs, desired)?;
        Ok(Fitted {
            compiled,
            inventory: Arc::clone(inputs.inventory),
            writes,
            passed,
            without_room,
            services_without_room,
            locked: inputs.locked.to_vec(),
        })
    }
}
