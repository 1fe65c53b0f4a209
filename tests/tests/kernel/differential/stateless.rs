//! Frames without a flow: ARP, DHCP, VLAN tags and other EtherTypes.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::craft::{self, Crafted, ethernet};
use super::discovery::LINK_LOCAL;
use super::rng::Rng;
use super::traffic::Scope;
use crate::fence::Way::{self, *};

const DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// A random hook and origin, most often from the workload.
pub(super) fn way(rng: &mut Rng) -> Way {
    rng.pick(&[Leaving, Leaving, Leaving, Arriving, FromHost])
}

fn own4(rng: &mut Rng, scope: &Scope) -> Ipv4Addr {
    let of_family = |from: &[IpAddr]| -> Vec<Ipv4Addr> {
        let v4 = from.iter().filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        });
        v4.collect()
    };
    let mut choices = of_family(&scope.own);
    if choices.is_empty() || rng.chance(25) {
        choices = of_family(&scope.all);
    }
    rng.pick(&choices)
}

pub(super) fn own6(rng: &mut Rng, scope: &Scope) -> Ipv6Addr {
    let of_family = |from: &[IpAddr]| -> Vec<Ipv6Addr> {
        let v6 = from.iter().filter_map(|ip| match ip {
            IpAddr::V6(ip) => Some(*ip),
            IpAddr::V4(_) => None,
        });
        v6.collect()
    };
    let mut choices = of_family(&scope.own);
    if choices.is_empty() || rng.chance(25) {
        choices = of_family(&scope.all);
    }
    rng.pick(&choices)
}

pub(super) fn arp(rng: &mut Rng, scope: &Scope) -> (Way, Crafted) {
    let sender = if rng.chance(15) {
        Ipv4Addr::UNSPECIFIED
    } else {
        own4(rng, scope)
    };
    let mut frame = ethernet(0x0806);
    let operation = rng.pick(&[1_u8, 1, 2, 2, 3]);
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend([2, 0, 0, 0, 0, 2]);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(own4(rng, scope).octets());
    if rng.chance(8) {
        let place = 14 + rng.below(8);
        frame[place] = rng.next_u8();
    }
    if rng.chance(8) {
        let length = 14 + rng.below(29);
        frame.truncate(length);
    } else if rng.chance(30) {
        let padding = rng.pick(&[1, 17, 18, 18, 18, 19, 400]);
        frame.resize(frame.len() + padding, 0);
        if rng.chance(30) {
            let place = frame.len() - 1 - rng.below(padding);
            frame[place] = rng.next_u8();
        }
    }
    let crafted = Crafted {
        transport: 14,
        frame,
        notes: vec!["ARP"],
    };
    (way(rng), crafted)
}

pub(super) fn dhcp(rng: &mut Rng, scope: &Scope) -> (Way, Crafted) {
    let v6 = rng.chance(50);
    let (source, destination, ports): (IpAddr, IpAddr, _) = if v6 {
        (LINK_LOCAL.into(), DHCP_SERVERS.into(), (546, 547))
    } else {
        let ends = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        (ends.0.into(), ends.1.into(), (68, 67))
    };
    let destination = match (rng.chance(15), v6) {
        (true, true) => own6(rng, scope).into(),
        (true, false) => own4(rng, scope).into(),
        _ => destination,
    };
    let ports = if rng.chance(15) {
        (ports.1, ports.0)
    } else {
        ports
    };
    let datagram = craft::udp(rng, ports);
    let mut crafted = craft::packet(rng, (source, destination), 17, &datagram, None);
    crafted.notes.push("DHCP");
    (way(rng), crafted)
}

/// A packet behind a VLAN tag or with another EtherType.
pub(super) fn other_ethertype(rng: &mut Rng, sent: &VecDeque<(Way, Vec<u8>)>) -> (Way, Crafted) {
    let packet = match sent.len() {
        0 => rng.bytes(40),
        length => sent[rng.below(length)].1.clone(),
    };
    let mut frame = if rng.chance(50) {
        let mut tagged = ethernet(rng.pick(&[0x8100, 0x88a8]));
        tagged.extend([0, rng.next_u8(), 0x08, 0]);
        tagged
    } else {
        let any = rng.next_u16();
        ethernet(rng.pick(&[0x88cc, 0x8847, 0x9100, 60, any]))
    };
    frame.extend(packet);
    let crafted = Crafted {
        transport: 14,
        frame,
        notes: vec!["another EtherType"],
    };
    (way(rng), crafted)
}
