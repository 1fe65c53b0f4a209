//! What a workload and its peers send: flows that go on, fragments, ICMP errors about what was sent
//! before, address configuration, and frames of no use to anybody. Every so often one has a fault.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::announce;
use super::craft::{self, Crafted, icmp_of};
use super::dice::Dice;
use super::mutate::{mutate, pad};
use super::talk::Talk;
use crate::fence::Way::{self, *};

/// A frame as it is shown to the programs.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) way: Way,
    /// Whether the kernel would cut it into segments later.
    pub(super) gso: bool,
    pub(super) frame: Vec<u8>,
    pub(super) notes: Vec<&'static str>,
}

/// Who there is.
pub(super) struct Places {
    /// The workload's addresses.
    pub(super) own: Vec<IpAddr>,
    /// Everybody's, the workload's and strangers' among them.
    pub(super) everybody: Vec<IpAddr>,
    /// Protocols and ports that policies tell apart.
    pub(super) flows: Vec<(u8, u16)>,
}

pub(super) struct Traffic<'a> {
    dice: Dice,
    places: &'a Places,
    talks: Vec<Talk>,
    /// Of whole packets, the latest.
    sent: VecDeque<(Way, Vec<u8>)>,
    /// Fragments to come.
    pending: VecDeque<Shown>,
}

const TALKS: usize = 5;
const REMEMBERED: usize = 6;

impl<'a> Traffic<'a> {
    pub(super) fn new(seed: u64, places: &'a Places) -> Self {
        Self {
            dice: Dice::new(seed),
            places,
            talks: Vec::new(),
            sent: VecDeque::new(),
            pending: VecDeque::new(),
        }
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> Shown {
        if !self.pending.is_empty() && self.dice.often(60) {
            return self.pending.pop_front().unwrap();
        }
        let dice = &mut self.dice;
        let (way, mut crafted) = match dice.below(100) {
            0..=58 => self.say(),
            59..=61 => match self.again() {
                Some(repeated) => repeated,
                None => self.say(),
            },
            62..=72 => match self.complain() {
                Some(error) => error,
                None => self.say(),
            },
            73..=80 => return self.fragments(),
            81..=84 => announce::arp(dice, self.places),
            85..=92 => announce::discovery(dice, self.places),
            93..=94 => announce::dhcp(dice, self.places),
            95..=96 => announce::odd(dice, &self.sent),
            _ => self.raw(),
        };
        let dice = &mut self.dice;
        if dice.often(30) {
            mutate(dice, &mut crafted, &self.places.everybody);
            if dice.often(20) {
                mutate(dice, &mut crafted, &self.places.everybody);
            }
        }
        self.show(way, crafted)
    }

    fn show(&mut self, way: Way, mut crafted: Crafted) -> Shown {
        pad(&mut crafted.frame);
        if crafted.frame[12..14] != [0x08, 0x06] && crafted.frame.len() > 34 {
            self.sent.push_back((way, crafted.frame[14..].to_vec()));
            if self.sent.len() > REMEMBERED {
                self.sent.pop_front();
            }
        }
        Shown {
            way,
            gso: self.dice.often(2),
            frame: crafted.frame,
            notes: crafted.notes,
        }
    }

    /// One packet of a flow.
    fn say(&mut self) -> (Way, Crafted) {
        let dice = &mut self.dice;
        if self.talks.len() < TALKS || dice.often(12) {
            let talk = begin(dice, self.places);
            if self.talks.len() == TALKS {
                let place = dice.below(TALKS);
                self.talks[place] = talk;
            } else {
                self.talks.push(talk);
            }
        }
        let place = dice.below(self.talks.len());
        let talk = &mut self.talks[place];
        let said = talk.next(dice);
        let crafted = craft::packet(
            dice,
            talk.ends(said.by_workload),
            talk.protocol,
            &said.payload,
            None,
        );
        (way(dice, self.places, talk.peer, said.by_workload), crafted)
    }

    /// A packet of any protocol.
    fn raw(&mut self) -> (Way, Crafted) {
        let dice = &mut self.dice;
        let mut talk = begin(dice, self.places);
        talk.protocol = dice.byte();
        let said = talk.next(dice);
        let crafted = craft::packet(
            dice,
            talk.ends(said.by_workload),
            talk.protocol,
            &said.payload,
            None,
        );
        (way(dice, self.places, talk.peer, said.by_workload), crafted)
    }

    /// A packet in pieces; the first may be too small, last or lost.
    fn fragments(&mut self) -> Shown {
        let dice = &mut self.dice;
        let mut talk = begin(dice, self.places);
        talk.protocol = dice.pick(&[6, 17, 17, 132, icmp_of(talk.own), 47]);
        let said = talk.next(dice);
        let mut payload = said.payload;
        payload.extend(dice.bytes(48));
        let id = u32::from(dice.short());
        let units = dice.pick(&[1_usize, 2, 3, 4]);
        let cuts = [0, units, units + 1 + dice.below(2)];
        let mut pieces = Vec::new();
        for (place, cut) in cuts.into_iter().enumerate() {
            let until = cuts.get(place + 1).map_or(payload.len(), |cut| cut * 8);
            let offset = u16::try_from(cut).unwrap();
            let piece = (offset, place + 1 < cuts.len(), id);
            let mut crafted = craft::packet(
                dice,
                talk.ends(said.by_workload),
                talk.protocol,
                &payload[cut * 8..until],
                Some(piece),
            );
            crafted.notes.push("fragment");
            if dice.often(10) {
                mutate(dice, &mut crafted, &self.places.everybody);
            }
            pieces.push(crafted);
        }
        if dice.often(20) {
            let place = dice.below(pieces.len());
            pieces.remove(place);
        }
        if dice.often(20) {
            pieces.rotate_left(1);
        }
        let way = way(dice, self.places, talk.peer, said.by_workload);
        for piece in pieces {
            let shown = self.show(way, piece);
            self.pending.push_back(shown);
        }
        self.pending.pop_front().unwrap()
    }

    /// A packet that was sent, as it is, at whatever hook: it came back, or was another's too.
    fn again(&mut self) -> Option<(Way, Crafted)> {
        let dice = &mut self.dice;
        if self.sent.is_empty() {
            return None;
        }
        let place = dice.below(self.sent.len());
        let packet = &self.sent[place].1;
        let (_, _, header) = ends(packet)?;
        let ethertype = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
        let crafted = Crafted {
            frame: [craft::ethernet(ethertype), packet.clone()].concat(),
            transport: 14 + header,
            notes: vec!["again"],
        };
        Some((dice.pick(&[Leaving, Arriving, FromNode, Hairpin]), crafted))
    }

    /// An ICMP error about a packet that was sent.
    fn complain(&mut self) -> Option<(Way, Crafted)> {
        let dice = &mut self.dice;
        if self.sent.is_empty() {
            return None;
        }
        let place = dice.below(self.sent.len());
        let (way, packet) = self.sent[place].clone();
        let (from, to, header) = ends(&packet)?;
        let mut quote = packet;
        let mut notes = vec!["ICMP error"];
        let mut back = if way == Leaving { Arriving } else { Leaving };
        let (mut by, mut told) = (to, from);
        match dice.below(10) {
            0 => {
                // From a router on the way.
                by = dice.pick(&self.places.everybody);
                notes.push("by somebody");
            }
            1 => {
                (by, told) = (from, to);
                back = way;
                notes.push("told the wrong end");
            }
            2 => {
                reverse(&mut quote, header);
                notes.push("reversed");
            }
            3 => {
                let place = dice.below(quote.len());
                quote[place] = dice.byte();
                notes.push("about another packet");
            }
            4 => {
                let length = dice.below(quote.len() + 1);
                quote.truncate(length);
                notes.push("cut");
            }
            5 => {
                quote.truncate(header + 8);
                notes.push("as short as may be");
            }
            _ => {}
        }
        if by.is_ipv4() != told.is_ipv4() {
            by = to;
        }
        let kind = if from.is_ipv6() {
            dice.pick(&[1, 1, 2, 3, 4, 100])
        } else {
            dice.pick(&[3, 3, 3, 4, 5, 11, 12])
        };
        let mut message = vec![kind, dice.byte() % 5, 0, 0, 0, 0, 0, 0];
        message.extend(quote);
        let mut crafted = craft::packet(dice, (by, told), icmp_of(by), &message, None);
        crafted.notes.extend(notes);
        Some((back, crafted))
    }
}

/// A flow between the workload and somebody.
fn begin(dice: &mut Dice, places: &Places) -> Talk {
    let own = match places.own.as_slice() {
        [] => dice.pick(&places.everybody),
        own => dice.pick(own),
    };
    let peers: Vec<IpAddr> = places
        .everybody
        .iter()
        .filter(|peer| peer.is_ipv4() == own.is_ipv4())
        .copied()
        .collect();
    let peer = dice.pick(&peers);
    let (mut protocol, port) = dice.pick(&places.flows);
    if dice.often(50) {
        protocol = 6;
    }
    if matches!(protocol, 1 | 58) && dice.often(90) {
        protocol = icmp_of(own);
    }
    let opened_by_workload = dice.often(50);
    let high = 20_000 + dice.short() % 40_000;
    let ports = if opened_by_workload {
        (high, port)
    } else {
        (port, high)
    };
    Talk {
        own,
        peer,
        ports: match protocol {
            1 | 58 => (high, high),
            _ => ports,
        },
        protocol,
        opened_by_workload,
        at: 0,
    }
}

/// How a packet comes by.
pub(super) fn way(dice: &mut Dice, places: &Places, peer: IpAddr, by_workload: bool) -> Way {
    if by_workload {
        Leaving
    } else if places.own.contains(&peer) && dice.often(80) {
        Hairpin
    } else if dice.often(16) {
        FromNode
    } else {
        Arriving
    }
}

/// Source and destination of an IP packet, and the length of its header.
pub(super) fn ends(packet: &[u8]) -> Option<(IpAddr, IpAddr, usize)> {
    match packet.first()? >> 4 {
        4 => {
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some((source.into(), destination.into(), 20))
        }
        6 => {
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some((source.into(), destination.into(), 40))
        }
        _ => None,
    }
}

/// Turns a packet's addresses and ports round.
fn reverse(packet: &mut [u8], header: usize) {
    let (from, to, size) = if header == 20 {
        (12, 16, 4)
    } else {
        (8, 24, 16)
    };
    for place in 0..size {
        packet.swap(from + place, to + place);
    }
    if packet.len() >= header + 4 {
        packet.swap(header, header + 2);
        packet.swap(header + 1, header + 3);
    }
}
