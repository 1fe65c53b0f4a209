//! What must become of a frame: the packet path and its protocol rules, written down naively from
//! the design, with the oracle for policy and hash maps for what the fence remembers.
//!
//! Nothing here expires: an episode is shorter than every timeout. Policy does not change while an
//! episode lasts.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::{
    drop_reason::DropReason::{self, *},
    mode::{Direction, Mode},
};

use super::reading::{Discovery, Ip, Kind, Quote, Reading, Refusal, read};
use crate::fence::Way::{self, *};

/// What must become of a frame before the mode says what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// It passes, and why.
    Pass(&'static str),
    /// It is refused for one of these reasons.
    Refuse(Refusal),
    /// A rule denies it and has its sender told, if it is one that may be answered.
    Reject { answerable: bool },
}
use Expected::{Pass, Refuse, Reject};

/// What policy says of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Allow,
    Deny(DropReason),
    Reject,
}

/// One workload's surroundings.
pub(super) struct Surroundings<'a> {
    /// Its addresses; `None` when the interface belongs to nobody.
    pub(super) own: Option<&'a [IpAddr]>,
    pub(super) mode: Mode,
    /// Whether connections may be older than the fence.
    pub(super) pickup: bool,
    /// Asks policy: the peer, and the direction, protocol and port of the flow.
    pub(super) judge: &'a mut dyn FnMut(IpAddr, Direction, u8, u16) -> Judgement,
}

/// What is remembered of a flow.
#[derive(Clone, Copy)]
struct Flow {
    judgement: Judgement,
    direction: Direction,
    from_node: bool,
}

/// What a fence remembers while an episode lasts.
pub(super) struct Expectation<'a> {
    around: Surroundings<'a>,
    flows: HashMap<Ends, Flow>,
    fragments: HashMap<Train, First>,
}

/// The workload's end of a flow and its peer's, with their ports; its protocol.
type Ends = ([(IpAddr, u16); 2], u8);

/// What fragments of one packet share: source, destination, identification and, over IPv4, the
/// protocol (RFC 791, RFC 8200 §4.5); and whether they leave the workload.
type Train = (IpAddr, IpAddr, u32, u8, bool);

/// What a first fragment says of the later ones: protocol, ports, and where the headers end.
type First = (u8, (u16, u16), usize);

impl<'a> Expectation<'a> {
    pub(super) fn new(around: Surroundings<'a>) -> Self {
        Self {
            around,
            flows: HashMap::new(),
            fragments: HashMap::new(),
        }
    }

    /// What must become of the next frame.
    pub(super) fn of(&mut self, way: Way, frame: &[u8], gso: bool) -> Expected {
        let Some(own) = self.around.own else {
            return Refuse(&[UnknownEndpoint]);
        };
        let expected = match read(frame, gso) {
            Reading::Arp(_) if way != Leaving => Pass("ARP arrives"),
            Reading::Other(reasons) | Reading::Arp(Err(reasons)) | Reading::Ip(Err(reasons)) => {
                Refuse(reasons)
            }
            Reading::Arp(Ok(arp)) => {
                let probes = arp.is_request && arp.sender == Ipv4Addr::UNSPECIFIED;
                if probes || own.contains(&arp.sender) {
                    Pass("ARP in the own name")
                } else {
                    Refuse(&[ArpSpoof])
                }
            }
            Reading::Ip(Ok(ip)) => self.internet(own, way, ip),
        };
        match expected {
            Pass(_) if self.around.mode == Mode::Lockdown => Refuse(&[Lockdown]),
            other => other,
        }
    }

    fn internet(&mut self, own: &[IpAddr], way: Way, mut ip: Ip) -> Expected {
        if let Err(reasons) = source(own, way, &ip) {
            return Refuse(reasons);
        }
        match &ip.kind {
            Kind::Discovery(_) => return Pass("neighbour discovery"),
            Kind::Error(_, quote) => {
                let quote = quote.as_ref().filter(|it| it.source == ip.destination);
                return quote.map_or(Refuse(&[IcmpErrorUnmatched]), |quote| {
                    self.error(own, way, quote)
                });
            }
            Kind::Whole => {
                if way == Leaving && asks_for_address(&ip) {
                    return Pass("DHCP");
                }
            }
            Kind::FirstFragment => {
                let record = (ip.protocol, ip.ports, ip.place);
                self.fragments.insert(train(way, &ip), record);
            }
            Kind::LaterFragment => match self.fragments.get(&train(way, &ip)) {
                Some((.., end)) if ip.place < *end => return Refuse(&[TinyFragment]),
                Some((protocol, ports, _)) => (ip.protocol, ip.ports) = (*protocol, *ports),
                None => return Refuse(&[OrphanFragment]),
            },
        }
        self.flow(own, way, &ip)
    }

    /// An error passes if an allowed flow is recorded that the workload took part in as the quoted
    /// packet says.
    fn error(&self, own: &[IpAddr], way: Way, quote: &Quote) -> Expected {
        // Who complains received the quoted packet.
        let came = if way == Leaving { Arriving } else { Leaving };
        let ends = (quote.source, quote.destination);
        let key = key(came, ends, quote.protocol, quote.ports);
        match self.flows.get(&key) {
            Some(flow) if flow.judgement == Judgement::Allow && own.contains(&key.0[0].0) => {
                Pass("ICMP error about a flow")
            }
            _ => Refuse(&[IcmpErrorUnmatched]),
        }
    }

    fn flow(&mut self, own: &[IpAddr], way: Way, ip: &Ip) -> Expected {
        let ends = (ip.source, ip.destination);
        let key = key(way, ends, ip.protocol, ip.ports);
        let here = if way == Leaving {
            Direction::Egress
        } else {
            Direction::Ingress
        };
        let from_elsewhere = matches!(way, Arriving | Hairpin);
        let known = self.flows.get(&key).copied();
        // What the node began, nobody else goes on with.
        let speaks = |flow: &Flow| !(flow.from_node && from_elsewhere);
        if let Some(flow) = known.filter(speaks) {
            let reply = flow.direction != here;
            if !ip.opens {
                let why = if reply { "a reply" } else { "a flow goes on" };
                return self.conclude(flow.judgement, why, ip);
            }
            if !reply {
                let (judgement, why) = if flow.from_node {
                    (Judgement::Allow, "own node again")
                } else {
                    let ask = (here, ip.ports.1);
                    (self.judge(own, way, ip, ask), "opened again")
                };
                let renewed = Flow {
                    judgement,
                    direction: here,
                    ..flow
                };
                self.remember(key, renewed, true);
                return self.conclude(judgement, why, ip);
            }
        }
        let mid_flow = ip.protocol == 6 && !ip.opens;
        if way == FromNode && mid_flow && !own.contains(&ip.source) {
            return self.late_answer(own, ip, key);
        }
        let from_node = way == FromNode && !mid_flow;
        let (judgement, direction, why) = if from_node {
            (Judgement::Allow, here, "from the own node")
        } else {
            self.first(own, way, ip, here)
        };
        // Whoever a flow does not speak for takes it over only if they may pass, and open one.
        if known.is_none() || (judgement == Judgement::Allow && !mid_flow) {
            let flow = Flow {
                judgement,
                direction,
                from_node,
            };
            self.remember(key, flow, false);
        }
        self.conclude(judgement, why, ip)
    }

    /// A TCP packet of the node that opens nothing may be an answer. It passes, and the workload may go on
    /// if it might have asked; or if the node seems to be the client of a connection older than the fence.
    fn late_answer(&mut self, own: &[IpAddr], ip: &Ip, key: Ends) -> Expected {
        if ip.accepts || ip.is_reset {
            return Pass("from the own node, and opens nothing");
        }
        let asked = self.judge(own, FromNode, ip, (Direction::Egress, ip.ports.0));
        let by_workload = asked == Judgement::Allow;
        let by_node = self.around.pickup && ip.ports.0 >= 32_768;
        if !by_workload && !by_node {
            return Pass("from the own node, and opens nothing");
        }
        let flow = Flow {
            judgement: Judgement::Allow,
            direction: if by_workload {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            from_node: !by_workload,
        };
        self.remember(key, flow, false);
        Pass(if by_workload {
            "from the own node, as an answer"
        } else {
            "from the own node, older"
        })
    }

    /// Judges a packet that no flow is recorded for.
    fn first(
        &mut self,
        own: &[IpAddr],
        way: Way,
        ip: &Ip,
        here: Direction,
    ) -> (Judgement, Direction, &'static str) {
        let forward = self.judge(own, way, ip, (here, ip.ports.1));
        if own.contains(peer(way, ip)) {
            return (forward, here, "to the own address");
        }
        // A connection from before the fence: TCP alone shows that it is under way.
        if !(self.around.pickup && ip.protocol == 6 && !ip.opens) {
            return (forward, here, "a new flow");
        }
        let there = match here {
            Direction::Egress => Direction::Ingress,
            Direction::Ingress => Direction::Egress,
        };
        let backward = self.judge(own, way, ip, (there, ip.ports.0));
        // Servers have the lower port; the other guess counts only where that one is denied.
        let (likely, other) = if ip.ports.0 < ip.ports.1 {
            ((backward, there), (forward, here))
        } else {
            ((forward, here), (backward, there))
        };
        let (judgement, direction) = if likely.0 != Judgement::Allow && other.0 == Judgement::Allow
        {
            other
        } else {
            likely
        };
        (judgement, direction, "an older connection")
    }

    fn judge(
        &mut self,
        own: &[IpAddr],
        way: Way,
        ip: &Ip,
        (direction, port): (Direction, u16),
    ) -> Judgement {
        let peer = peer(way, ip);
        if own.contains(peer) {
            return Judgement::Allow;
        }
        (self.around.judge)(*peer, direction, ip.protocol, port)
    }

    /// A flow is recorded if its packet passes, or if it was before.
    fn remember(&mut self, key: Ends, flow: Flow, known: bool) {
        let passes = match self.around.mode {
            Mode::Observe => true,
            Mode::Enforce => flow.judgement == Judgement::Allow,
            Mode::Lockdown => false,
        };
        if passes || known {
            self.flows.insert(key, flow);
        }
    }

    fn conclude(&self, judgement: Judgement, why: &'static str, ip: &Ip) -> Expected {
        match judgement {
            Judgement::Allow => Pass(why),
            Judgement::Deny(Policy) => Refuse(&[Policy]),
            Judgement::Deny(UnknownPeer) => Refuse(&[UnknownPeer]),
            Judgement::Deny(NoPolicyRow) => Refuse(&[NoPolicyRow]),
            Judgement::Deny(other) => panic!("{other:?} is no judgement"),
            Judgement::Reject => Reject {
                answerable: self.around.mode == Mode::Enforce && may_be_answered(ip),
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

fn key(way: Way, ends: (IpAddr, IpAddr), protocol: u8, ports: (u16, u16)) -> Ends {
    let mut ends = [(ends.0, ports.0), (ends.1, ports.1)];
    if way != Leaving {
        ends.reverse();
    }
    (ends, protocol)
}

fn train(way: Way, ip: &Ip) -> Train {
    let protocol = if ip.source.is_ipv4() { ip.protocol } else { 0 };
    (ip.source, ip.destination, ip.id, protocol, way == Leaving)
}

/// Whether the source may be what it says, and say what it says.
fn source(own: &[IpAddr], way: Way, ip: &Ip) -> Result<(), Refusal> {
    match way {
        Leaving => {}
        Arriving if own.contains(&ip.source) => return Err(&[SpoofedSource]),
        Arriving | FromNode | Hairpin => {
            return match &ip.kind {
                Kind::Discovery(discovery) if !is_near(discovery.kind, ip) => {
                    Err(&[NeighbourSpoof])
                }
                _ => Ok(()),
            };
        }
    }
    let discovers = matches!(ip.kind, Kind::Discovery(_));
    let may = own.contains(&ip.source)
        || asks_for_address(ip)
        || (discovers && (ip.source == Ipv6Addr::UNSPECIFIED || is_link_local(&ip.source)));
    if !may {
        return Err(&[SpoofedSource]);
    }
    match &ip.kind {
        Kind::Error(5, _) if ip.source.is_ipv4() => Err(&[Redirect]),
        Kind::Discovery(discovery) => announces(own, discovery, ip),
        _ => Ok(()),
    }
}

fn announces(own: &[IpAddr], discovery: &Discovery, ip: &Ip) -> Result<(), Refusal> {
    match discovery.kind {
        134 => Err(&[RouterAdvertisement]),
        137 => Err(&[Redirect]),
        kind if !is_near(kind, ip) => Err(&[NeighbourSpoof]),
        133 if !ip.destination.is_multicast() && !is_link_local(&ip.destination) => {
            Err(&[NeighbourSpoof])
        }
        135 | 136 => {
            let may_be_about = |address| own.contains(&address) || claims(discovery, address);
            let spoofs = match discovery.target {
                None => true,
                Some(target) => discovery.kind == 136 && !may_be_about(target),
            };
            let from_another = is_link_local(&ip.source) && !may_be_about(ip.source);
            if spoofs || from_another {
                Err(&[NeighbourSpoof])
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}

/// Whether discovery comes from the link and stays on it.
fn is_near(kind: u8, ip: &Ip) -> bool {
    let nobody = ip.source.is_unspecified();
    let to_group = ip.destination.is_multicast();
    if (133..=137).contains(&kind) {
        ip.hop_limit == 255 && (!nobody || to_group)
    } else {
        to_group && (nobody || is_link_local(&ip.source))
    }
}

/// Whether a message may be about a link-local address: the one made from the hardware address of
/// its frame, which is the only one it may name.
fn claims(discovery: &Discovery, address: IpAddr) -> bool {
    let [a, b, c, d, e, f] = discovery.hardware;
    let made = [
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
    address == IpAddr::from(made) && names_it
}

/// RFC 8415 §7.1.
const ALL_DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// A DHCP client: over IPv4 one without an address, over IPv6 one that speaks for its link only.
fn asks_for_address(ip: &Ip) -> bool {
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

/// What is never answered; the rest may be.
fn may_be_answered(ip: &Ip) -> bool {
    let plain = |address: &IpAddr| {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        !(address.is_multicast() || address.is_loopback() || address.is_unspecified() || broadcast)
    };
    !ip.is_reset
        && !ip.has_options
        && !matches!(ip.kind, Kind::LaterFragment)
        && plain(&ip.source)
        && plain(&ip.destination)
}
