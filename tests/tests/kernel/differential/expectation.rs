//! The expected outcome of a frame: a naive model of the pipeline and its protocol rules, written
//! from the design, with the oracle for policy and hash maps for the fence's state.
//!
//! Policy, mode and the peers' identities change between frames, and time passes: [`Context`] is what
//! is in force now. What an entry remembers of earlier times is in [`super::flows`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use ringfence_common::{
    drop_reason::DropReason::{self, *},
    mode::{Direction, Mode},
};

use super::flows::{Entry, FlowKey, Stamp, is_near, shows_originator};
use super::neighbourhood::{may_announce, may_arrive, may_send_arp};
use super::parse::{Discovery, Ip, Kind, Parsed, Quote, Reasons, parse};
use crate::fence::Way::{self, *};

/// The expected verdict on a frame, before the mode makes an action of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// It is allowed; the text names the step of the pipeline.
    Pass(&'static str),
    /// It is denied for one of these reasons.
    Deny(Reasons),
    /// A rule rejects it; a reject packet may be sent only if `answerable`.
    Reject { answerable: bool },
}
use Expected::{Deny, Pass, Reject};

/// The decision of policy on a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allow,
    Deny(DropReason),
    Reject,
}

/// The workload's state and the policy in force.
pub(super) struct Context<'a> {
    /// Its addresses; `None` if the interface has no endpoint.
    pub(super) own: Option<&'a [IpAddr]>,
    pub(super) mode: Mode,
    /// Whether the pick-up window is open.
    pub(super) pickup: bool,
    /// Seconds since the sequence began.
    pub(super) now: u64,
    pub(super) policy: &'a dyn InForce,
}

/// What is in force for the workload.
pub(super) trait InForce {
    /// Looks up policy for a peer and the direction, protocol and port of the flow.
    fn decide(&self, peer: IpAddr, direction: Direction, flow: (u8, u16)) -> Decision;
    /// What a decision about this peer depends on.
    fn stamp(&self, peer: IpAddr) -> Stamp;
    /// How often the peer's address got another owner.
    fn owner(&self, peer: IpAddr) -> u64;
    /// Whether the peer's address is one of this node.
    fn is_node(&self, peer: IpAddr) -> bool;
    /// Whether an address is one of the node or of a workload on it.
    fn is_on_node(&self, address: IpAddr) -> bool;
}

/// The fence's state during a sequence.
pub(super) struct Expectation<'a> {
    pub(super) context: Context<'a>,
    pub(super) flows: HashMap<FlowKey, Entry>,
    /// First fragments, with the time.
    fragments: HashMap<DatagramKey, (FirstFragment, u64)>,
}

/// Seconds after which the kernel gives up the reassembly of fragments.
const REASSEMBLY: u64 = 30;

/// What the fragments of one packet share: source, destination, identification and, over IPv4, the
/// protocol (RFC 791, RFC 8200 §4.5); and whether they leave the workload.
type DatagramKey = (IpAddr, IpAddr, u32, u8, bool);

/// What is recorded of a first fragment: protocol, ports, and the offset where its headers end.
type FirstFragment = (u8, (u16, u16), usize);

impl<'a> Expectation<'a> {
    pub(super) fn new(context: Context<'a>) -> Self {
        Self {
            context,
            flows: HashMap::new(),
            fragments: HashMap::new(),
        }
    }

    /// Lets at least so many seconds pass, and more if the programs could disagree about what has
    /// expired; returns how many.
    pub(super) fn pass_time(&mut self, seconds: u64) -> u64 {
        let before = self.context.now;
        let mut now = before + seconds;
        let is_near_an_edge = |now| {
            let mut flows = self.flows.iter();
            let mut fragments = self.fragments.values();
            flows.any(|(key, entry)| entry.is_near_an_edge(now, key.1))
                || fragments.any(|(_, seen)| is_near(seen + REASSEMBLY, now))
        };
        while is_near_an_edge(now) {
            now += 3;
        }
        self.context.now = now;
        self.flows.retain(|_, entry| now < entry.expires);
        self.fragments
            .retain(|_, (_, seen)| now < *seen + REASSEMBLY);
        now - before
    }

    /// The expected verdict on the next frame.
    pub(super) fn of(&mut self, way: Way, frame: &[u8], gso: bool) -> Expected {
        let Some(own) = self.context.own else {
            return Deny(&[UnknownEndpoint]);
        };
        let expected = match parse(frame, gso) {
            Parsed::Arp(Ok(_)) if way != Leaving => Pass("ARP to the workload"),
            Parsed::Other(reasons) | Parsed::Arp(Err(reasons)) | Parsed::Ip(Err(reasons)) => {
                Deny(reasons)
            }
            Parsed::Arp(Ok(arp)) => {
                may_send_arp(own, &arp).map_or_else(Deny, |()| Pass("ARP for an own address"))
            }
            Parsed::Ip(Ok(ip)) => self.filter_ip(own, way, ip),
        };
        match expected {
            Pass(_) if self.context.mode == Mode::Lockdown => Deny(&[Lockdown]),
            other => other,
        }
    }

    fn filter_ip(&mut self, own: &[IpAddr], way: Way, mut ip: Ip) -> Expected {
        if let Err(reasons) = check_source(own, way, &ip) {
            return Deny(reasons);
        }
        match &ip.kind {
            Kind::Discovery(discovery) => return self.discovery(own, way, discovery, &ip),
            Kind::Error(_, quote) => {
                let quote = quote.as_ref().filter(|it| it.source == ip.destination);
                return quote.map_or(Deny(&[IcmpErrorUnmatched]), |quote| {
                    self.error(own, way, quote)
                });
            }
            Kind::Whole => {
                if way == Leaving && is_dhcp_request(&ip) {
                    return Pass("DHCP");
                }
            }
            Kind::FirstFragment => {
                let record = (ip.protocol, ip.ports, ip.place);
                let seen = self.context.now;
                self.fragments
                    .insert(datagram_key(way, &ip), (record, seen));
            }
            Kind::LaterFragment => match self.fragments.get(&datagram_key(way, &ip)) {
                Some(((.., end), _)) if ip.place < *end => return Deny(&[TinyFragment]),
                Some(((protocol, ports, _), _)) => (ip.protocol, ip.ports) = (*protocol, *ports),
                None => return Deny(&[OrphanFragment]),
            },
        }
        self.flow(own, way, &ip)
    }

    fn discovery(&self, own: &[IpAddr], way: Way, discovery: &Discovery, ip: &Ip) -> Expected {
        let policy = self.context.policy;
        let checked = if way == Leaving {
            may_announce(own, discovery, ip, |address| policy.is_on_node(address))
        } else {
            may_arrive(own, discovery, ip)
        };
        let why = match discovery.kind {
            135 if ip.destination.is_multicast() => "solicitation to a group",
            135 => "solicitation to a neighbour",
            136 => "advertisement",
            133 | 134 => "router discovery",
            137 => "redirect",
            130 => "listener query",
            _ => "listener report",
        };
        checked.map_or_else(Deny, |()| Pass(why))
    }

    /// An error passes if the quoted packet belongs to a recorded flow that is allowed and whose
    /// local address is an own address. That packets from an own address pass without a rule is not
    /// recorded.
    fn error(&self, own: &[IpAddr], way: Way, quote: &Quote) -> Expected {
        // The quoted packet went in the opposite direction of the error.
        let quoted_way = if way == Leaving { Arriving } else { Leaving };
        let ends = (quote.source, quote.destination);
        let key = flow_key(quoted_way, ends, quote.protocol, quote.ports);
        let quoted_direction = direction(quoted_way);
        match self.flows.get(&key) {
            Some(entry)
                if self.is_fresh(entry, key.0[1].0)
                    && own.contains(&key.0[0].0)
                    && (entry.decision == Decision::Allow
                        || (entry.direction != quoted_direction
                            && !shows_originator(quote.protocol)
                            && !own.contains(&key.0[1].0)
                            && entry.other_side == Some(true))) =>
            {
                Pass("ICMP error about a flow")
            }
            _ => Deny(&[IcmpErrorUnmatched]),
        }
    }

    pub(super) fn conclude(&self, decision: Decision, why: &'static str, ip: &Ip) -> Expected {
        match decision {
            Decision::Allow => Pass(why),
            Decision::Deny(Policy) => Deny(&[Policy]),
            Decision::Deny(UnknownPeer) => Deny(&[UnknownPeer]),
            Decision::Deny(NoPolicyRow) => Deny(&[NoPolicyRow]),
            Decision::Deny(other) => panic!("{other:?} is not a policy reason"),
            Decision::Reject => Reject {
                answerable: self.context.mode == Mode::Enforce && may_reject(ip),
            },
        }
    }
}

pub(super) fn direction(way: Way) -> Direction {
    if way == Leaving {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

pub(super) fn peer(way: Way, ip: &Ip) -> &IpAddr {
    if way == Leaving {
        &ip.destination
    } else {
        &ip.source
    }
}

pub(super) fn flow_key(
    way: Way,
    ends: (IpAddr, IpAddr),
    protocol: u8,
    ports: (u16, u16),
) -> FlowKey {
    let mut ends = [(ends.0, ports.0), (ends.1, ports.1)];
    if way != Leaving {
        ends.reverse();
    }
    (ends, protocol)
}

fn datagram_key(way: Way, ip: &Ip) -> DatagramKey {
    let protocol = if ip.source.is_ipv4() { ip.protocol } else { 0 };
    (ip.source, ip.destination, ip.id, protocol, way == Leaving)
}

/// Checks the source address, and that the workload sends no redirects.
fn check_source(own: &[IpAddr], way: Way, ip: &Ip) -> Result<(), Reasons> {
    match way {
        Leaving => {}
        Arriving if own.contains(&ip.source) => return Err(&[SpoofedSource]),
        Arriving | FromHost | Hairpin => return Ok(()),
    }
    let is_discovery = matches!(ip.kind, Kind::Discovery(_));
    let is_valid = own.contains(&ip.source)
        || is_dhcp_request(ip)
        || (is_discovery && (ip.source == Ipv6Addr::UNSPECIFIED || is_link_local(&ip.source)));
    if !is_valid {
        return Err(&[SpoofedSource]);
    }
    match &ip.kind {
        Kind::Error(5, _) if ip.source.is_ipv4() => Err(&[Redirect]),
        _ => Ok(()),
    }
}

/// RFC 8415 §7.1.
const ALL_DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// A request of a DHCP client: over IPv4 without an address, over IPv6 from a link-local address.
fn is_dhcp_request(ip: &Ip) -> bool {
    let is_client = match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            source.is_unspecified() && destination.is_broadcast() && ip.ports == (68, 67)
        }
        (_, destination) => {
            is_link_local(&ip.source) && destination == ALL_DHCP_SERVERS && ip.ports == (546, 547)
        }
    };
    is_client && ip.protocol == 17 && matches!(ip.kind, Kind::Whole)
}

pub(super) fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether a reject packet may be sent for a packet.
fn may_reject(ip: &Ip) -> bool {
    let is_unicast = |address: &IpAddr| {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        !(address.is_multicast() || address.is_loopback() || address.is_unspecified() || broadcast)
    };
    !ip.is_reset
        && !ip.has_options
        && !matches!(ip.kind, Kind::LaterFragment)
        && is_unicast(&ip.source)
        && is_unicast(&ip.destination)
}
