//! The expected outcome of a frame: a naive model of the pipeline and its protocol rules, written
//! from the design, with the oracle for policy and hash maps for the fence's state.
//!
//! Nothing here expires: a sequence is shorter than every timeout. Policy does not change during a
//! sequence.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::{
    drop_reason::DropReason::{self, *},
    mode::{Direction, Mode},
};

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

/// The workload's state and the policy.
pub(super) struct Context<'a> {
    /// Its addresses; `None` if the interface has no endpoint.
    pub(super) own: Option<&'a [IpAddr]>,
    pub(super) mode: Mode,
    /// Whether the pick-up window is open.
    pub(super) pickup: bool,
    /// Looks up policy for a peer and the direction, protocol and port of the flow.
    pub(super) decide: &'a mut dyn FnMut(IpAddr, Direction, u8, u16) -> Decision,
}

/// A conntrack entry.
#[derive(Clone, Copy)]
struct Flow {
    decision: Decision,
    direction: Direction,
    from_host: bool,
}

/// The fence's state during a sequence.
pub(super) struct Expectation<'a> {
    context: Context<'a>,
    flows: HashMap<FlowKey, Flow>,
    fragments: HashMap<DatagramKey, FirstFragment>,
}

/// Address and port of the workload and of the peer; the protocol.
type FlowKey = ([(IpAddr, u16); 2], u8);

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

    /// The expected verdict on the next frame.
    pub(super) fn of(&mut self, way: Way, frame: &[u8], gso: bool) -> Expected {
        let Some(own) = self.context.own else {
            return Deny(&[UnknownEndpoint]);
        };
        let expected = match parse(frame, gso) {
            Parsed::Arp(_) if way != Leaving => Pass("ARP to the workload"),
            Parsed::Other(reasons) | Parsed::Arp(Err(reasons)) | Parsed::Ip(Err(reasons)) => {
                Deny(reasons)
            }
            Parsed::Arp(Ok(arp)) => {
                let is_probe = arp.is_request && arp.sender == Ipv4Addr::UNSPECIFIED;
                if is_probe || own.contains(&arp.sender) {
                    Pass("ARP for an own address")
                } else {
                    Deny(&[ArpSpoof])
                }
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
            Kind::Discovery(_) => return Pass("neighbour discovery"),
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
                self.fragments.insert(datagram_key(way, &ip), record);
            }
            Kind::LaterFragment => match self.fragments.get(&datagram_key(way, &ip)) {
                Some((.., end)) if ip.place < *end => return Deny(&[TinyFragment]),
                Some((protocol, ports, _)) => (ip.protocol, ip.ports) = (*protocol, *ports),
                None => return Deny(&[OrphanFragment]),
            },
        }
        self.flow(own, way, &ip)
    }

    /// An error passes if the quoted packet belongs to a recorded flow that is allowed and whose
    /// local address is an own address.
    fn error(&self, own: &[IpAddr], way: Way, quote: &Quote) -> Expected {
        // The quoted packet went in the opposite direction of the error.
        let quoted_way = if way == Leaving { Arriving } else { Leaving };
        let ends = (quote.source, quote.destination);
        let key = flow_key(quoted_way, ends, quote.protocol, quote.ports);
        match self.flows.get(&key) {
            Some(flow) if flow.decision == Decision::Allow && own.contains(&key.0[0].0) => {
                Pass("ICMP error about a flow")
            }
            _ => Deny(&[IcmpErrorUnmatched]),
        }
    }

    fn flow(&mut self, own: &[IpAddr], way: Way, ip: &Ip) -> Expected {
        let ends = (ip.source, ip.destination);
        let key = flow_key(way, ends, ip.protocol, ip.ports);
        let here = if way == Leaving {
            Direction::Egress
        } else {
            Direction::Ingress
        };
        let not_from_host = matches!(way, Arriving | Hairpin);
        let known = self.flows.get(&key).copied();
        // Only the host may use an entry that the host created.
        let may_use = |flow: &Flow| !(flow.from_host && not_from_host);
        if let Some(flow) = known.filter(may_use) {
            let reply = flow.direction != here;
            // A packet of such a protocol is no reply to a flow that is denied, but may open one.
            let shows_opener = matches!(ip.protocol, 1 | 6 | 58);
            let reversed = reply && flow.decision != Decision::Allow && !shows_opener;
            if !ip.is_opening && !reversed {
                let why = if reply {
                    "reply direction"
                } else {
                    "original direction"
                };
                return self.conclude(flow.decision, why, ip);
            }
            if ip.is_opening && !reply {
                let (decision, why) = if flow.from_host {
                    (Decision::Allow, "from the host, opened again")
                } else {
                    let lookup = (here, ip.ports.1);
                    (self.decide(own, way, ip, lookup), "opened again")
                };
                let renewed = Flow {
                    decision,
                    direction: here,
                    ..flow
                };
                self.remember(key, renewed, true);
                return self.conclude(decision, why, ip);
            }
        }
        let mid_flow = ip.protocol == 6 && !ip.is_opening;
        if way == FromHost && mid_flow && !own.contains(&ip.source) {
            return self.host_mid_flow(own, ip, key);
        }
        let from_host = way == FromHost && !mid_flow;
        let (decision, direction, why) = if from_host {
            (Decision::Allow, here, "from the host")
        } else {
            self.decide_new(own, way, ip, here)
        };
        // A sender that may not use the entry replaces it only with an allowed packet that opens a
        // flow.
        if known.is_none() || (decision == Decision::Allow && !mid_flow) {
            let flow = Flow {
                decision,
                direction,
                from_host,
            };
            self.remember(key, flow, false);
        }
        self.conclude(decision, why, ip)
    }

    /// A mid-flow TCP packet from the host always passes. It creates an entry if it may be a reply
    /// to a flow that policy allows the workload to open, or if the host seems to be the client of
    /// a connection older than the fence.
    fn host_mid_flow(&mut self, own: &[IpAddr], ip: &Ip, key: FlowKey) -> Expected {
        if ip.is_syn_ack || ip.is_reset {
            return Pass("from the host, mid-flow, no entry");
        }
        let as_reply = self.decide(own, FromHost, ip, (Direction::Egress, ip.ports.0));
        let by_workload = as_reply == Decision::Allow;
        let by_host = self.context.pickup && ip.ports.0 >= 32_768;
        if !by_workload && !by_host {
            return Pass("from the host, mid-flow, no entry");
        }
        let flow = Flow {
            decision: Decision::Allow,
            direction: if by_workload {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            from_host: !by_workload,
        };
        self.remember(key, flow, false);
        Pass(if by_workload {
            "from the host, mid-flow, as a reply"
        } else {
            "from the host, picked up mid-flow"
        })
    }

    /// The decision on a packet without an entry.
    fn decide_new(
        &mut self,
        own: &[IpAddr],
        way: Way,
        ip: &Ip,
        here: Direction,
    ) -> (Decision, Direction, &'static str) {
        let forward = self.decide(own, way, ip, (here, ip.ports.1));
        if own.contains(peer(way, ip)) {
            return (forward, here, "to an own address");
        }
        // Picking up a connection older than the fence: only TCP shows that a packet is mid-flow.
        if !(self.context.pickup && ip.protocol == 6 && !ip.is_opening) {
            return (forward, here, "new flow");
        }
        let there = match here {
            Direction::Egress => Direction::Ingress,
            Direction::Ingress => Direction::Egress,
        };
        let backward = self.decide(own, way, ip, (there, ip.ports.0));
        // The server is assumed to have the lower port; the other direction applies only if that is
        // denied.
        let (likely, other) = if ip.ports.0 < ip.ports.1 {
            ((backward, there), (forward, here))
        } else {
            ((forward, here), (backward, there))
        };
        let (decision, direction) = if likely.0 != Decision::Allow && other.0 == Decision::Allow {
            other
        } else {
            likely
        };
        (decision, direction, "picked up mid-flow")
    }

    fn decide(
        &mut self,
        own: &[IpAddr],
        way: Way,
        ip: &Ip,
        (direction, port): (Direction, u16),
    ) -> Decision {
        let peer = peer(way, ip);
        if own.contains(peer) {
            return Decision::Allow;
        }
        (self.context.decide)(*peer, direction, ip.protocol, port)
    }

    /// Records a flow if its packet passes, or if it has an entry already.
    fn remember(&mut self, key: FlowKey, flow: Flow, known: bool) {
        let passes = match self.context.mode {
            Mode::Observe => true,
            Mode::Enforce => flow.decision == Decision::Allow,
            Mode::Lockdown => false,
        };
        if passes || known {
            self.flows.insert(key, flow);
        }
    }

    fn conclude(&self, decision: Decision, why: &'static str, ip: &Ip) -> Expected {
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

fn peer(way: Way, ip: &Ip) -> &IpAddr {
    if way == Leaving {
        &ip.destination
    } else {
        &ip.source
    }
}

fn flow_key(way: Way, ends: (IpAddr, IpAddr), protocol: u8, ports: (u16, u16)) -> FlowKey {
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

/// Checks the source address, and what the workload may announce.
fn check_source(own: &[IpAddr], way: Way, ip: &Ip) -> Result<(), Reasons> {
    match way {
        Leaving => {}
        Arriving if own.contains(&ip.source) => return Err(&[SpoofedSource]),
        Arriving | FromHost | Hairpin => {
            return match &ip.kind {
                Kind::Discovery(discovery) if !has_link_scope(discovery.kind, ip) => {
                    Err(&[NeighbourSpoof])
                }
                _ => Ok(()),
            };
        }
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
        Kind::Discovery(discovery) => check_discovery(own, discovery, ip),
        _ => Ok(()),
    }
}

fn check_discovery(own: &[IpAddr], discovery: &Discovery, ip: &Ip) -> Result<(), Reasons> {
    match discovery.kind {
        134 => Err(&[RouterAdvertisement]),
        137 => Err(&[Redirect]),
        kind if !has_link_scope(kind, ip) => Err(&[NeighbourSpoof]),
        133 if !ip.destination.is_multicast() && !is_link_local(&ip.destination) => {
            Err(&[NeighbourSpoof])
        }
        135 | 136 => {
            let may_be_about =
                |address| own.contains(&address) || is_derived_link_local(discovery, address);
            let is_spoofed = match discovery.target {
                None => true,
                Some(target) => discovery.kind == 136 && !may_be_about(target),
            };
            let from_another = is_link_local(&ip.source) && !may_be_about(ip.source);
            if is_spoofed || from_another {
                Err(&[NeighbourSpoof])
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}

/// Whether a discovery message comes from the link and stays on it.
fn has_link_scope(kind: u8, ip: &Ip) -> bool {
    let unspecified = ip.source.is_unspecified();
    let to_group = ip.destination.is_multicast();
    if (133..=137).contains(&kind) {
        ip.hop_limit == 255 && (!unspecified || to_group)
    } else {
        to_group && (unspecified || is_link_local(&ip.source))
    }
}

/// Whether a message may be about this address: it must be the link-local address derived from the
/// hardware address of the frame, which is also the only one that its option may name.
fn is_derived_link_local(discovery: &Discovery, address: IpAddr) -> bool {
    let [a, b, c, d, e, f] = discovery.hardware;
    let derived = [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ];
    let names_it = match discovery.options.as_slice() {
        [] => true,
        [1 | 2, 1, named @ ..] => named == discovery.hardware,
        _ => false,
    };
    address == IpAddr::from(derived) && names_it
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

fn is_link_local(address: &IpAddr) -> bool {
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
