//! Ports of a rule, resolved to protocol numbers and port ranges.
//!
//! Invariants: a name is resolved by name *and* protocol. `icmp` means both versions. A range lies
//! within one protocol.

use std::collections::BTreeSet;

use ringfence_common::packet::protocol;

use crate::model::{NamedPort, PortMatch, Ports, Protocol};

/// Ports `first..=last` of one IP protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortRange {
    pub(crate) protocol: u8,
    pub(crate) first: u16,
    pub(crate) last: u16,
}

/// The protocol numbers that a protocol stands for.
pub(crate) fn protocol_numbers(protocol: Protocol) -> Vec<u8> {
    match protocol {
        Protocol::Tcp => vec![protocol::TCP],
        Protocol::Udp => vec![protocol::UDP],
        Protocol::Sctp => vec![protocol::SCTP],
        Protocol::Icmp => vec![protocol::ICMP, protocol::ICMPV6],
        Protocol::Number(number) => vec![number],
    }
}

/// A rule's ports: ranges for every destination, and names that the destination must declare.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Ranges for every destination.
    pub(crate) fixed: BTreeSet<PortRange>,
    /// Names to resolve on the destination.
    pub(crate) named: Vec<(Option<Protocol>, crate::model::PortName)>,
}

/// Splits the ports of a rule; `None` if it covers every protocol.
pub(crate) fn split(ports: &Ports) -> Option<Resolved> {
    let Ports::Of(matches) = ports else {
        return None;
    };
    let mut resolved = Resolved::default();
    for entry in matches {
        match entry {
            PortMatch::Protocol(protocol) => add(&mut resolved.fixed, *protocol, 0, u16::MAX),
            PortMatch::Range {
                protocol,
                first,
                last,
            } => {
                add(&mut resolved.fixed, *protocol, *first, *last);
            }
            PortMatch::Named { protocol, name } => resolved.named.push((*protocol, name.clone())),
        }
    }
    Some(resolved)
}

/// The declared ports that match a name, with or without a protocol.
pub(crate) fn declared<'a>(
    wanted: &'a (Option<Protocol>, crate::model::PortName),
    ports: impl IntoIterator<Item = &'a NamedPort> + 'a,
) -> impl Iterator<Item = &'a NamedPort> {
    let (protocol, name) = wanted;
    ports.into_iter().filter(move |port| {
        let right_protocol = protocol.is_none_or(|protocol| protocol == port.protocol);
        port.name == *name && right_protocol
    })
}

/// The range of a declared port.
pub(crate) fn exact(port: &NamedPort) -> BTreeSet<PortRange> {
    let mut ranges = BTreeSet::new();
    add(&mut ranges, port.protocol, port.port, port.port);
    ranges
}

fn add(ranges: &mut BTreeSet<PortRange>, protocol: Protocol, first: u16, last: u16) {
    for protocol in protocol_numbers(protocol) {
        ranges.insert(PortRange {
            protocol,
            first,
            last,
        });
    }
}
