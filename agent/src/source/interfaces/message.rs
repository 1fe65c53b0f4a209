//! Messages of the kernel's routing netlink family: requests for lists, and what responses contain.
//!
//! Pure. Invariants: a message that is shorter than it says ends the list of messages, and an attribute
//! the list of attributes; unknown messages and attributes are passed over, so that one unusual link
//! hides no other. Integers are in the machine's byte order. Numbers are those of `<linux/netlink.h>`,
//! `<linux/rtnetlink.h>` and `<linux/if_link.h>`.

use super::Link;

/// An error, or an acknowledgement.
pub(super) const ERROR: u16 = 2;
/// The end of a list.
pub(super) const DONE: u16 = 3;
/// A new, changed or listed link.
pub(super) const NEW_LINK: u16 = 16;
/// The flag of a list in whose course its subject changed.
pub(super) const INTERRUPTED: u16 = 0x10;

/// A link that is gone from the network namespace.
const GONE_LINK: u16 = 17;
/// A listed route.
pub(super) const NEW_ROUTE: u16 = 24;

const GET_LINK: u16 = 18;
const GET_ROUTE: u16 = 26;
const REQUEST_LIST: u16 = 0x1 | 0x300;
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;
const LOOPBACK: u32 = 0x8;
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
}

/// In `EXTENDED`: without counters, which nothing here reads.
const SKIP_STATISTICS: u32 = 8;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) body: &'a [u8],
}

impl Message<'_> {
    /// The error code of [`ERROR`] and [`DONE`]: an `errno`, or 0 for none.
    pub(super) fn error(&self) -> i32 {
        let code = self
            .body
            .first_chunk()
            .map_or(0, |code| i32::from_ne_bytes(*code));
        code.saturating_neg()
    }
}

/// The messages of a datagram.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(datagram, 0)? as usize;
        let message = Message {
            kind: u16_at(datagram, 4)?,
            flags: u16_at(datagram, 6)?,
            body: datagram.get(HEADER..length)?,
        };
        datagram = datagram.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

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
    body.extend_from_slice(&8_u16.to_ne_bytes());
    body.extend_from_slice(&attribute::EXTENDED.to_ne_bytes());
    body.extend_from_slice(&SKIP_STATISTICS.to_ne_bytes());
    request(GET_LINK, &body)
}

/// A request for every route of an address family (`AF_…`).
pub(super) fn list_routes(family: u8) -> Vec<u8> {
    let mut body = vec![0; ROUTE_HEADER];
    if let Some(first) = body.first_mut() {
        *first = family;
    }
    request(GET_ROUTE, &body)
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

fn request(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&REQUEST_LIST.to_ne_bytes());
    // Sequence number and port, which a socket for one request does not need.
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    message
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        // The two highest bits are flags.
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn text(value: &[u8]) -> String {
    let end = value
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

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
    fn what_is_cut_off_ends_the_list() {
        let first = request(NEW_LINK, &body(7, 1, 0, &[attribute(3, b"a\0")]));
        let mut bytes = first.clone();
        bytes.extend_from_slice(&first);
        assert_eq!(messages(&bytes).count(), 2);
        for end in 0..bytes.len() {
            let whole = end / first.len();
            assert_eq!(messages(&bytes[..end]).count(), whole, "{end}");
            assert!(link(&bytes[..end]).is_none_or(|(_, link)| link.name.len() < 16));
        }
        // A length of 0 must not be read for ever.
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 64]).count(), 0);
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
            let bytes = request(kind, &body(7, 1, 0, &attributes));
            assert_eq!(
                messages(&bytes).find_map(|it| left(&it)),
                expected,
                "{kind}"
            );
        }
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

    #[test]
    fn errors_have_a_code() {
        let busy = request(ERROR, &(-16_i32).to_ne_bytes());
        assert_eq!(messages(&busy).next().map(|it| it.error()), Some(16));
        let done = request(DONE, &0_i32.to_ne_bytes());
        assert_eq!(messages(&done).next().map(|it| it.error()), Some(0));
    }
}
