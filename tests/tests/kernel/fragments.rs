//! Fragments: the first one is evaluated, later ones follow it, and a later one alone is denied.

use std::net::IpAddr;

use ringfence_common::{drop_reason::DropReason, fragment::LIFETIME, mode::Direction};

use crate::fence::{Arriving, Dropped, FRIEND, Fence, FromHost, Hairpin, LOCAL, Leaving, Way};
use crate::frames::{SYN, TCP, UDP, echo, fragment, icmp_of, tcp, udp};

fn ends(way: Way, v6: bool) -> (IpAddr, IpAddr) {
    let (from, to) = if way == Leaving {
        (LOCAL, FRIEND)
    } else {
        (FRIEND, LOCAL)
    };
    (from.ip(v6), to.ip(v6))
}

/// A fence that allows [`FRIEND`] port 53 over UDP and TCP, in one direction.
fn dns(way: Way) -> Fence {
    let mut fence = Fence::new();
    let direction = if way == Leaving {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    fence.allow(direction, UDP, 53);
    fence.allow(direction, TCP, 53);
    fence
}

/// The first 24 bytes of a UDP datagram that is longer.
fn head(port: u16) -> Vec<u8> {
    udp(40000, port, 1000)[..24].to_vec()
}

fn cases() -> impl Iterator<Item = (Way, bool)> {
    [Leaving, Arriving]
        .into_iter()
        .flat_map(|way| [false, true].map(|v6| (way, v6)))
}

#[test]
fn later_fragments_follow_the_first() {
    for (way, v6) in cases() {
        let mut fence = dns(way);
        let ends = ends(way, v6);
        let later = fragment(ends, UDP, (3, true, 7), &[0; 24]);
        fence.denies(
            way,
            &later,
            DropReason::OrphanFragment,
            "before its first fragment",
        );
        fence.passes(
            way,
            &fragment(ends, UDP, (0, true, 7), &head(53)),
            "the first",
        );
        fence.passes(way, &later, "a middle one");
        fence.passes(
            way,
            &fragment(ends, UDP, (6, false, 7), &[0; 20]),
            "the last",
        );
        let other = fragment(ends, UDP, (3, true, 8), &[0; 24]);
        fence.denies(
            way,
            &other,
            DropReason::OrphanFragment,
            "of another datagram",
        );
        assert_eq!(fence.counters().flows_allowed, 1, "one flow, three packets");
    }
}

#[test]
fn a_recorded_first_fragment_expires_with_the_reassembly_timeout() {
    for (way, v6) in cases() {
        let mut fence = dns(way);
        let ends = ends(way, v6);
        let first = fragment(ends, UDP, (0, true, 7), &head(53));
        let later = fragment(ends, UDP, (3, false, 7), &[0; 24]);
        fence.passes(way, &first, "the first");
        fence.loaded().age_fragments(LIFETIME / 2);
        fence.passes(way, &later, "control: in time");
        fence.loaded().age_fragments(LIFETIME / 2);
        fence.denies(way, &later, DropReason::OrphanFragment, "too late");
    }
}

#[test]
fn later_fragments_get_the_ports_of_the_first() {
    for (way, v6) in cases() {
        let mut fence = dns(way);
        let ends = ends(way, v6);
        let denied = fragment(ends, UDP, (0, true, 7), &head(54));
        assert_eq!(fence.run(way, &denied), Dropped);
        // This one has the allowed port at the place where a header would be.
        let later = fragment(ends, UDP, (3, false, 7), &head(53));
        assert_eq!(fence.run(way, &later), Dropped);
        assert_eq!(fence.count(DropReason::Policy), (2, 0));
        fence.denies(way, &denied, DropReason::Policy, "the first");
        fence.denies(way, &later, DropReason::Policy, "the later");
    }
}

#[test]
fn a_fragmented_reply_needs_no_rule() {
    for (way, v6) in cases() {
        let mut fence = dns(way);
        let reply_way = if way == Leaving { Arriving } else { Leaving };
        let first = fragment(
            ends(reply_way, v6),
            UDP,
            (0, true, 9),
            &udp(53, 40000, 1000)[..24],
        );
        fence.denies(
            reply_way,
            &first,
            DropReason::Policy,
            "control: a reply without a request",
        );
        drop(fence);
        let mut fence = dns(way);
        let request = fragment(ends(way, v6), UDP, (0, true, 7), &head(53));
        fence.passes(way, &request, "a request");
        fence.passes(reply_way, &first, "its reply");
        let later = fragment(ends(reply_way, v6), UDP, (3, false, 9), &[0; 8]);
        fence.passes(reply_way, &later, "the rest of the reply");
    }
}

#[test]
fn a_first_fragment_without_the_whole_transport_header_is_denied() {
    for (way, v6) in cases() {
        let mut fence = dns(way);
        let ends = ends(way, v6);
        let tiny = DropReason::TinyFragment;
        let first = |protocol, payload: &[u8]| fragment(ends, protocol, (0, true, 7), payload);
        let long = crate::frames::with(tcp(40000, 53, SYN), 12, &[8 << 4]);
        for (what, frame) in [
            ("no UDP header", first(UDP, &[])),
            ("half a UDP header", first(UDP, &head(53)[..7])),
            ("eight bytes of TCP", first(TCP, &tcp(40000, 53, SYN)[..8])),
            (
                "TCP without its flags",
                first(TCP, &tcp(40000, 53, SYN)[..13]),
            ),
            ("TCP without its options", first(TCP, &long)),
            ("half an ICMP header", first(icmp_of(v6), &echo(v6, 1)[..4])),
        ] {
            fence.denies(way, &frame, tiny, what);
        }
        fence.passes(
            way,
            &first(TCP, &tcp(40000, 53, SYN)),
            "control: a whole TCP header",
        );
    }
}

#[test]
fn a_later_fragment_that_overlaps_the_tcp_header_is_denied() {
    for (way, v6) in cases() {
        let mut fence = dns(way);
        let ends = ends(way, v6);
        let first = fragment(ends, TCP, (0, true, 7), &tcp(40000, 53, SYN));
        fence.passes(way, &first, "the first");
        for offset in [1, 2] {
            let overlapping = fragment(ends, TCP, (offset, false, 7), &[0; 16]);
            let reason = DropReason::TinyFragment;
            fence.denies(way, &overlapping, reason, "inside the header");
        }
        fence.passes(
            way,
            &fragment(ends, TCP, (3, false, 7), &[0; 16]),
            "control: behind the header",
        );
    }
}

#[test]
fn a_later_fragment_that_overlaps_ports_behind_extension_headers_is_denied() {
    for way in [Leaving, Arriving] {
        let mut fence = dns(way);
        let ends = ends(way, true);
        let hidden = [crate::frames::extension(UDP, 1, 1), head(53)].concat();
        let first = fragment(ends, 60, (0, true, 7), &hidden);
        fence.passes(way, &first, "the first");
        for offset in [1, 2] {
            let overlapping = fragment(ends, 60, (offset, false, 7), &head(54));
            let reason = DropReason::TinyFragment;
            fence.denies(way, &overlapping, reason, "over options or ports");
        }
        fence.passes(
            way,
            &fragment(ends, 60, (3, false, 7), &[0; 16]),
            "control: behind the ports",
        );
    }
}

#[test]
fn a_first_fragment_is_recorded_for_its_own_hook() {
    for v6 in [false, true] {
        let mut fence = dns(Leaving);
        let ends = ends(Leaving, v6);
        let first = fragment(ends, UDP, (0, true, 7), &head(53));
        let later = fragment(ends, UDP, (3, false, 7), &[0; 24]);
        let orphan = DropReason::OrphanFragment;
        for way in [FromHost, Hairpin] {
            fence.passes(way, &first, "from the own address");
            fence.denies(
                Leaving,
                &later,
                orphan,
                "its first fragment passed the other hook",
            );
            fence.passes(way, &later, "control: the hook of its first fragment");
            fence.clear_fragments();
        }
        fence.passes(Leaving, &first, "the first, from the workload");
        fence.denies(
            Hairpin,
            &later,
            orphan,
            "its first fragment passed the other hook",
        );
        fence.passes(Leaving, &later, "control: the hook of its first fragment");
    }
}
