//! Flows that no rule allows: those of the own node, and those with an own address.
//!
//! Invariants: such an entry speaks for a packet only while its reason does: the node's flow for the
//! node's packets and for what answers them, the flow with an own address while that is the workload's.
//! Neither is part of what makes an entry stale, so it is asked of every packet of such a flow. Which
//! packets open one is in [`crate::ct_new`].

use ringfence_common::{conntrack::CtEntry, ids::RuleSlot, mutant};

use crate::{conntrack::FlowPacket, context::Context, family::Family};

/// For whom an entry that needs no rule speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum EntryUse {
    /// For this packet.
    Usable,
    /// For none any more: its peer was the workload's own address, which it is not now. That may leave table
    /// and epoch as they were.
    Stale,
    /// For the node's packets and what answers them, and this one comes from elsewhere: what the node may
    /// do without a rule, nobody else may who has its address.
    OtherSender,
}

/// Asked of the few flows that no rule allowed; out of line, because the verifier follows every comparison.
#[inline(never)]
fn check_implicit<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &CtEntry) -> EntryUse {
    if entry.rule == RuleSlot::OWN_ADDRESS {
        let own = flow.peer().owned_by(context.endpoint);
        return if mutant!(once_own_always_own, own, true) {
            EntryUse::Usable
        } else {
            EntryUse::Stale
        };
    }
    let foreign = !flow.from_workload && context.ingress_ifindex != 0;
    if mutant!(anybody_goes_on_for_the_node, foreign, false) {
        EntryUse::OtherSender
    } else {
        EntryUse::Usable
    }
}

/// What [`check_implicit`] says, if it is to be asked at all: the one comparison that an established packet costs.
#[inline(always)]
pub fn entry_use<A: Family>(context: &Context, flow: &FlowPacket<A>, entry: &CtEntry) -> EntryUse {
    if entry.rule.is_implicit_allow() {
        check_implicit(context, flow, entry)
    } else {
        EntryUse::Usable
    }
}
