//! Messages of netlink about links, routes and addresses: requests for lists, and what responses contain.
//!
//! Pure. Invariant: unknown messages and attributes are passed over, so that one unusual link hides no
//! other. Numbers are those of `<linux/rtnetlink.h>` and `<linux/if_link.h>`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::Link;
use crate::netlink::message::{
    LIST, Message, aligned, attribute as attribute_of, attributes, message, text, u16_at, u32_at,
};

/// A new, changed or listed link.
pub(super) const NEW_LINK: u16 = 16;
/// A link that is gone from the network namespace.
const GONE_LINK: u16 = 17;
/// A listed address.
pub(super) const NEW_ADDRESS: u16 = 20;
/// A listed route.
pub(super) const NEW_ROUTE: u16 = 24;

const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const LOOPBACK: u32 = 0x8;
/// The index of the loopback device, in every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK_INDEX: u32 = 1;
/// The flag of an address whose prefix has no route (`IFA_F_NOPREFIXROUTE`).
const NO_PREFIX_ROUTE: u32 = 0x200;
/// The main routing table, and the type of routes that lead to a gateway or a link.
const MAIN: u8 = 254;
const UNICAST: u8 = 1;

/// Attributes of a link.
mod attribute {
    pub(super) const NAME: u16 = 3;
    pub(super) const INFO: u16 = 18;
    pub(super) const EXTENDED: u16 = 29;
    pub(super) const NEW_NAMESPACE: u16 = 45;
    pub(super) const PROPERTIES: u16 = 52;
    pub(super) const ALTERNATIVE_NAME: u16 = 53;
    /// In `INFO`.
    pub(super) const KIND: u16 = 1;
    /// Of a route: its device, and its next hops if there are several.
    pub(super) const DEVICE: u16 = 4;
    pub(super) const NEXT_HOPS: u16 = 9;
    /// Of an address: the one of the other end of a point-to-point link, or its own; its own; the
    /// broadcast address of its link.
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const LOCAL: u16 = 2;
    pub(super) const BROADCAST: u16 = 4;
    pub(super) const FLAGS: u16 = 8;
}

/// In `EXTENDED`: without counters, which nothing here reads.
const SKIP_STATISTICS: u32 = 8;

/// The link of a message about one, with its index.
pub(super) fn link(body: &[u8]) -> Option<(u32, Link)> {
    let mut link = Link {
        hardware: u16_at(body, 2)?,
        is_loopback: u32_at(body, 8)? & LOOPBACK != 0,
        ..Link::default()
    };
    let index = u32_at(body, 4)?;
    for (kind, value) in attributes(body.get(LINK_HEADER..)?) {
        match kind {
            attribute::NAME => link.name = text(value),
            attribute::INFO => {
                let kinds = attributes(value).filter(|(kind, _)| *kind == attribute::KIND);
                link.kind = kinds
                    .map(|(_, value)| text(value))
                    .next()
                    .unwrap_or_default();
            }
            attribute::PROPERTIES => {
                let names =
                    attributes(value).filter(|(kind, _)| *kind == attribute::ALTERNATIVE_NAME);
                link.altnames = names.map(|(_, value)| text(value)).collect();
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some((index, link))
}

/// The link that left for another network namespace, if the message says that one did.
pub(super) fn left(message: &Message<'_>) -> Option<u32> {
    let mut attributes = attributes(message.body.get(LINK_HEADER..)?);
    let moved = attributes.any(|(kind, _)| kind == attribute::NEW_NAMESPACE);
    let index = u32_at(message.body, 4)?;
    (message.kind == GONE_LINK && moved).then_some(index)
}

/// A request for every link.
pub(super) fn list_links() -> Vec<u8> {
    let mut body = vec![0; LINK_HEADER];
    body.extend(attribute_of(
        attribute::EXTENDED,
        &SKIP_STATISTICS.to_ne_bytes(),
    ));
    message(GET_LINK, LIST, &body)
}

/// A request for every address of every family.
pub(super) fn list_addresses() -> Vec<u8> {
    message(GET_ADDRESS, LIST, &[0; ADDRESS_HEADER])
}

/// An address of a link, and what the node takes for its own with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// The address.
    pub(super) own: IpAddr,
    /// That of every router in its prefix (RFC 4291 §2.6.1): the kernel has it while the link forwards,
    /// which may begin without a notice. Prefixes of one or two addresses have none (RFC 6164).
    pub(super) anycast: Option<Ipv6Addr>,
    /// Its whole prefix, if each address in it is local: on the loopback device, IPv4 prefixes are.
    pub(super) range: Option<Ipv4Net>,
    /// The broadcast addresses of its link. A network of more than two addresses has its first and last
    /// one as such whether the kernel was told so or not: other hosts on the link may have been.
    pub(super) broadcasts: Vec<Ipv4Addr>,
}

/// The address of a message about one.
pub(super) fn address(body: &[u8]) -> Option<Address> {
    let length = *body.get(1)?;
    let is_on_loopback = u32_at(body, 4)? == LOOPBACK_INDEX;
    let (mut address, mut local, mut broadcasts) = (None, None, Vec::new());
    let mut flags = 0;
    for (kind, value) in attributes(body.get(ADDRESS_HEADER..)?) {
        match (kind, ip(value)) {
            (attribute::ADDRESS, ip) => address = ip,
            (attribute::LOCAL, ip) => local = ip,
            (attribute::BROADCAST, Some(IpAddr::V4(ip))) => broadcasts.push(ip),
            (attribute::FLAGS, _) => flags = u32_at(value, 0).unwrap_or_default(),
            _ => {}
        }
    }
    // Without a local one, both ends are the same.
    let own = local.or(address)?;
    let (mut anycast, mut range) = (None, None);
    match own {
        IpAddr::V4(own) => {
            if (1..=30).contains(&length)
                && let Ok(net) = Ipv4Net::new(own, length)
            {
                broadcasts.extend([net.network(), net.broadcast()]);
            }
            // The prefix of a point-to-point address is that of the other end.
            if is_on_loopback
                && flags & NO_PREFIX_ROUTE == 0
                && let Some(IpAddr::V4(end)) = address.or(local)
            {
                range = local_range(end, length);
            }
        }
        IpAddr::V6(own) if (1..=126).contains(&length) => {
            let net = Ipv6Net::new(own, length);
            let first = net.ok().map(|net| net.network());
            anycast = first.filter(|first| !first.is_unspecified());
        }
        IpAddr::V6(_) => {}
    }
    broadcasts.retain(|it| !it.is_unspecified() && IpAddr::V4(*it) != own);
    Some(Address {
        own,
        anycast,
        range,
        broadcasts,
    })
}

/// The prefix of an address of the loopback device. Loopback addresses are no host's on a wire, and a
/// prefix of a single address is that address.
fn local_range(address: Ipv4Addr, length: u8) -> Option<Ipv4Net> {
    let net = Ipv4Net::new(address, length).ok()?.trunc();
    let is_usual = net.network().is_loopback() || net.network().octets().starts_with(&[0]);
    ((1..32).contains(&length) && !is_usual).then_some(net)
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from))
        .ok()
}

/// A request for every route of an address family (`AF_…`).
pub(super) fn list_routes(family: u8) -> Vec<u8> {
    let mut body = vec![0; ROUTE_HEADER];
    if let Some(first) = body.first_mut() {
        *first = family;
    }
    message(GET_ROUTE, LIST, &body)
}

/// The devices of a message about a route, if it is a default route of the main table.
pub(super) fn uplinks(body: &[u8]) -> Vec<u32> {
    let Some([_, 0, _, _, MAIN, _, _, UNICAST, ..]) = body.first_chunk::<ROUTE_HEADER>() else {
        return Vec::new();
    };
    let of = |(kind, value)| match kind {
        attribute::DEVICE => u32_at(value, 0).into_iter().collect(),
        attribute::NEXT_HOPS => next_hops(value).collect(),
        _ => Vec::new(),
    };
    let attributes = attributes(body.get(ROUTE_HEADER..).unwrap_or_default());
    attributes.flat_map(of).collect()
}

/// The devices of next hops: length, flags and weight before each.
fn next_hops(mut bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?).max(8);
        let device = u32_at(bytes, 4)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(device)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::{attribute, messages};

    fn body(index: u32, hardware: u16, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![0; 2];
        body.extend_from_slice(&hardware.to_ne_bytes());
        body.extend_from_slice(&index.to_ne_bytes());
        body.extend_from_slice(&flags.to_ne_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend(attributes.concat());
        body
    }

    #[test]
    fn a_link_has_its_names_and_its_kind() {
        let altnames = [attribute(53, b"first\0"), attribute(53, b"second-one\0")].concat();
        let bytes = body(
            7,
            1,
            0x1043,
            &[
                attribute(3, b"veth1\0"),
                attribute(13, &[0; 4]),
                attribute(18 | 0x8000, &attribute(1, b"veth\0")),
                attribute(52 | 0x8000, &altnames),
            ],
        );
        let expected = Link {
            name: "veth1".into(),
            altnames: vec!["first".into(), "second-one".into()],
            hardware: 1,
            is_loopback: false,
            kind: "veth".into(),
        };
        assert_eq!(link(&bytes), Some((7, expected)));
        let (_, lo) = link(&body(1, 772, 0x49, &[attribute(3, b"lo\0")])).unwrap();
        assert!(lo.is_loopback && lo.hardware == 772);
    }

    #[test]
    fn a_link_that_is_cut_off_has_no_other_name() {
        let bytes = body(7, 1, 0, &[attribute(3, b"veth1\0")]);
        for end in 0..bytes.len() {
            let found = link(&bytes[..end]).map(|(_, link)| link.name);
            assert!(found.is_none_or(|name| name == "veth1"), "{end}");
        }
    }

    #[test]
    fn a_link_that_moves_is_told_from_one_that_is_removed() {
        let name = attribute(3, b"veth1\0");
        let target = attribute(45, &3_i32.to_ne_bytes());
        for (kind, attributes, expected) in [
            (GONE_LINK, vec![name.clone(), target.clone()], Some(7)),
            (GONE_LINK, vec![name.clone()], None),
            (NEW_LINK, vec![name, target], None),
        ] {
            let bytes = message(kind, 0, &body(7, 1, 0, &attributes));
            assert_eq!(
                messages(&bytes).find_map(|it| left(&it)),
                expected,
                "{kind}"
            );
        }
    }

    #[test]
    fn an_address_has_the_broadcast_addresses_of_its_link() {
        let of = |family: u8, length: u8, attributes: &[Vec<u8>]| {
            let header = vec![family, length, 0x80, 0, 7, 0, 0, 0];
            let found = address(&[header, attributes.concat()].concat());
            found.map(|it| {
                let broadcasts = it.broadcasts.iter().map(Ipv4Addr::to_string);
                (it.own.to_string(), broadcasts.collect::<Vec<_>>().join(" "))
            })
        };
        let expected = |own: &str, all: &str| Some((own.to_owned(), all.to_owned()));
        let own = attribute(2, &[10, 0, 1, 7]);
        let both = attribute(1, &[10, 0, 1, 7]);
        let broadcast = attribute(4, &[10, 0, 3, 255]);
        let all = [both.clone(), own.clone(), broadcast];
        assert_eq!(
            of(2, 22, &all),
            expected("10.0.1.7", "10.0.3.255 10.0.0.0 10.0.3.255")
        );
        assert_eq!(
            of(2, 24, &[both, own.clone()]),
            expected("10.0.1.7", "10.0.1.0 10.0.1.255")
        );
        let peer = attribute(1, &[10, 0, 9, 9]);
        for length in [31, 32] {
            let found = of(2, length, &[peer.clone(), own.clone()]);
            assert_eq!(found, expected("10.0.1.7", ""), "{length}");
        }
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[0xfe, 0x80]);
        bytes[15] = 9;
        assert_eq!(of(10, 64, &[attribute(1, &bytes)]), expected("fe80::9", ""));
        assert_eq!(of(2, 24, &[attribute(1, &[10, 0])]), None);
        assert!(address(&[2]).is_none());
    }

    #[test]
    fn a_router_answers_for_the_first_address_of_its_prefix() {
        let of = |text: &str, length: u8| {
            let octets = text.parse::<Ipv6Addr>().unwrap().octets();
            let header = vec![10, length, 0x80, 0, 7, 0, 0, 0];
            let found = address(&[header, attribute(1, &octets)].concat()).unwrap();
            found.anycast.map(|it| it.to_string())
        };
        for (own, length, expected) in [
            ("fd00:0:0:7::9", 64, Some("fd00:0:0:7::")),
            ("fe80::9", 64, Some("fe80::")),
            ("fd00::17", 124, Some("fd00::10")),
            ("fd00::16", 126, Some("fd00::14")),
            ("fd00::17", 127, None),
            ("fd00::17", 128, None),
            ("fd00::17", 0, None),
            ("::17", 64, None),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(of(own, length), expected, "{own}/{length}");
        }
    }

    #[test]
    fn the_loopback_device_has_whole_prefixes() {
        let of = |index: u8, length: u8, attributes: &[Vec<u8>]| {
            let header = vec![2, length, 0x80, 0, index, 0, 0, 0];
            let found = address(&[header, attributes.concat()].concat()).unwrap();
            found.range.map(|it| it.to_string())
        };
        let both = |ip: [u8; 4]| [attribute(1, &ip), attribute(2, &ip)];
        let range = |text: &str| Some(text.to_owned());
        assert_eq!(of(1, 24, &both([10, 0, 9, 7])), range("10.0.9.0/24"));
        assert_eq!(of(1, 31, &both([10, 0, 9, 7])), range("10.0.9.6/31"));
        assert_eq!(of(2, 24, &both([10, 0, 9, 7])), None, "another device");
        assert_eq!(of(1, 32, &both([10, 0, 9, 7])), None);
        assert_eq!(of(1, 8, &both([127, 0, 0, 1])), None);
        let [end, own] = [attribute(1, &[10, 0, 8, 1]), attribute(2, &[10, 0, 9, 7])];
        assert_eq!(of(1, 24, &[end, own]), range("10.0.8.0/24"));
        let [address, local] = both([10, 0, 9, 7]);
        let without_route = attribute(8, &0x280_u32.to_ne_bytes());
        assert_eq!(of(1, 24, &[address, local, without_route]), None);
    }

    #[test]
    fn default_routes_have_devices() {
        let route = |length: u8, table: u8, kind: u8, attributes: &[Vec<u8>]| {
            let header = [2, length, 0, 0, table, 3, 0, kind, 0, 0, 0, 0];
            [header.to_vec(), attributes.concat()].concat()
        };
        let device = [attribute(4, &7_u32.to_ne_bytes())];
        assert_eq!(uplinks(&route(0, 254, 1, &device)), [7]);
        let hop = |device: u32, gateway: &[u8]| {
            let length = u16::try_from(8 + gateway.len()).unwrap();
            let mut bytes = [length.to_ne_bytes().to_vec(), vec![0; 2]].concat();
            bytes.extend_from_slice(&device.to_ne_bytes());
            bytes.extend_from_slice(gateway);
            bytes
        };
        let gateway = attribute(5, &[10, 0, 0, 1]);
        let hops = attribute(9, &[hop(8, &gateway), hop(9, &[])].concat());
        assert_eq!(uplinks(&route(0, 254, 1, &[hops])), [8, 9]);
        for other in [route(24, 254, 1, &device), route(0, 100, 1, &device)] {
            assert!(uplinks(&other).is_empty(), "{other:?}");
        }
        assert!(
            uplinks(&route(0, 254, 7, &device)).is_empty(),
            "unreachable"
        );
        assert!(uplinks(&[0; 5]).is_empty());
    }
}
