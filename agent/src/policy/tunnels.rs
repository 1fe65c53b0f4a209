//! What leads into the tunnels of nodes, and which rules allow it.
//!
//! A node takes packets out of tunnel packets and forwards them with the source they have inside, which
//! every fence then believes. Invariants: to a node, and to an address that may have one behind it (special,
//! or of the cluster and unlisted), no default allows a tunnel, and no rule that does not name the port or the protocol alone; rules that
//! deny are not restricted. Only egress has tunnels: what nodes send is theirs.

use std::collections::BTreeSet;

use ringfence_common::{ids::RuleSlot, mode::Verdict, packet::protocol::UDP};

use super::{
    digest::Digest,
    outcome::Decider,
    ports::PortRange,
    selector::{Requirement, Selector},
    table::FenceRule,
};
use crate::model::{TUNNEL_PROTOCOLS, is_tunnel};

/// The tunnels of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tunnels {
    pub(crate) ports: BTreeSet<u16>,
    /// What every peer matches that may end a tunnel.
    pub(crate) ends: Selector,
}

impl Tunnels {
    /// The tunnels at these UDP ports, and those that are protocols.
    pub(crate) fn at(ports: &BTreeSet<u16>) -> Self {
        Self {
            ports: ports.clone(),
            ends: Selector::new(Requirement {
                peer: None,
                declares: None,
                unnamed: false,
                ends_tunnels: true,
            }),
        }
    }

    /// Whether identities that match these selectors may end tunnels.
    pub(crate) fn end_at(&self, matched: &[Digest]) -> bool {
        matched.contains(&self.ends.digest)
    }

    /// The protocols that lead into tunnels, some of them on some ports only.
    pub(crate) fn protocols() -> impl Iterator<Item = u8> {
        TUNNEL_PROTOCOLS.into_iter().chain([UDP])
    }

    /// Whether a protocol and port lead into a tunnel.
    pub(crate) fn lead(&self, protocol: u8, port: u32) -> bool {
        u16::try_from(port).is_ok_and(|port| is_tunnel(&self.ports, protocol, port))
    }

    /// The ports at which the verdicts of a protocol may differ.
    pub(crate) fn edges(&self, protocol: u8) -> impl Iterator<Item = u32> {
        let ports = self.ports.iter().filter(move |_| protocol == UDP);
        ports.flat_map(|port| [u32::from(*port), u32::from(*port) + 1])
    }

    /// Whether a rule that covers this protocol and port decides about the tunnel.
    pub(crate) fn heed(rule: &FenceRule, protocol: u8, port: u32) -> bool {
        if rule.action.denies() {
            return true;
        }
        let names = |range: &PortRange| names(range, protocol, port);
        rule.ports
            .as_ref()
            .is_some_and(|ports| ports.iter().any(names))
    }

    /// The default for tunnels.
    pub(crate) fn default(default: Decider) -> Decider {
        match default.verdict {
            Verdict::Allow => Decider::of(Verdict::Deny, RuleSlot::NODE_TUNNEL),
            Verdict::Deny => default,
        }
    }
}

/// Whether a range of a rule is this protocol and no other port.
fn names(range: &PortRange, protocol: u8, port: u32) -> bool {
    let is_alone = range.first == range.last && u32::from(range.first) == port;
    range.protocol == protocol && (protocol != UDP || is_alone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_names_a_tunnel_that_is_all_of_it() {
        let range = |first, last| PortRange {
            protocol: UDP,
            first,
            last,
        };
        for (first, last, is_named) in [
            (4789, 4789, true),
            (4789, 4790, false),
            (4788, 4789, false),
            (0, u16::MAX, false),
            (4790, 4790, false),
        ] {
            let named = names(&range(first, last), UDP, 4789);
            assert_eq!(named, is_named, "{first} to {last}");
        }
        assert!(!names(&range(4789, 4789), 6, 4789), "another protocol");
    }
}
