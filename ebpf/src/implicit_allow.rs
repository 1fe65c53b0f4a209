//! Entries that were allowed without a rule: host ingress, and flows with an own address.
//!
//! Invariants: such an entry covers a packet only while its reason holds. A host flow covers
//! packets from the host and their replies. Of a flow with an own address, what arrives is covered while the
//! address belongs to the workload. A flow of the workload to itself that the node translated covers what
//! the workload sent, as it comes back, and the replies. Table and epoch do not express this, so it is checked for every packet
//! of such a flow. Which packets open one is decided in [`crate::ct_new`].

use ringfence_common::{
    conntrack::{CtEntry, flags},
    ids::RuleSlot,
};

use crate::{context::Context, current_packet::FlowPacket, family::Family, maps};

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

/// Whether the entry is one of packets that the workload sent to itself and that arrived from an address of
/// the node. Its replies go to that address.
#[inline(always)]
pub fn is_translated_to_itself(entry: &CtEntry) -> bool {
    entry.rule() == RuleSlot::OWN_ADDRESS && entry.flags & flags::TRANSLATED != 0
}

/// Checks the few flows that no rule allowed, and the few senders that need none.
#[inline(always)]
fn check_implicit<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &CtEntry) -> EntryUse {
    if flow.opens_over(context, entry) {
        return EntryUse::OtherSender;
    }
    let foreign = if is_translated_to_itself(entry) {
        !(flow.from_workload || flow.came_back(context))
    } else if entry.rule() == RuleSlot::OWN_ADDRESS {
        if !flow.peer().owned_by(context.endpoint) {
            return EntryUse::Stale;
        }
        flow.from_workload
    } else {
        entry.rule() == RuleSlot::HOST_INGRESS
            && !flow.from_workload
            && context.ingress_ifindex != 0
    };
    if foreign {
        EntryUse::OtherSender
    } else {
        EntryUse::Usable
    }
}

/// [`check_implicit`] for an entry that may need it. Out of line, because the verifier follows every
/// comparison.
#[inline(never)]
pub fn entry_use<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &CtEntry) -> EntryUse {
    if entry.rule().is_implicit_allow() {
        check_implicit(context, flow, entry)
    } else {
        EntryUse::Usable
    }
}

/// Whether [`current_use`] may find anything: a single comparison for each sender and rule.
#[inline(always)]
pub fn may_need_no_rule<A: Family>(
    context: &Context,
    flow: &FlowPacket<A>,
    entry: &CtEntry,
) -> bool {
    flow.is_from_host(context) || flow.came_back(context) || entry.rule().is_implicit_allow()
}

/// [`check_implicit`] for this CPU's [`CurrentPacket`] and the entry found for it. Reads both itself: the
/// caller has no stack left for arguments in memory.
///
/// [`CurrentPacket`]: crate::current_packet::CurrentPacket
#[inline(never)]
pub fn current_use<A: Family>() -> EntryUse {
    let Some(current) = A::scratch_packet() else {
        return EntryUse::Stale;
    };
    match (current.parts(), maps::scratch_found()) {
        (Some((context, flow)), Some(entry)) => check_implicit(&context, &flow, entry),
        _ => EntryUse::Stale,
    }
}
