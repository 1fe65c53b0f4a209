//! Fragments: the first one decides, the later ones follow it, and none passes alone.

use std::net::IpAddr;

use ringfence_common::{drop_reason::DropReason, fragment::LIFETIME, mode::Direction};

use crate::fence::{Arriving, Dropped, FRIEND, Fence, FromNode, Hairpin, LOCAL, Leaving, Way};
use crate::frames::{SYN, TCP, UDP, echo, fragment, icmp_of, tcp, udp};

fn ends(way: Way, v6: bool) -> (IpAddr, IpAddr) {
    let (from, to) = if way == Leaving {
        (LOCAL, FRIEND)
    } else {
        (FRIEND, LOCAL)
    };
    (from.ip(v6), to.ip(v6))
}

/// A fence that allows friends UDP port 53, and every fragment of one family's direction.
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

/// The first 24 bytes of a larger datagram.
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
        fence.refuses(way, &later, DropReason::OrphanFragment, "before its first");
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
        fence.refuses(
            way,
            &other,
            DropReason::OrphanFragment,
            "of another datagram",
        );
        assert_eq!(fence.counters().flows_allowed, 1, "one flow, three packets");
    }
}

#[test]
fn a_first_fragment_speaks_for_others_while_they_could_be_reassembled() {
    for (way, v6) in cases() {
        let mut fence = dns(way);
        let ends = ends(way, v6);
        let first = fragment(ends, UDP, (0, true, 7), &head(53));
        let later = fragment(ends, UDP, (3, false, 7), &[0; 24]);
        fence.passes(way, &first, "the first");
        fence.age_fragments(LIFETIME / 2);
        fence.passes(way, &later, "control: in time");
        fence.age_fragments(LIFETIME / 2);
        fence.refuses(way, &later, DropReason::OrphanFragment, "too late");
    }
}

#[test]
fn the_first_fragments_ports_decide_whatever_later_bytes_look_like() {
    for (way, v6) in cases() {
        let mut fence = dns(way);
        let ends = ends(way, v6);
        let denied = fragment(ends, UDP, (0, true, 7), &head(54));
        assert_eq!(fence.run(way, &denied), Dropped);
        // Where ports would be, this one shows the allowed one.
        let later = fragment(ends, UDP, (3, false, 7), &head(53));
        assert_eq!(fence.run(way, &later), Dropped);
        assert_eq!(fence.count(DropReason::Policy), (2, 0));
        fence.refuses(way, &denied, DropReason::Policy, "the first");
        fence.refuses(way, &later, DropReason::Policy, "the later");
    }
}

#[test]
fn a_fragmented_answer_needs_no_rule() {
    for (way, v6) in cases() {
        let mut fence = dns(way);
        let back = if way == Leaving { Arriving } else { Leaving };
        let first = fragment(
            ends(back, v6),
            UDP,
            (0, true, 9),
            &udp(53, 40000, 1000)[..24],
        );
        fence.refuses(
            back,
            &first,
            DropReason::Policy,
            "control: an answer to nothing",
        );
        drop(fence);
        let mut fence = dns(way);
        let request = fragment(ends(way, v6), UDP, (0, true, 7), &head(53));
        fence.passes(way, &request, "a request");
        fence.passes(back, &first, "its answer");
        let later = fragment(ends(back, v6), UDP, (3, false, 9), &[0; 8]);
        fence.passes(back, &later, "the answer's rest");
    }
}

#[test]
fn a_first_fragment_holds_the_whole_header() {
    for (way, v6) in cases() {
        let mut fence = dns(way);
        let ends = ends(way, v6);
        let tiny = DropReason::TinyFragment;
        let first = |number, payload: &[u8]| fragment(ends, number, (0, true, 7), payload);
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
            fence.refuses(way, &frame, tiny, what);
        }
        fence.passes(
            way,
            &first(TCP, &tcp(40000, 53, SYN)),
            "control: a whole TCP header",
        );
    }
}

#[test]
fn no_later_fragment_may_overwrite_a_tcp_header() {
    for (way, v6) in cases() {
        let mut fence = dns(way);
        let ends = ends(way, v6);
        let first = fragment(ends, TCP, (0, true, 7), &tcp(40000, 53, SYN));
        fence.passes(way, &first, "the first");
        for offset in [1, 2] {
            let overwriting = fragment(ends, TCP, (offset, false, 7), &[0; 16]);
            let reason = DropReason::TinyFragment;
            fence.refuses(way, &overwriting, reason, "inside the header");
        }
        fence.passes(
            way,
            &fragment(ends, TCP, (3, false, 7), &[0; 16]),
            "control: at 24",
        );
    }
}

#[test]
fn no_later_fragment_may_overwrite_ports_behind_extension_headers() {
    for way in [Leaving, Arriving] {
        let mut fence = dns(way);
        let ends = ends(way, true);
        let hidden = [crate::frames::extension(UDP, 1, 1), head(53)].concat();
        let first = fragment(ends, 60, (0, true, 7), &hidden);
        fence.passes(way, &first, "the first");
        for offset in [1, 2] {
            let overwriting = fragment(ends, 60, (offset, false, 7), &head(54));
            let reason = DropReason::TinyFragment;
            fence.refuses(way, &overwriting, reason, "over options or ports");
        }
        fence.passes(
            way,
            &fragment(ends, 60, (3, false, 7), &[0; 16]),
            "control: behind the ports",
        );
    }
}

#[test]
fn a_first_fragment_speaks_at_its_own_hook() {
    for v6 in [false, true] {
        let mut fence = dns(Leaving);
        let ends = ends(Leaving, v6);
        let first = fragment(ends, UDP, (0, true, 7), &head(53));
        let later = fragment(ends, UDP, (3, false, 7), &[0; 24]);
        let orphan = DropReason::OrphanFragment;
        for way in [FromNode, Hairpin] {
            fence.passes(way, &first, "from the own address");
            fence.refuses(Leaving, &later, orphan, "its first did not leave");
            fence.passes(way, &later, "control: where its first came by");
            fence.forget_fragments();
        }
        fence.passes(Leaving, &first, "leaves");
        fence.refuses(Hairpin, &later, orphan, "its first did not come");
        fence.passes(Leaving, &later, "control: where its first left");
    }
}
