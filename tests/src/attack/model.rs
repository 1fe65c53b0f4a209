//! An independent model of the fence: which frames must pass, by the rules alone.
//!
//! It is written from the protocol rules, as plainly as possible, and shares no code with the
//! programs: whole slices, no BPF maps, no clock. It evaluates every frame of a case in order and
//! starts empty for each case, because cases use different addresses and ports.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::fixture::{self, Direction, protocol};

mod discovery;
mod ipv6;
mod transport;

/// One end: an address with a port, or with a substitute for a port.
type End = (IpAddr, u32);

/// A model of the fence in mode `enforce`.
#[derive(Debug, Default)]
pub struct Model {
    /// Allowed flows: protocol, originator, responder.
    flows: HashSet<(u8, End, End)>,
    /// First fragments, by ends, identification and, for IPv4, protocol.
    first_fragments: HashMap<(IpAddr, IpAddr, u32, u8), FirstFragment>,
}

#[derive(Clone, Copy, Debug)]
struct FirstFragment {
    protocol: u8,
    ports: (u32, u32),
    /// The end of the transport header, relative to the start of the fragmentable part.
    headers: usize,
}

/// The position of a packet among its fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    First(u32),
    Later { id: u32, offset: usize },
}

/// An IP packet, parsed as far as the rules of the fence need.
#[derive(Clone, Copy, Debug)]
struct Packet<'a> {
    from: IpAddr,
    to: IpAddr,
    hops: u8,
    part: Part,
    protocol: u8,
    /// Bytes between the start of the fragmentable part and the payload.
    before: usize,
    /// The first next header of IPv6, and the extension headers before the payload.
    first_header: u8,
    extensions: &'a [u8],
    /// Nothing follows the packet, and the kernel does not segment it.
    ends_the_frame: bool,
    payload: &'a [u8],
}

impl Model {
    /// Whether the fence must let a frame pass. `segmented` means that the kernel segments it.
    pub fn passes(&mut self, direction: Direction, frame: &[u8], segmented: bool) -> bool {
        self.read(direction, frame, segmented).is_some()
    }

    fn read(&mut self, direction: Direction, frame: &[u8], segmented: bool) -> Option<()> {
        let body = frame.get(14..)?;
        let packet = match word(frame, 12)? {
            0x0806 => return arp(direction, body),
            0x0800 => ipv4(body, segmented)?,
            0x86dd => ipv6::read(body, segmented)?,
            _ => return None,
        };
        let sender = frame.get(6..)?.first_chunk()?;
        self.evaluate(direction, &packet, *sender, segmented)
    }

    fn evaluate(
        &mut self,
        direction: Direction,
        packet: &Packet,
        sender: [u8; 6],
        segmented: bool,
    ) -> Option<()> {
        if let Part::Later { id, offset } = packet.part {
            source_is_allowed(direction, packet, false)?;
            return self.later_fragment(direction, packet, id, offset);
        }
        let message = transport::read(packet, segmented)?;
        source_is_allowed(direction, packet, message.configures(packet))?;
        if message.is_discovery {
            return discovery::is_allowed(direction, packet, sender);
        }
        if message.configures(packet) && direction == Direction::Out {
            return Some(());
        }
        if message.is_error {
            return self.error(direction, packet);
        }
        if let Part::First(id) = packet.part {
            let first = FirstFragment {
                protocol: packet.protocol,
                ports: message.ports,
                headers: packet.before + message.headers,
            };
            self.first_fragments.insert(key(packet, id), first);
        }
        self.flow(
            direction,
            packet,
            (packet.protocol, message.ports),
            message.opens,
        )
    }

    fn later_fragment(
        &mut self,
        direction: Direction,
        packet: &Packet,
        id: u32,
        offset: usize,
    ) -> Option<()> {
        let first = *self.first_fragments.get(&key(packet, id))?;
        let over_tcp = packet.protocol == protocol::TCP && offset == 8;
        // It must not overwrite the headers by which the first fragment was evaluated.
        if over_tcp || offset < first.headers {
            return None;
        }
        self.flow(direction, packet, (first.protocol, first.ports), false)
    }

    fn flow(
        &mut self,
        direction: Direction,
        packet: &Packet,
        (protocol, ports): (u8, (u32, u32)),
        opens: bool,
    ) -> Option<()> {
        let (from, to) = ((packet.from, ports.0), (packet.to, ports.1));
        let is_original = self.flows.contains(&(protocol, from, to));
        let is_reply = self.flows.contains(&(protocol, to, from));
        if is_original || (is_reply && !opens) {
            return Some(());
        }
        let peer = if direction == Direction::Out {
            packet.to
        } else {
            packet.from
        };
        let port = u16::try_from(ports.1).unwrap_or(0);
        if !fixture::is_allowed(direction, peer, protocol, port) {
            return None;
        }
        self.flows.insert((protocol, from, to));
        Some(())
    }

    /// An error passes if it quotes a packet of an allowed flow that was sent by the error's
    /// destination.
    fn error(&self, direction: Direction, packet: &Packet) -> Option<()> {
        let quoted = transport::quoted(packet)?;
        let own = match direction {
            Direction::Out => quoted.to.0,
            Direction::In => quoted.from.0,
        };
        let has_flow = self
            .flows
            .contains(&(quoted.protocol, quoted.from, quoted.to))
            || self
                .flows
                .contains(&(quoted.protocol, quoted.to, quoted.from));
        let is_redirect =
            direction == Direction::Out && !own.is_ipv6() && packet.payload.first() == Some(&5);
        let fits = quoted.from.0 == packet.to && own == fixture::workload(own.is_ipv6());
        (fits && has_flow && !is_redirect).then_some(())
    }
}

fn key(packet: &Packet, id: u32) -> (IpAddr, IpAddr, u32, u8) {
    let protocol = if packet.to.is_ipv6() {
        0
    } else {
        packet.protocol
    };
    (packet.from, packet.to, id, protocol)
}

/// Outgoing packets must have the workload's source address, or one that is valid for address
/// configuration; incoming packets must not have the workload's.
fn source_is_allowed(direction: Direction, packet: &Packet, configures: bool) -> Option<()> {
    let own = packet.from == fixture::workload(packet.from.is_ipv6());
    match direction {
        Direction::Out => (own || configures).then_some(()),
        Direction::In => (!own).then_some(()),
    }
}

fn arp(direction: Direction, body: &[u8]) -> Option<()> {
    let (_, padding) = body.split_at_checked(28)?;
    let operation = word(body, 6)?;
    let fits = body.starts_with(&[0, 1, 8, 0, 6, 4]) && matches!(operation, 1 | 2);
    if !fits || padding.len() > 18 {
        return None;
    }
    if direction == Direction::In {
        return Some(());
    }
    let sender: [u8; 4] = body.get(14..18)?.try_into().ok()?;
    let own = fixture::workload(false) == IpAddr::V4(sender.into());
    let target: [u8; 4] = body.get(24..28)?.try_into().ok()?;
    let about_itself = fixture::workload(false) == IpAddr::V4(target.into());
    let probe = sender == [0; 4] && operation == 1 && about_itself;
    let empty = padding.iter().all(|byte| *byte == 0);
    (empty && (own || probe)).then_some(())
}

fn ipv4(body: &[u8], segmented: bool) -> Option<Packet<'_>> {
    let [version, ..] = *body.get(..20)? else {
        return None;
    };
    let header = usize::from(version & 15) * 4;
    let mut total = usize::from(word(body, 2)?);
    if total == 0 && segmented {
        total = body.len();
    }
    if version >> 4 != 4 || header < 20 || total < header {
        return None;
    }
    let packet = body.get(..total)?;
    let fragment = word(packet, 6)?;
    let id = u32::from(word(packet, 4)?);
    let offset = usize::from(fragment & 0x1fff) * 8;
    let part = match (offset, fragment & 0x2000 != 0) {
        (0, false) => Part::Whole,
        (0, true) => Part::First(id),
        _ => Part::Later { id, offset },
    };
    let protocol = *packet.get(9)?;
    if offset == 8 && protocol == protocol::TCP {
        return None;
    }
    Some(Packet {
        from: ip4(packet, 12)?,
        to: ip4(packet, 16)?,
        hops: *packet.get(8)?,
        part,
        protocol,
        before: 0,
        first_header: protocol,
        extensions: &[],
        ends_the_frame: !segmented && total == body.len(),
        payload: packet.get(header..)?,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*two))
}

fn ip4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    let four: &[u8; 4] = bytes.get(at..)?.first_chunk()?;
    Some(IpAddr::V4(Ipv4Addr::from(*four)))
}

fn ip6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let sixteen: &[u8; 16] = bytes.get(at..)?.first_chunk()?;
    Some(Ipv6Addr::from(*sixteen))
}
