//! Lockdown of namespaces while the rest of the desired state cannot be published, for example because
//! the disk is full and new numbers cannot be written down.
//!
//! Invariant: it needs no number that is not written down yet, and it only closes.

use ringfence_common::mode::Mode;

use super::{Desired, ReconcileError, Reconciler};
use crate::{datapath::Datapath, model::NamespaceName, plan::Action};

impl<D: Datapath> Reconciler<D> {
    /// Puts the namespaces that are to be in lockdown into lockdown.
    pub(super) fn lock_down(&mut self, desired: &Desired<'_>) -> Result<(), ReconcileError> {
        let names = desired.inventory.namespaces.keys();
        let wanted = names.filter(|name| desired.modes.of(name) == Mode::Lockdown);
        let open = wanted.filter(|name| !self.is_locked_down(name));
        let slots = open.filter_map(|name| self.compiler.written_slot(name));
        let actions: Vec<_> = slots
            .map(|slot| Action::SetMode(slot, Mode::Lockdown))
            .collect();
        self.write(&actions)
    }

    /// Whether the kernel has a namespace in lockdown.
    pub fn is_locked_down(&self, namespace: &NamespaceName) -> bool {
        let slot = self.compiler.written_slot(namespace);
        slot.is_some_and(|slot| self.actual.modes.get(&slot) == Some(&Mode::Lockdown))
    }
}
