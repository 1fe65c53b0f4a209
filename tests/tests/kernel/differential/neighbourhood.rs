//! The expected outcome of ARP and discovery, which pass without policy: a naive reading of the rules on
//! whole slices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::drop_reason::DropReason::*;

use super::expectation::is_link_local;
use super::parse::{Arp, Discovery, Ip, Reasons};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const SPOOF: Reasons = &[NeighbourSpoof];
const HEADER: Reasons = &[DiscoveryHeader];

/// Whether the workload may send an ARP packet.
pub(super) fn may_send_arp(own: &[IpAddr], arp: &Arp) -> Result<(), Reasons> {
    if arp.padding.iter().any(|byte| *byte != 0) {
        return Err(&[ArpHeader]);
    }
    let is_probe =
        arp.is_request && arp.sender == Ipv4Addr::UNSPECIFIED && own.contains(&arp.target);
    if is_probe || own.contains(&arp.sender) {
        Ok(())
    } else {
        Err(&[ArpSpoof])
    }
}

/// Whether the workload may send a discovery message. `is_near` tells whether an address is one of the
/// node or of a workload on it.
pub(super) fn may_announce(
    own: &[IpAddr],
    discovery: &Discovery,
    ip: &Ip,
    is_near: impl Fn(IpAddr) -> bool,
) -> Result<(), Reasons> {
    match discovery.kind {
        134 => return Err(&[RouterAdvertisement]),
        137 => return Err(&[Redirect]),
        130 => return Err(&[ListenerQuery]),
        _ => {}
    }
    has_link_scope(discovery.kind, ip)?;
    if matches!(discovery.kind, 131 | 132 | 143) {
        return is_listener_message(discovery, ip);
    }
    let said = read(discovery, ip)?;
    let to = ip.destination;
    let is_unicast_to_neighbour = match discovery.kind {
        133 => is_link_local(&to),
        135 => Some(to) == said.target && (is_link_local(&to) || is_near(to)),
        _ => is_link_local(&to) || is_near(to),
    };
    if !to.is_multicast() && !is_unicast_to_neighbour {
        return Err(SPOOF);
    }
    let may_name = |address: IpAddr| {
        own.contains(&address)
            || (address == derived(discovery.hardware)
                && said.bound.is_none_or(|bound| bound == discovery.hardware))
    };
    let claims = discovery.kind == 136 || discovery.kind == 135 && ip.source.is_unspecified();
    let claimed = said.target.filter(|_| claims);
    let from = Some(ip.source).filter(is_link_local);
    if claimed.into_iter().chain(from).all(may_name) {
        Ok(())
    } else {
        Err(SPOOF)
    }
}

/// Whether a discovery message may arrive at the workload.
pub(super) fn may_arrive(own: &[IpAddr], discovery: &Discovery, ip: &Ip) -> Result<(), Reasons> {
    has_link_scope(discovery.kind, ip)?;
    let to = ip.destination;
    if !(to.is_multicast() || is_link_local(&to) || own.contains(&to)) {
        return Err(SPOOF);
    }
    match discovery.kind {
        134 | 137 => Ok(()),
        133 | 135 | 136 => read(discovery, ip).map(|_| ()),
        _ => is_listener_message(discovery, ip),
    }
}

/// Whether a message comes from the link and stays on it.
fn has_link_scope(kind: u8, ip: &Ip) -> Result<(), Reasons> {
    let unspecified = ip.source.is_unspecified();
    let to_group = ip.destination.is_multicast();
    let stays = if (133..=137).contains(&kind) {
        ip.hop_limit == 255 && (!unspecified || to_group)
    } else {
        to_group && (unspecified || is_link_local(&ip.source))
    };
    if stays { Ok(()) } else { Err(SPOOF) }
}

/// What a solicitation or advertisement says.
struct Said {
    target: Option<IpAddr>,
    /// The hardware address in its option.
    bound: Option<[u8; 6]>,
}

fn read(discovery: &Discovery, ip: &Ip) -> Result<Said, Reasons> {
    let message = discovery.message.as_slice();
    let (fixed, flags) = match discovery.kind {
        133 => (8, 0),
        135 => (24, 0),
        _ => (24, 0xe0),
    };
    if !discovery.is_exact || !discovery.extensions.is_empty() || message.len() < fixed {
        return Err(HEADER);
    }
    if message[1] != 0 || message[4] & !flags != 0 || message[5..8] != [0; 3] {
        return Err(HEADER);
    }
    let (fixed, options) = message.split_at(fixed);
    let options: Vec<&[u8]> = options.chunks(8).collect();
    let mut kinds: Vec<u8> = options.iter().map(|option| option[0]).collect();
    let is_known =
        |option: &&[u8]| option.len() == 8 && matches!(option[0], 1 | 2 | 14) && option[1] == 1;
    kinds.sort_unstable();
    let is_repeated = kinds.windows(2).any(|pair| pair[0] == pair[1]);
    if !options.iter().all(is_known) || is_repeated || kinds.starts_with(&[1, 2]) {
        return Err(HEADER);
    }
    let mut links = options.iter().filter(|option| option[0] != 14);
    let bound: Option<[u8; 6]> = links.next().map(|link| link[2..].try_into().unwrap());
    let target = fixed.get(8..).filter(|target| !target.is_empty());
    let target = target.map(|target| <[u8; 16]>::try_from(target).unwrap().into());
    let unspecified = ip.source.is_unspecified();
    let fits = !ip.destination.is_multicast()
        || match (discovery.kind, target) {
            (133, _) => ip.destination == ALL_ROUTERS,
            (135, Some(target)) => {
                ip.destination == solicited(target) || ip.destination == ALL_NODES && !unspecified
            }
            _ => ip.destination == ALL_NODES && fixed[4] & 0x40 == 0,
        };
    let about_group = target.is_some_and(|target: IpAddr| target.is_multicast());
    if !fits || about_group || unspecified && bound.is_some() {
        return Err(SPOOF);
    }
    Ok(Said { target, bound })
}

fn is_listener_message(discovery: &Discovery, ip: &Ip) -> Result<(), Reasons> {
    let alerts = matches!(
        discovery.extensions.as_slice(),
        [_, 0, 5, 2, 0, 0, 0 | 1, 0] | [_, 0, 0 | 1, 0, 5, 2, 0, 0]
    );
    let message = discovery.message.as_slice();
    let is_message = discovery.first_header == 0
        && alerts
        && discovery.is_exact
        && ip.hop_limit == 1
        && message.len() >= 24
        && message[1] == 0;
    let has_length = match discovery.kind {
        143 => ends_after_records(message),
        130 if message.len() >= 28 => {
            message.len() == 28 + 16 * usize::from(u16::from_be_bytes([message[26], message[27]]))
        }
        _ => message.len() == 24,
    };
    if is_message && has_length {
        Ok(())
    } else {
        Err(HEADER)
    }
}

/// Whether a report has nothing but as many records as it states, at most sixteen.
fn ends_after_records(message: &[u8]) -> bool {
    let stated = u16::from_be_bytes([message[6], message[7]]);
    let mut rest = &message[8..];
    for _ in 0..stated {
        let [_, auxiliary, high, low, group, ..] = *rest else {
            return false;
        };
        let length = 20 + 16 * usize::from(u16::from_be_bytes([high, low]));
        if auxiliary != 0 || group != 0xff || rest.len() < length {
            return false;
        }
        rest = &rest[length..];
    }
    rest.is_empty() && stated <= 72
}

/// The group of the nodes whose addresses end as this one does (RFC 4291 §2.7.1).
fn solicited(target: IpAddr) -> IpAddr {
    let IpAddr::V6(target) = target else {
        panic!("{target} is a target")
    };
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&target.octets()[13..]);
    group.into()
}

/// The link-local address that is derived from a hardware address (RFC 4291 appendix A).
fn derived(hardware: [u8; 6]) -> IpAddr {
    let [a, b, c, d, e, f] = hardware;
    let prefix = [0xfe, 0x80, 0, 0, 0, 0, 0, 0];
    let identifier = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&prefix);
    octets[8..].copy_from_slice(&identifier);
    octets.into()
}
