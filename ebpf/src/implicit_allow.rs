//! Entries that were allowed without a rule: host ingress, and flows with an own address.
//!
//! Invariants: such an entry covers a packet only while its reason holds. A host flow covers
//! packets from the host and their replies. Of a flow with an own address, what arrives is covered while the
//! address belongs to the workload. Table and epoch do not express this, so it is checked for every packet
//! of such a flow. Which packets open one is decided in [`crate::ct_new`].

use ringfence_common::{conntrack::CtEntry, ids::RuleSlot};

use crate::{context::Context, current_packet::FlowPacket, family::Family};

/// Whether an entry that needed no rule covers a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum EntryUse {
    /// The entry covers this packet.
    Usable,
    /// The entry covers no packet any more: its peer was an own address of the workload and is not
    /// now. Table and epoch may be unchanged.
    Stale,
    /// A host flow, and this packet comes from elsewhere: the implicit allow for the host does not
    /// extend to other senders that use the host's address. Or a flow that arrived from an own address,
    /// and the workload sends this packet, which on a shared link may reach others.
    OtherSender,
}

/// Checks the few flows that no rule allowed. Out of line, because the verifier follows every
/// comparison.
#[inline(never)]
fn check_implicit<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &CtEntry) -> EntryUse {
    if entry.rule() == RuleSlot::OWN_ADDRESS {
        return if !flow.peer().owned_by(context.endpoint) {
            EntryUse::Stale
        } else if flow.from_workload {
            EntryUse::OtherSender
        } else {
            EntryUse::Usable
        };
    }
    let foreign = !flow.from_workload && context.ingress_ifindex != 0;
    if foreign {
        EntryUse::OtherSender
    } else {
        EntryUse::Usable
    }
}

/// [`check_implicit`] for entries that need it: a single comparison on the established path.
#[inline(always)]
pub fn entry_use<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &CtEntry) -> EntryUse {
    if entry.rule().is_implicit_allow() {
        check_implicit(context, flow, entry)
    } else {
        EntryUse::Usable
    }
}
