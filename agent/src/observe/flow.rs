//! Flow records: the kernel's flow events, decoded and with names.
//!
//! Invariants: source and destination are those of the packet; the verdict word is derived from
//! verdict and action, never from the mode; an event of an unknown kind is refused, never
//! interpreted. `hubble` formats records.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use ringfence_common::drop_reason::DropReason;
use ringfence_common::event::{EventKind, FlowEvent};
use ringfence_common::ids::IdentityId;
use ringfence_common::mode::{Action, Direction, Verdict};
use ringfence_common::net::Ip6;

use super::names::{Decider, Directory};
use crate::model::{Owner, ServiceId};

/// IP protocol numbers with a format of their own in records.
pub(crate) mod protocol {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const SCTP: u8 = 132;
}

/// The result for a flow: its verdict, and whether its packets passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FlowVerdict {
    /// Allowed, and passed.
    Allowed,
    /// Dropped.
    Denied,
    /// Denied, but passed because the namespace is in `observe` mode.
    WouldDeny,
}

impl FlowVerdict {
    /// Every verdict.
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::WouldDeny];

    fn of(verdict: Verdict, action: u8) -> Self {
        match (verdict, action == Action::Pass as u8) {
            (_, false) => Self::Denied,
            (Verdict::Allow, true) => Self::Allowed,
            (Verdict::Deny, true) => Self::WouldDeny,
        }
    }

    /// The word used on the command line, in metrics and in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::WouldDeny => "would-deny",
        }
    }
}

impl fmt::Display for FlowVerdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.name())
    }
}

/// A text that is not a flow verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown verdict {}: expected allowed, denied or would-deny", crate::model::quote(.0))]
pub struct FlowVerdictError(String);

impl FromStr for FlowVerdict {
    type Err = FlowVerdictError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|verdict| verdict.name() == text);
        known.ok_or_else(|| FlowVerdictError(text.to_owned()))
    }
}

/// One end of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its address; `None` for frames that are neither IPv4 nor IPv6.
    pub ip: Option<IpAddr>,
    /// Its port, or the identifier of an ICMP echo; 0 for none.
    pub port: u16,
    /// Its identity.
    pub identity: IdentityId,
    /// The owner of the address.
    pub owner: Option<Owner>,
    /// The Service whose address it is, if it has no owner.
    pub service: Option<ServiceId>,
}

/// A flow record with names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRecord {
    /// Wall-clock time.
    pub time: Timestamp,
    /// Unique for this record.
    pub uuid: u128,
    /// What happened.
    pub kind: EventKind,
    /// The verdict, and whether packets passed.
    pub verdict: FlowVerdict,
    /// Why it was, or would have been, dropped.
    pub reason: Option<DropReason>,
    /// The direction in which the flow was evaluated, seen from the workload.
    pub direction: Direction,
    /// Whether the packet had the flow's reply direction.
    pub is_reply: bool,
    /// Whether the packet left the endpoint whose policy was evaluated.
    pub from_workload: bool,
    /// The packet's source.
    pub source: End,
    /// The packet's destination.
    pub destination: End,
    /// IP protocol number; 0 if the packet could not be parsed that far.
    pub protocol: u8,
    /// TCP flags of the packet.
    pub tcp_flags: u8,
    /// The workload's interface.
    pub ifindex: u32,
    /// What decided.
    pub decider: Decider,
    /// The number of packets that this record reports.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The node's name.
    pub node: Arc<str>,
}

impl FlowRecord {
    /// The end whose policy was evaluated.
    #[must_use]
    pub fn local(&self) -> &End {
        if self.from_workload {
            &self.source
        } else {
            &self.destination
        }
    }
}

/// Turns flow events into flow records.
#[derive(Debug, Default)]
pub struct Decoder {
    seed: RandomState,
    count: AtomicU64,
}

impl Decoder {
    /// Decodes one event; `None` if this version does not know its kind or direction.
    ///
    /// `wall_minus_ticks` is the difference between the wall clock and the tick clock in ns.
    #[must_use]
    pub fn decode(
        &self,
        event: &FlowEvent,
        names: &Directory,
        wall_minus_ticks: i128,
    ) -> Option<FlowRecord> {
        let kind = EventKind::from_raw(event.kind)?;
        let direction = Direction::from_raw(event.direction)?;
        let from_workload = event.from_workload == 1;
        let local = local_end(event, names);
        let peer = peer_end(event, names);
        let (source, destination) = if from_workload {
            (local, peer)
        } else {
            (peer, local)
        };
        let time = Timestamp::from_nanosecond(i128::from(event.time) + wall_minus_ticks).ok()?;
        Some(FlowRecord {
            time,
            uuid: self.next_uuid(),
            kind,
            verdict: FlowVerdict::of(Verdict::from_raw(event.verdict), event.action),
            reason: DropReason::from_raw(event.reason),
            direction,
            is_reply: event.is_reply(),
            from_workload,
            source,
            destination,
            protocol: event.protocol,
            tcp_flags: event.tcp,
            ifindex: event.ifindex,
            decider: names.decider(event.rule),
            packets: event.packets,
            bytes: event.bytes,
            node: Arc::clone(names.node()),
        })
    }

    /// A version 4 UUID (RFC 9562): the counter makes it unique, the seed unpredictable.
    fn next_uuid(&self) -> u128 {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let (high, low) = (
            self.seed.hash_one((number, 0u8)),
            self.seed.hash_one((number, 1u8)),
        );
        let bits = u128::from(high) << 64 | u128::from(low);
        bits & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62
    }
}

fn local_end(event: &FlowEvent, names: &Directory) -> End {
    let ip = address(event.local, event.family);
    let by_interface = names.endpoint(event.ifindex).cloned().map(Owner::Workload);
    let owner = by_interface.or_else(|| names.owner(ip?).cloned());
    End {
        ip,
        port: event.local_port.number(),
        identity: event.identity,
        owner,
        service: None,
    }
}

fn peer_end(event: &FlowEvent, names: &Directory) -> End {
    let ip = address(event.peer, event.family);
    let owner = ip.and_then(|ip| names.owner(ip)).cloned();
    let service = ip.filter(|_| owner.is_none());
    End {
        ip,
        port: event.peer_port.number(),
        identity: event.peer_identity,
        owner,
        service: service.and_then(|ip| names.service(ip)).cloned(),
    }
}

fn address(wide: Ip6, family: u8) -> Option<IpAddr> {
    let address = Ipv6Addr::from(wide.to_wire());
    match family {
        4 => address.to_ipv4_mapped().map(IpAddr::V4),
        6 => Some(IpAddr::V6(address)),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
