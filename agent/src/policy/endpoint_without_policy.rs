//! Endpoint records for workloads whose policy is not known: a table without rows.
//!
//! Invariant: such an endpoint allows nothing if its namespace enforces, and everything if it
//! observes. It is never left without a fence.

use ringfence_common::{
    endpoint::Endpoint,
    ids::{IdentityId, NamespaceSlot, TableId},
    mode::Mode,
};

use super::{
    compile::{Compiler, own_addresses, slot_of},
    desired::{Inputs, LocalEndpoint},
    lockdown::mode_override,
};
use crate::model::Attachment;

impl Compiler {
    /// The endpoint record of a workload without a policy, and its namespace's mode. `None` for a
    /// workload that is not in the inventory.
    pub fn without_policy(
        &mut self,
        inputs: &Inputs<'_>,
        local: &LocalEndpoint,
        attachment: Attachment,
    ) -> Option<(Endpoint, Mode)> {
        let workload = inputs.inventory.workload(local.id.workload())?;
        let name = &workload.id.namespace;
        let (namespace, mode) = match self.namespace(name) {
            Ok(slot) => (slot, inputs.modes.of(name)),
            // No slot is left: use the node's default mode.
            Err(_) => (NamespaceSlot::NODE_DEFAULT, inputs.modes.default),
        };
        let (ip4, ip6) = own_addresses(inputs.inventory, workload);
        let endpoint = Endpoint {
            ifindex: attachment.ifindex,
            ip6,
            ip4,
            identity: IdentityId::UNKNOWN,
            table: TableId::NONE,
            namespace: slot_of(namespace),
            pickup_until: attachment.pickup_until,
            mode_override: mode_override(inputs.locked, inputs.inventory, workload, mode),
            reserved: 0,
        };
        Some((endpoint, mode))
    }
}
