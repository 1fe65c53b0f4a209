//! An independent reading of frames: what must become of one, by the rules alone.
//!
//! It is written from the protocol rules, as plainly as possible, and shares no code with the
//! programs: whole slices, no maps, no clock. It is asked about every frame of a case in order, and
//! forgets everything between cases, which use addresses and ports of their own.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ground::{self, Lane, number};

mod ipv6;
mod transport;

/// One end: an address with a port, or what stands for one.
type End = (IpAddr, u32);

/// The fence as it ought to be, in `enforce`.
#[derive(Debug, Default)]
pub struct Model {
    /// Allowed flows: protocol, opener, answerer.
    flows: HashSet<(u8, End, End)>,
    /// What first fragments said: by ends, identification and, for IPv4, protocol.
    firsts: HashMap<(IpAddr, IpAddr, u32, u8), First>,
}

#[derive(Clone, Copy, Debug)]
struct First {
    protocol: u8,
    ports: (u32, u32),
    /// Where the transport header ends, from the start of the fragmentable part.
    headers: usize,
}

/// Where in a fragmented packet this one belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    First(u32),
    Later { id: u32, offset: usize },
}

/// An IP packet, read as far as it is clear which fence rule it falls under.
#[derive(Clone, Copy, Debug)]
struct Reading<'a> {
    from: IpAddr,
    to: IpAddr,
    hops: u8,
    part: Part,
    protocol: u8,
    /// Bytes between the start of the fragmentable part and the payload.
    before: usize,
    payload: &'a [u8],
}

impl Model {
    /// Whether the fence must let a frame pass. `cut` tells that the kernel cuts it into segments.
    pub fn passes(&mut self, lane: Lane, frame: &[u8], cut: bool) -> bool {
        self.read(lane, frame, cut).is_some()
    }

    fn read(&mut self, lane: Lane, frame: &[u8], cut: bool) -> Option<()> {
        let body = frame.get(14..)?;
        let reading = match word(frame, 12)? {
            0x0806 => return arp(lane, body),
            0x0800 => ipv4(body, cut)?,
            0x86dd => ipv6::read(body, cut)?,
            _ => return None,
        };
        let sender = frame.get(6..)?.first_chunk()?;
        self.judge(lane, &reading, *sender, cut)
    }

    fn judge(&mut self, lane: Lane, reading: &Reading, sender: [u8; 6], cut: bool) -> Option<()> {
        if let Part::Later { id, offset } = reading.part {
            own_source(lane, reading, false)?;
            return self.later(lane, reading, id, offset);
        }
        let message = transport::read(reading, cut)?;
        own_source(lane, reading, message.configures(reading))?;
        if message.is_discovery {
            return ipv6::announcement(lane, reading, sender);
        }
        if message.configures(reading) && lane == Lane::Out {
            return Some(());
        }
        if message.is_error {
            return self.error(lane, reading);
        }
        if let Part::First(id) = reading.part {
            let first = First {
                protocol: reading.protocol,
                ports: message.ports,
                headers: reading.before + message.headers,
            };
            self.firsts.insert(key(reading, id), first);
        }
        self.flow(
            lane,
            reading,
            (reading.protocol, message.ports),
            message.opens,
        )
    }

    fn later(&mut self, lane: Lane, reading: &Reading, id: u32, offset: usize) -> Option<()> {
        let first = *self.firsts.get(&key(reading, id))?;
        let over_tcp = reading.protocol == number::TCP && offset == 8;
        // It may not write over what the first one was judged by.
        if over_tcp || offset < first.headers {
            return None;
        }
        self.flow(lane, reading, (first.protocol, first.ports), false)
    }

    fn flow(
        &mut self,
        lane: Lane,
        reading: &Reading,
        (protocol, ports): (u8, (u32, u32)),
        opens: bool,
    ) -> Option<()> {
        let (from, to) = ((reading.from, ports.0), (reading.to, ports.1));
        let known = self.flows.contains(&(protocol, from, to));
        let answers = self.flows.contains(&(protocol, to, from));
        if known || (answers && !opens) {
            return Some(());
        }
        let peer = if lane == Lane::Out {
            reading.to
        } else {
            reading.from
        };
        let to_self = peer == ground::workload(peer.is_ipv6());
        let port = u16::try_from(ports.1).unwrap_or(0);
        if !to_self && !ground::is_allowed(lane, peer, protocol, port) {
            return None;
        }
        self.flows.insert((protocol, from, to));
        Some(())
    }

    /// An error passes if what it quotes is a packet of an allowed flow, sent by who is told.
    fn error(&self, lane: Lane, reading: &Reading) -> Option<()> {
        let quoted = transport::quoted(reading)?;
        let own = match lane {
            Lane::Out => quoted.to.0,
            Lane::In => quoted.from.0,
        };
        let known = self
            .flows
            .contains(&(quoted.protocol, quoted.from, quoted.to))
            || self
                .flows
                .contains(&(quoted.protocol, quoted.to, quoted.from));
        let is_redirect =
            lane == Lane::Out && !own.is_ipv6() && reading.payload.first() == Some(&5);
        let fits = quoted.from.0 == reading.to && own == ground::workload(own.is_ipv6());
        (fits && known && !is_redirect).then_some(())
    }
}

fn key(reading: &Reading, id: u32) -> (IpAddr, IpAddr, u32, u8) {
    let protocol = if reading.to.is_ipv6() {
        0
    } else {
        reading.protocol
    };
    (reading.from, reading.to, id, protocol)
}

/// The source is the workload's, or, where the message is there to get an address, one for that;
/// from elsewhere it never is the workload's.
fn own_source(lane: Lane, reading: &Reading, configures: bool) -> Option<()> {
    let own = reading.from == ground::workload(reading.from.is_ipv6());
    match lane {
        Lane::Out => (own || configures).then_some(()),
        Lane::In => (!own).then_some(()),
    }
}

fn arp(lane: Lane, body: &[u8]) -> Option<()> {
    if lane == Lane::In {
        return Some(());
    }
    let operation = word(body, 6)?;
    body.get(..28)?;
    let sender: [u8; 4] = body.get(14..18)?.try_into().ok()?;
    let own = ground::workload(false) == IpAddr::V4(sender.into());
    let probe = sender == [0; 4] && operation == 1;
    let fits = body.starts_with(&[0, 1, 8, 0, 6, 4]) && matches!(operation, 1 | 2);
    (fits && (own || probe)).then_some(())
}

fn ipv4(body: &[u8], cut: bool) -> Option<Reading<'_>> {
    let [version, ..] = *body.get(..20)? else {
        return None;
    };
    let header = usize::from(version & 15) * 4;
    let mut total = usize::from(word(body, 2)?);
    if total == 0 && cut {
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
    if offset == 8 && protocol == number::TCP {
        return None;
    }
    Some(Reading {
        from: ip4(packet, 12)?,
        to: ip4(packet, 16)?,
        hops: *packet.get(8)?,
        part,
        protocol,
        before: 0,
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
