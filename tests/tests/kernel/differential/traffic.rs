//! Generates the frames of a workload and its peers: packets of flows, fragments, ICMP errors about
//! earlier packets, ARP, discovery and DHCP, and other EtherTypes. Some frames get faults.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::conversation::Conversation;
use super::craft::{self, Crafted, icmp_of};
use super::mutate::{mutate, pad};
use super::rng::Rng;
use super::{discovery, stateless};
use crate::fence::Way::{self, *};

/// A frame to run, and how to run it.
#[derive(Clone, Debug)]
pub(super) struct TestFrame {
    pub(super) way: Way,
    /// Whether it is a GSO packet, which the kernel segments later.
    pub(super) gso: bool,
    pub(super) frame: Vec<u8>,
    pub(super) notes: Vec<&'static str>,
}

/// The addresses, protocols and ports to use.
pub(super) struct Scope {
    /// The workload's addresses.
    pub(super) own: Vec<IpAddr>,
    /// The node's addresses.
    pub(super) node: Vec<IpAddr>,
    /// All addresses, including the workload's and unknown ones.
    pub(super) all: Vec<IpAddr>,
    /// Protocols and ports that policies distinguish.
    pub(super) flows: Vec<(u8, u16)>,
    /// Whether most frames are of a few long flows whose packets do not show who opened them.
    pub(super) long_flows: bool,
}

pub(super) struct Traffic<'a> {
    rng: Rng,
    scope: &'a Scope,
    conversations: Vec<Conversation>,
    /// The latest packets, to repeat or to quote.
    sent: VecDeque<(Way, Vec<u8>)>,
    /// Fragments still to be sent.
    pending: VecDeque<TestFrame>,
}

const CONVERSATIONS: usize = 5;
const REMEMBERED: usize = 6;

impl<'a> Traffic<'a> {
    pub(super) fn new(seed: u64, scope: &'a Scope) -> Self {
        Self {
            rng: Rng::new(seed),
            scope,
            conversations: Vec::new(),
            sent: VecDeque::new(),
            pending: VecDeque::new(),
        }
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> TestFrame {
        if !self.pending.is_empty() && self.rng.chance(60) {
            return self.pending.pop_front().unwrap();
        }
        let rng = &mut self.rng;
        if self.scope.long_flows && rng.chance(85) {
            let (way, crafted) = self.flow_packet();
            return self.emit(way, crafted);
        }
        let (way, mut crafted) = match rng.below(100) {
            0..=58 => self.flow_packet(),
            59..=61 => match self.repeat() {
                Some(repeated) => repeated,
                None => self.flow_packet(),
            },
            62..=72 => match self.icmp_error() {
                Some(error) => error,
                None => self.flow_packet(),
            },
            73..=80 => return self.fragments(),
            81..=84 => stateless::arp(rng, self.scope),
            85..=92 => discovery::discovery(rng, self.scope),
            93..=94 => stateless::dhcp(rng, self.scope),
            95..=96 => stateless::other_ethertype(rng, &self.sent),
            _ => self.raw(),
        };
        let rng = &mut self.rng;
        if rng.chance(30) {
            mutate(rng, &mut crafted, &self.scope.all);
            if rng.chance(20) {
                mutate(rng, &mut crafted, &self.scope.all);
            }
        }
        self.emit(way, crafted)
    }

    fn emit(&mut self, way: Way, mut crafted: Crafted) -> TestFrame {
        pad(&mut crafted.frame);
        if crafted.frame[12..14] != [0x08, 0x06] && crafted.frame.len() > 34 {
            self.sent.push_back((way, crafted.frame[14..].to_vec()));
            if self.sent.len() > REMEMBERED {
                self.sent.pop_front();
            }
        }
        TestFrame {
            way,
            gso: self.rng.chance(2),
            frame: crafted.frame,
            notes: crafted.notes,
        }
    }

    /// One packet of a flow.
    fn flow_packet(&mut self) -> (Way, Crafted) {
        let rng = &mut self.rng;
        let (most, new) = if self.scope.long_flows {
            (2, 3)
        } else {
            (CONVERSATIONS, 12)
        };
        if self.conversations.len() < most || rng.chance(new) {
            let conversation = new_conversation(rng, self.scope);
            if self.conversations.len() == most {
                let place = rng.below(most);
                self.conversations[place] = conversation;
            } else {
                self.conversations.push(conversation);
            }
        }
        let place = rng.below(self.conversations.len());
        let conversation = &mut self.conversations[place];
        let message = conversation.next(rng);
        let crafted = craft::packet(
            rng,
            conversation.ends(message.by_workload),
            conversation.protocol,
            &message.payload,
            None,
        );
        (
            way(rng, self.scope, conversation.peer, message.by_workload),
            crafted,
        )
    }

    /// A packet of any protocol.
    fn raw(&mut self) -> (Way, Crafted) {
        let rng = &mut self.rng;
        let mut conversation = new_conversation(rng, self.scope);
        conversation.protocol = rng.next_u8();
        let message = conversation.next(rng);
        let crafted = craft::packet(
            rng,
            conversation.ends(message.by_workload),
            conversation.protocol,
            &message.payload,
            None,
        );
        (
            way(rng, self.scope, conversation.peer, message.by_workload),
            crafted,
        )
    }

    /// A packet in fragments; the first may be too small, last or missing.
    fn fragments(&mut self) -> TestFrame {
        let rng = &mut self.rng;
        let mut conversation = new_conversation(rng, self.scope);
        conversation.protocol = rng.pick(&[6, 17, 17, 132, icmp_of(conversation.own), 47]);
        let message = conversation.next(rng);
        let mut payload = message.payload;
        payload.extend(rng.bytes(48));
        let id = u32::from(rng.next_u16());
        let units = rng.pick(&[1_usize, 2, 3, 4]);
        let cuts = [0, units, units + 1 + rng.below(2)];
        let mut fragments = Vec::new();
        for (place, cut) in cuts.into_iter().enumerate() {
            let until = cuts.get(place + 1).map_or(payload.len(), |cut| cut * 8);
            let offset = u16::try_from(cut).unwrap();
            let fragment = (offset, place + 1 < cuts.len(), id);
            let mut crafted = craft::packet(
                rng,
                conversation.ends(message.by_workload),
                conversation.protocol,
                &payload[cut * 8..until],
                Some(fragment),
            );
            crafted.notes.push("fragment");
            if rng.chance(10) {
                mutate(rng, &mut crafted, &self.scope.all);
            }
            fragments.push(crafted);
        }
        if rng.chance(20) {
            let place = rng.below(fragments.len());
            fragments.remove(place);
        }
        if rng.chance(20) {
            fragments.rotate_left(1);
        }
        let way = way(rng, self.scope, conversation.peer, message.by_workload);
        for fragment in fragments {
            let shown = self.emit(way, fragment);
            self.pending.push_back(shown);
        }
        self.pending.pop_front().unwrap()
    }

    /// Repeats an earlier packet unchanged at a random hook.
    fn repeat(&mut self) -> Option<(Way, Crafted)> {
        let rng = &mut self.rng;
        if self.sent.is_empty() {
            return None;
        }
        let place = rng.below(self.sent.len());
        let packet = &self.sent[place].1;
        let (_, _, header) = ends(packet)?;
        let ethertype = if packet[0] >> 4 == 6 { 0x86dd } else { 0x0800 };
        let crafted = Crafted {
            frame: [craft::ethernet(ethertype), packet.clone()].concat(),
            transport: 14 + header,
            notes: vec!["repeated"],
        };
        Some((rng.pick(&[Leaving, Arriving, FromHost, Hairpin]), crafted))
    }

    /// An ICMP error about an earlier packet.
    fn icmp_error(&mut self) -> Option<(Way, Crafted)> {
        let rng = &mut self.rng;
        if self.sent.is_empty() {
            return None;
        }
        let place = rng.below(self.sent.len());
        let (way, packet) = self.sent[place].clone();
        let (from, to, header) = ends(&packet)?;
        let mut quote = packet;
        let mut notes = vec!["ICMP error"];
        let mut back = if way == Leaving { Arriving } else { Leaving };
        let (mut by, mut receiver) = (to, from);
        match rng.below(10) {
            0 => {
                // Sent by a router.
                by = rng.pick(&self.scope.all);
                notes.push("by another host");
            }
            1 => {
                (by, receiver) = (from, to);
                back = way;
                notes.push("to the wrong end");
            }
            2 => {
                reverse(&mut quote, header);
                notes.push("reversed");
            }
            3 => {
                let place = rng.below(quote.len());
                quote[place] = rng.next_u8();
                notes.push("about another packet");
            }
            4 => {
                let length = rng.below(quote.len() + 1);
                quote.truncate(length);
                notes.push("truncated");
            }
            5 => {
                quote.truncate(header + 8);
                notes.push("as short as allowed");
            }
            _ => {}
        }
        if by.is_ipv4() != receiver.is_ipv4() {
            by = to;
        }
        let kind = if from.is_ipv6() {
            rng.pick(&[1, 1, 2, 3, 4, 100])
        } else {
            rng.pick(&[3, 3, 3, 4, 5, 11, 12])
        };
        let mut message = vec![kind, rng.next_u8() % 5, 0, 0, 0, 0, 0, 0];
        message.extend(quote);
        let mut crafted = craft::packet(rng, (by, receiver), icmp_of(by), &message, None);
        crafted.notes.extend(notes);
        Some((back, crafted))
    }
}

/// A new flow between the workload and a random peer.
fn new_conversation(rng: &mut Rng, scope: &Scope) -> Conversation {
    let own = match scope.own.as_slice() {
        [] => rng.pick(&scope.all),
        own => rng.pick(own),
    };
    let peers: Vec<IpAddr> = scope
        .all
        .iter()
        .filter(|peer| peer.is_ipv4() == own.is_ipv4())
        .copied()
        .collect();
    let peer = rng.pick(&peers);
    let (mut protocol, port) = rng.pick(&scope.flows);
    if scope.long_flows {
        protocol = rng.pick(&[17, 17, 17, 132, 132, 47, 6]);
    } else if rng.chance(50) {
        protocol = 6;
    }
    if matches!(protocol, 1 | 58) && rng.chance(90) {
        protocol = icmp_of(own);
    }
    let opened_by_workload = rng.chance(50);
    let high = 20_000 + rng.next_u16() % 40_000;
    let ports = if opened_by_workload {
        (high, port)
    } else {
        (port, high)
    };
    Conversation {
        own,
        peer,
        ports: match protocol {
            1 | 58 => (high, high),
            _ => ports,
        },
        protocol,
        opened_by_workload,
        step: 0,
    }
}

/// The hook and origin of a packet.
pub(super) fn way(rng: &mut Rng, scope: &Scope, peer: IpAddr, by_workload: bool) -> Way {
    if by_workload {
        Leaving
    } else if (scope.own.contains(&peer) && rng.chance(80))
        || (scope.node.contains(&peer) && rng.chance(40))
    {
        Hairpin
    } else if rng.chance(16) {
        FromHost
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

/// Swaps the addresses and ports of a packet.
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
