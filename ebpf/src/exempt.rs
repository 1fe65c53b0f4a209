//! Flows that no rule allows: those of the own node, and those with an own address.
//!
//! Invariants: such an entry speaks for a packet only while its reason does: the node's flow for the
//! node's packets and for what answers them, the flow with an own address while that is the workload's.
//! Neither is part of what makes an entry stale, so it is asked of every packet of such a flow. Which
//! packets open one is in [`crate::first`].

use ringfence_common::{conntrack::CtEntry, ids::RuleSlot, mutant};

use crate::{conntrack::Step, context::Context, family::Family};

/// For whom an entry that needs no rule speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Exempt {
    /// For this packet.
    Holds,
    /// For none any more: its peer was the workload's own address, which it is not now. That may leave table
    /// and epoch as they were.
    Ended,
    /// For the node's packets and what answers them, and this one comes from elsewhere: what the node may
    /// do without a rule, nobody else may who has its address.
    NotThis,
}

/// Asked of the few flows that no rule allowed; out of line, because the verifier follows every comparison.
#[inline(never)]
fn exempt<A: Family>(context: &Context, step: &Step<A>, entry: &CtEntry) -> Exempt {
    if entry.rule == RuleSlot::OWN_ADDRESS {
        let own = step.peer().owned_by(context.endpoint);
        return if mutant!(once_own_always_own, own, true) {
            Exempt::Holds
        } else {
            Exempt::Ended
        };
    }
    let foreign = !step.from_workload && context.ingress_ifindex != 0;
    if mutant!(anybody_goes_on_for_the_node, foreign, false) {
        Exempt::NotThis
    } else {
        Exempt::Holds
    }
}

/// What [`exempt`] says, if it is to be asked at all: the one comparison that an established packet costs.
#[inline(always)]
pub fn speaks<A: Family>(context: &Context, step: &Step<A>, entry: &CtEntry) -> Exempt {
    if entry.rule.is_exempt() {
        exempt(context, step, entry)
    } else {
        Exempt::Holds
    }
}
