//! Memory that the kernel gave to another key while a program held it: here the maps are made to hold
//! what such a program would read. None of it may decide anything: a denied flow stays denied, and an
//! allowed one is evaluated.

use ringfence_common::{
    conntrack::CtEntry,
    drop_reason::DropReason,
    mode::{Direction, Mode, Verdict},
    policy::PolicyRow,
};

use crate::fence::{
    Arriving, Dropped, FRIEND, FRIENDS, Fence, LOCAL, Leaving, OTHER, OTHERS, RULE, TABLE,
    any_port, any_protocol,
};
use crate::frames::{ACK, Flow, SYN, TCP, UDP, fragment, udp};

const OPEN: u16 = 443;
const SHUT: u16 = 444;

const fn flow(v6: bool, local: u16, peer: u16) -> Flow {
    Flow {
        v6,
        local: (LOCAL, local),
        peer: (FRIEND, peer),
    }
}

/// As [`Fence::passes`], for a frame of either end.
fn exchange(fence: &mut Fence, flow: &Flow, protocol: u8, flags: u8, what: &str) {
    fence.passes(Leaving, &flow.outbound(protocol, flags), what);
    fence.passes(Arriving, &flow.inbound(protocol, flags), what);
}

fn recycled(fence: &Fence) -> u64 {
    fence.counters().records_recycled
}

#[test]
fn an_assured_entry_of_another_flow_decides_nothing() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, OPEN);
        let (allowed, denied) = (flow(v6, 40000, OPEN), flow(v6, 40000, SHUT));
        open(&mut fence, &allowed);
        fence.copy_assured(SHUT);
        assert_eq!(fence.assured(), 2, "control: under both keys");
        for _ in 0..3 {
            let before = recycled(&fence);
            let frame = denied.outbound(TCP, ACK);
            assert_eq!(fence.leaving(&frame), Dropped, "another flow's entry");
            let frame = denied.inbound(TCP, ACK);
            assert_eq!(fence.arriving(&frame), Dropped, "as a reply, too");
            assert!(recycled(&fence) > before, "it is counted");
        }
        let before = recycled(&fence);
        exchange(&mut fence, &allowed, TCP, ACK, "its own entry");
        assert_eq!(recycled(&fence), before, "control: nothing to count");
    }
}

/// Opens a connection so that its entry is in the assured map.
fn open(fence: &mut Fence, flow: &Flow) {
    fence.passes(Leaving, &flow.outbound(TCP, SYN), "the SYN");
    fence.passes(Arriving, &flow.inbound(TCP, SYN | ACK), "the SYN+ACK");
    fence.passes(Leaving, &flow.outbound(TCP, ACK), "the ACK");
    fence.passes(Arriving, &flow.inbound(TCP, ACK), "data");
    assert_eq!(fence.assured(), 1, "control: it is assured");
}

#[test]
fn a_denied_entry_of_another_flow_denies_nothing() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, TCP, OPEN);
        let flow = flow(v6, 40000, OPEN);
        open(&mut fence, &flow);
        fence.rewrite_flows(|mut record| record.entry().verdicts = Verdict::Deny as u8);
        let before = recycled(&fence);
        fence.passes(Leaving, &flow.outbound(TCP, ACK), "evaluated");
        assert!(recycled(&fence) > before, "it is counted");
        exchange(&mut fence, &flow, TCP, ACK, "by the new entry");
    }
}

/// The entry as 64-bit words.
fn words(entry: &CtEntry) -> [u64; 8] {
    zerocopy::transmute!(*entry)
}

#[test]
fn a_mixture_of_two_entries_decides_nothing() {
    for v6 in [false, true] {
        // From the seal on, every run of words of the other entry.
        for from in 2..8 {
            for to in from + 1..=8 {
                let mut fence = Fence::new();
                fence.allow(Direction::Egress, UDP, OPEN);
                let (allowed, denied) = (flow(v6, 40000, OPEN), flow(v6, 40001, SHUT));
                fence.passes(Leaving, &allowed.outbound(UDP, 0), "the allowed flow");
                fence.set_mode(Mode::Observe);
                fence.leaving(&denied.outbound(UDP, 0));
                fence.set_mode(Mode::Enforce);
                let mut entries = Vec::new();
                fence.rewrite_flows(|mut record| {
                    entries.push((record.port(), words(record.entry())));
                });
                entries.sort_unstable();
                let [(40000, allow), (40001, deny)] = entries[..] else {
                    panic!("{entries:?}");
                };
                fence.rewrite_flows(|mut record| {
                    let (own, other) = match record.port() {
                        40000 => (allow, deny),
                        _ => (deny, allow),
                    };
                    let mut mixed = own;
                    mixed[from..to].copy_from_slice(&other[from..to]);
                    *record.entry() = zerocopy::transmute!(mixed);
                });
                let what = format!("words {from}..{to}");
                assert_eq!(fence.leaving(&denied.outbound(UDP, 0)), Dropped, "{what}");
                assert_eq!(fence.arriving(&denied.inbound(UDP, 0)), Dropped, "{what}");
                exchange(&mut fence, &allowed, UDP, 0, &what);
                if allow[from..to] != deny[from..to] {
                    assert!(recycled(&fence) >= 2, "{what}: both are counted");
                }
            }
        }
    }
}

#[test]
fn an_identity_of_another_address_is_not_used() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        let row = PolicyRow::lasting(Verdict::Allow, RULE);
        fence.put_row(any_port(TABLE, FRIENDS, Direction::Egress, UDP), row);
        let denied = Flow {
            peer: (OTHER, OPEN),
            ..flow(v6, 40000, OPEN)
        };
        let allowed = flow(v6, 40000, OPEN);
        let frame = denied.outbound(UDP, 0);
        fence.denies(Leaving, &frame, DropReason::Policy, "control");
        fence.clear_flows();
        fence.misplace_identity(FRIEND.ip(v6), OTHER.ip(v6));
        let before = recycled(&fence);
        fence.denies(Leaving, &frame, DropReason::UnknownPeer, "a friend's value");
        assert!(recycled(&fence) > before, "it is counted");
        exchange(&mut fence, &allowed, UDP, 0, "the friend itself");
    }
}

#[test]
fn an_identity_of_another_address_allows_nothing_to_its_holder() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        // A rule for all but others.
        let (allow, deny) = (Verdict::Allow, Verdict::Deny);
        for (class, verdict) in [(FRIENDS, allow), (OTHERS, deny)] {
            let row = PolicyRow::lasting(verdict, RULE);
            fence.put_row(any_protocol(TABLE, class, Direction::Ingress), row);
        }
        let flow = Flow {
            v6,
            local: (LOCAL, OPEN),
            peer: (FRIEND, 40000),
        };
        fence.passes(Arriving, &flow.inbound(UDP, 0), "control");
        fence.clear_flows();
        fence.misplace_identity(OTHER.ip(v6), FRIEND.ip(v6));
        let frame = flow.inbound(UDP, 0);
        fence.denies(
            Arriving,
            &frame,
            DropReason::UnknownPeer,
            "unknown, until it is read",
        );
    }
}

#[test]
fn a_fragment_record_of_another_datagram_is_not_used() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow(Direction::Egress, UDP, OPEN);
        let ends = (LOCAL.ip(v6), FRIEND.ip(v6));
        let first = &udp(40000, OPEN, 1000)[..24];
        fence.passes(
            Leaving,
            &fragment(ends, UDP, (0, true, 7), first),
            "the first",
        );
        fence.copy_fragments(8);
        let before = recycled(&fence);
        let later = fragment(ends, UDP, (3, true, 8), &[0; 24]);
        fence.denies(
            Leaving,
            &later,
            DropReason::OrphanFragment,
            "another datagram's",
        );
        assert!(recycled(&fence) > before, "it is counted");
        let later = fragment(ends, UDP, (3, true, 7), &[0; 24]);
        fence.passes(Leaving, &later, "its own");
    }
}
