//! Messages of netlink about the way to one address: its route, its neighbour, the port of a bridge.
//!
//! Pure. Numbers are those of `<linux/rtnetlink.h>`, `<linux/neighbour.h>` and `<linux/if_link.h>`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::netlink::message::{CHANGE, Message, attribute, attributes, message, u16_at, u32_at};

/// Kinds of messages.
mod kind {
    pub(super) const NEW_LINK: u16 = 16;
    pub(super) const GONE_LINK: u16 = 17;
    pub(super) const GET_LINK: u16 = 18;
    pub(super) const NEW_ROUTE: u16 = 24;
    pub(super) const GONE_ROUTE: u16 = 25;
    pub(super) const GET_ROUTE: u16 = 26;
    pub(super) const NEW_NEIGHBOUR: u16 = 28;
    pub(super) const GONE_NEIGHBOUR: u16 = 29;
    pub(super) const GET_NEIGHBOUR: u16 = 30;
}

/// Attributes.
mod attr {
    /// Of a route.
    pub(super) const DESTINATION: u16 = 1;
    pub(super) const DEVICE: u16 = 4;
    pub(super) const GATEWAY: u16 = 5;
    pub(super) const NEXT_HOPS: u16 = 9;
    pub(super) const VIA: u16 = 18;
    /// Of a neighbour, or of an entry of a bridge.
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const HARDWARE: u16 = 2;
    pub(super) const BRIDGE: u16 = 9;
}

const ROUTE_HEADER: usize = 12;
const NEIGHBOUR_HEADER: usize = 12;
const LINK_HEADER: usize = 16;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;
/// `RTM_F_FIB_MATCH`: the entry of the table, with the length of its prefix.
const FIB_MATCH: u32 = 0x2000;
/// `NTF_USE`: ask for it.
const USE: u8 = 0x1;
/// `NUD_PERMANENT`: of a bridge, its own address or that of one of its ports.
const PERMANENT: u16 = 0x80;
/// `AF_BRIDGE`.
const BRIDGE: u8 = 7;
/// `NLM_F_CREATE`.
const CREATE: u16 = 0x400;

/// The way to an address, without a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) device: u32,
    /// Whether it is of this address alone.
    pub(super) is_of_host: bool,
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn family(address: IpAddr) -> u8 {
    let family = match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    u8::try_from(family).unwrap_or_default()
}

/// A request for the route to an address.
pub(super) fn get_route(address: IpAddr) -> Vec<u8> {
    let octets = octets(address);
    let bits = u8::try_from(octets.len() * 8).unwrap_or_default();
    let mut body = vec![family(address), bits, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&FIB_MATCH.to_ne_bytes());
    body.extend(attribute(attr::DESTINATION, &octets));
    message(kind::GET_ROUTE, CHANGE, &body)
}

/// The route of an answer, if it leads straight to a device.
pub(super) fn route(message: &Message<'_>) -> Option<Route> {
    if message.kind != kind::NEW_ROUTE {
        return None;
    }
    let header = message.body.first_chunk::<ROUTE_HEADER>()?;
    let [family, length, _, _, _, _, _, UNICAST, ..] = *header else {
        return None;
    };
    let mut device = None;
    for (kind, value) in attributes(message.body.get(ROUTE_HEADER..)?) {
        match kind {
            attr::DEVICE => device = u32_at(value, 0),
            attr::GATEWAY | attr::VIA | attr::NEXT_HOPS => return None,
            _ => {}
        }
    }
    let whole = if i32::from(family) == libc::AF_INET {
        32
    } else {
        128
    };
    Some(Route {
        device: device?,
        is_of_host: length == whole,
    })
}

fn neighbour_header(family: u8, device: u32, flags: u8) -> Vec<u8> {
    let mut body = vec![family, 0, 0, 0];
    body.extend_from_slice(&device.to_ne_bytes());
    // Its state and its type.
    body.extend_from_slice(&[0, 0, flags, 0]);
    body
}

/// A request for the hardware address of a neighbour.
pub(super) fn get_neighbour(address: IpAddr, device: u32) -> Vec<u8> {
    let mut body = neighbour_header(family(address), device, 0);
    body.extend(attribute(attr::ADDRESS, &octets(address)));
    message(kind::GET_NEIGHBOUR, CHANGE, &body)
}

/// A request to find out the hardware address of a neighbour.
pub(super) fn solicit(address: IpAddr, device: u32) -> Vec<u8> {
    let mut body = neighbour_header(family(address), device, USE);
    body.extend(attribute(attr::ADDRESS, &octets(address)));
    message(kind::NEW_NEIGHBOUR, CHANGE | CREATE, &body)
}

/// The hardware address of an answer.
pub(super) fn hardware(message: &Message<'_>) -> Option<[u8; 6]> {
    if message.kind != kind::NEW_NEIGHBOUR {
        return None;
    }
    let mut attributes = attributes(message.body.get(NEIGHBOUR_HEADER..)?);
    let (_, value) = attributes.find(|(kind, _)| *kind == attr::HARDWARE)?;
    value.try_into().ok()
}

/// A request for the port of a bridge behind which a hardware address is.
pub(super) fn get_port(hardware: [u8; 6], bridge: u32) -> Vec<u8> {
    let mut body = neighbour_header(BRIDGE, 0, 0);
    body.extend(attribute(attr::HARDWARE, &hardware));
    body.extend(attribute(attr::BRIDGE, &bridge.to_ne_bytes()));
    message(kind::GET_NEIGHBOUR, CHANGE, &body)
}

/// The port of an answer, unless the bridge or its port has the address itself.
pub(super) fn port(message: &Message<'_>, bridge: u32) -> Option<u32> {
    if message.kind != kind::NEW_NEIGHBOUR {
        return None;
    }
    let port = u32_at(message.body, 4)?;
    let is_own = u16_at(message.body, 8)? & PERMANENT != 0;
    (port != bridge && !is_own).then_some(port)
}

/// A request for one link.
pub(super) fn get_link(device: u32) -> Vec<u8> {
    let mut body = vec![0; LINK_HEADER];
    if let Some(index) = body.get_mut(4..8) {
        index.copy_from_slice(&device.to_ne_bytes());
    }
    message(kind::GET_LINK, CHANGE, &body)
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// A link came, changed or went.
    Link,
    /// The way to an address changed.
    Address(IpAddr),
    /// A bridge learned where a hardware address is.
    Bridge,
}

/// What a notice is about, if it may be about one of these addresses.
pub(super) fn notice(message: &Message<'_>, wanted: &BTreeSet<IpAddr>) -> Option<Notice> {
    let header = match message.kind {
        kind::NEW_LINK | kind::GONE_LINK => return Some(Notice::Link),
        kind::NEW_ROUTE | kind::GONE_ROUTE => ROUTE_HEADER,
        kind::NEW_NEIGHBOUR | kind::GONE_NEIGHBOUR => {
            if message.body.first() == Some(&BRIDGE) {
                return Some(Notice::Bridge);
            }
            NEIGHBOUR_HEADER
        }
        _ => return None,
    };
    let mut attributes = attributes(message.body.get(header..)?);
    // The destination of a route and the address of a neighbour have the same number.
    let (_, value) = attributes.find(|(kind, _)| *kind == attr::DESTINATION)?;
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from));
    let address = address.ok().filter(|address| wanted.contains(address))?;
    Some(Notice::Address(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::messages;

    fn of(kind: u16, body: &[u8]) -> Vec<u8> {
        message(kind, 0, body)
    }

    fn read<T>(bytes: &[u8], read: impl Fn(&Message<'_>) -> Option<T>) -> Option<T> {
        messages(bytes).next().and_then(|it| read(&it))
    }

    fn route_body(length: u8, kind: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let header = [2, length, 0, 0, 254, 2, 253, kind, 0, 0, 0, 0];
        [header.to_vec(), attributes.concat()].concat()
    }

    #[test]
    fn a_route_straight_to_a_device_is_taken_and_no_other() {
        let device = attribute(4, &7_u32.to_ne_bytes());
        let gateway = attribute(5, &[10, 0, 0, 1]);
        let of_host = Route {
            device: 7,
            is_of_host: true,
        };
        let in_range = Route {
            device: 7,
            is_of_host: false,
        };
        for (length, kind, attributes, expected) in [
            (32, 1, vec![device.clone()], Some(of_host)),
            (24, 1, vec![device.clone()], Some(in_range)),
            (32, 2, vec![device.clone()], None),
            (32, 7, vec![device.clone()], None),
            (32, 1, vec![device, gateway], None),
            (32, 1, vec![], None),
        ] {
            let bytes = of(24, &route_body(length, kind, &attributes));
            assert_eq!(read(&bytes, route), expected, "{length} {kind}");
        }
        assert_eq!(read(&of(25, &route_body(32, 1, &[])), route), None);
    }

    #[test]
    fn the_port_of_a_bridge_is_not_the_bridge_and_not_where_it_has_the_address_itself() {
        let body = |port: u32, state: u16| {
            let mut body = neighbour_header(BRIDGE, port, 0);
            body[8..10].copy_from_slice(&state.to_ne_bytes());
            of(28, &body)
        };
        let port = |bytes: &[u8]| read(bytes, |it| port(it, 3));
        assert_eq!(port(&body(9, 0x2)), Some(9));
        assert_eq!(port(&body(9, PERMANENT)), None);
        assert_eq!(port(&body(3, 0x2)), None);
    }

    #[test]
    fn only_notices_that_may_be_about_an_address_count() {
        let own: IpAddr = "10.1.0.7".parse().unwrap();
        let wanted = BTreeSet::from([own]);
        let about = |kind: u16, last: u8| {
            let destination = attribute(1, &[10, 1, 0, last]);
            let bytes = of(kind, &[vec![2; 12], destination].concat());
            read(&bytes, |it| notice(it, &wanted))
        };
        for kind in [24, 25, 28, 29] {
            assert_eq!(about(kind, 7), Some(Notice::Address(own)), "{kind}");
            assert_eq!(about(kind, 8), None, "{kind}");
        }
        assert_eq!(about(16, 8), Some(Notice::Link));
        assert_eq!(about(20, 7), None);
        let bridge = of(28, &neighbour_header(BRIDGE, 3, 0));
        assert_eq!(
            read(&bridge, |it| notice(it, &wanted)),
            Some(Notice::Bridge)
        );
        assert_eq!(read(&of(24, &[2; 5]), |it| notice(it, &wanted)), None);
    }
}
