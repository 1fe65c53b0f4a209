//! Frames that belong to no flow: ARP, neighbour discovery, DHCP, VLAN tags and other EtherTypes.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::craft::{self, Crafted, ethernet};
use super::dice::Dice;
use super::traffic::Places;
use crate::fence::Way::{self, *};

/// Made from the hardware address of [`ethernet`].
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 2);
const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Either way, rather from the workload.
fn way(dice: &mut Dice) -> Way {
    dice.pick(&[Leaving, Leaving, Leaving, Arriving, FromNode])
}

fn own4(dice: &mut Dice, places: &Places) -> Ipv4Addr {
    let of = |from: &[IpAddr]| -> Vec<Ipv4Addr> {
        let v4 = from.iter().filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        });
        v4.collect()
    };
    let mut choices = of(&places.own);
    if choices.is_empty() || dice.often(25) {
        choices = of(&places.everybody);
    }
    dice.pick(&choices)
}

fn own6(dice: &mut Dice, places: &Places) -> Ipv6Addr {
    let of = |from: &[IpAddr]| -> Vec<Ipv6Addr> {
        let v6 = from.iter().filter_map(|ip| match ip {
            IpAddr::V6(ip) => Some(*ip),
            IpAddr::V4(_) => None,
        });
        v6.collect()
    };
    let mut choices = of(&places.own);
    if choices.is_empty() || dice.often(25) {
        choices = of(&places.everybody);
    }
    dice.pick(&choices)
}

pub(super) fn arp(dice: &mut Dice, places: &Places) -> (Way, Crafted) {
    let sender = if dice.often(15) {
        Ipv4Addr::UNSPECIFIED
    } else {
        own4(dice, places)
    };
    let mut frame = ethernet(0x0806);
    let operation = dice.pick(&[1_u8, 1, 2, 2, 3]);
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend([2, 0, 0, 0, 0, 2]);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(own4(dice, places).octets());
    if dice.often(8) {
        let place = 14 + dice.below(8);
        frame[place] = dice.byte();
    }
    if dice.often(8) {
        let length = 14 + dice.below(29);
        frame.truncate(length);
    }
    let crafted = Crafted {
        transport: 14,
        frame,
        notes: vec!["ARP"],
    };
    (way(dice), crafted)
}

/// Its own, or another that looks much like it.
fn link_local(dice: &mut Dice) -> Ipv6Addr {
    let mut octets = LINK_LOCAL.octets();
    if dice.often(25) {
        let place = dice.below(16).max(2);
        octets[place] = dice.byte();
    }
    octets.into()
}

pub(super) fn discovery(dice: &mut Dice, places: &Places) -> (Way, Crafted) {
    let near = link_local(dice);
    let source = match dice.below(10) {
        0..=4 => own6(dice, places),
        5..=7 => near,
        _ => Ipv6Addr::UNSPECIFIED,
    };
    let target = if dice.often(25) {
        link_local(dice)
    } else {
        own6(dice, places)
    };
    let kind = dice.pick(&[
        135, 135, 135, 136, 136, 136, 133, 134, 137, 130, 131, 132, 143, 138,
    ]);
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    match dice.below(4) {
        0 => message.extend(dice.bytes(8)),
        1 => {
            let mut option = [&[dice.pick(&[1, 2]), 1], HARDWARE.as_slice()].concat();
            if dice.often(20) {
                let place = dice.below(8);
                option[place] = dice.byte();
            }
            message.extend(option);
        }
        _ => {}
    }
    if dice.often(8) {
        let length = dice.below(message.len());
        message.truncate(length);
    }
    let piece = dice.often(4).then_some((0, true, 9));
    let ends = (source.into(), ALL_NODES.into());
    let mut crafted = craft::packet(dice, ends, 58, &message, piece);
    crafted.notes.push("neighbour discovery");
    (way(dice), crafted)
}

pub(super) fn dhcp(dice: &mut Dice, places: &Places) -> (Way, Crafted) {
    let v6 = dice.often(50);
    let (source, destination, ports): (IpAddr, IpAddr, _) = if v6 {
        (LINK_LOCAL.into(), DHCP_SERVERS.into(), (546, 547))
    } else {
        let ends = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        (ends.0.into(), ends.1.into(), (68, 67))
    };
    let destination = match (dice.often(15), v6) {
        (true, true) => own6(dice, places).into(),
        (true, false) => own4(dice, places).into(),
        _ => destination,
    };
    let ports = if dice.often(15) {
        (ports.1, ports.0)
    } else {
        ports
    };
    let datagram = craft::udp(dice, ports);
    let mut crafted = craft::packet(dice, (source, destination), 17, &datagram, None);
    crafted.notes.push("DHCP");
    (way(dice), crafted)
}

/// A packet behind a tag, or behind a type that nobody knows.
pub(super) fn odd(dice: &mut Dice, sent: &VecDeque<(Way, Vec<u8>)>) -> (Way, Crafted) {
    let packet = match sent.len() {
        0 => dice.bytes(40),
        length => sent[dice.below(length)].1.clone(),
    };
    let mut frame = if dice.often(50) {
        let mut tagged = ethernet(dice.pick(&[0x8100, 0x88a8]));
        tagged.extend([0, dice.byte(), 0x08, 0]);
        tagged
    } else {
        let any = dice.short();
        ethernet(dice.pick(&[0x88cc, 0x8847, 0x9100, 60, any]))
    };
    frame.extend(packet);
    let crafted = Crafted {
        transport: 14,
        frame,
        notes: vec!["another EtherType"],
    };
    (way(dice), crafted)
}
