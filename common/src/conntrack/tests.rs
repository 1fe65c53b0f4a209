use proptest::prelude::*;

use super::*;
use crate::packet::{TcpFlags, protocol};

const SYN: TcpFlags = TcpFlags(TcpFlags::SYN);
const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN | TcpFlags::ACK);
const ACK: TcpFlags = TcpFlags(TcpFlags::ACK);
const FIN: TcpFlags = TcpFlags(TcpFlags::FIN | TcpFlags::ACK);
const RST: TcpFlags = TcpFlags(TcpFlags::RST);

fn seconds(entry_state: u8, proto: u8) -> u64 {
    Timeout::DEFAULTS[timeout(entry_state, proto) as usize].into()
}

fn walk(packets: &[(bool, TcpFlags)]) -> u8 {
    packets.iter().fold(0, |s, (reply, tcp)| {
        next_state(s, protocol::TCP, *reply, *tcp)
    })
}

#[test]
fn tcp_states_and_timeouts_follow_the_handshake_and_close() {
    assert_eq!(seconds(walk(&[(false, SYN)]), protocol::TCP), 30);
    let replied = [(false, SYN), (true, SYN_ACK)];
    assert_eq!(seconds(walk(&replied), protocol::TCP), 30);
    let established = [replied[0], replied[1], (false, ACK)];
    assert_eq!(seconds(walk(&established), protocol::TCP), 8000);
    let half_closed = [established[0], established[1], established[2], (true, FIN)];
    assert_eq!(
        seconds(walk(&half_closed), protocol::TCP),
        240,
        "RFC 5382 REQ-5"
    );
    let refused = [(false, SYN), (true, FIN)];
    assert_eq!(seconds(walk(&refused), protocol::TCP), 120);
    let closed = [
        half_closed[0],
        half_closed[1],
        half_closed[2],
        half_closed[3],
        (false, FIN),
    ];
    assert_eq!(seconds(walk(&closed), protocol::TCP), 10);
    assert_eq!(
        seconds(walk(&[(false, SYN), (true, RST)]), protocol::TCP),
        10
    );
}

#[test]
fn a_repeated_syn_does_not_establish() {
    let state = walk(&[(false, SYN), (true, SYN_ACK), (false, SYN)]);
    assert_eq!(state & state::ESTABLISHED, 0);
}

#[test]
fn a_syn_after_the_close_starts_over() {
    let state = walk(&[
        (false, SYN),
        (true, SYN_ACK),
        (false, ACK),
        (true, FIN),
        (false, SYN),
    ]);
    assert_eq!(state, 0);
}

#[test]
fn other_protocols_have_their_own_timeouts() {
    let none = TcpFlags(0);
    assert_eq!(
        seconds(next_state(0, protocol::UDP, false, none), protocol::UDP),
        30
    );
    assert_eq!(
        seconds(next_state(0, protocol::UDP, true, none), protocol::UDP),
        180
    );
    assert_eq!(seconds(0, protocol::ICMP), 30);
    assert_eq!(seconds(0, protocol::ICMPV6), 30);
    assert_eq!(seconds(0, protocol::SCTP), 300);
    assert_eq!(seconds(0, 47), 60);
}

#[test]
fn freshness_needs_table_epoch_and_time() {
    let entry = CtEntry {
        expires: 100,
        recheck: 50,
        table: TableId(3),
        epoch: 9,
        ..CtEntry::default()
    };
    assert!(entry.is_fresh(TableId(3), 9, || 49));
    assert!(!entry.is_fresh(TableId(4), 9, || 49), "table moved");
    assert!(!entry.is_fresh(TableId(3), 8, || 49), "epoch moved");
    assert!(!entry.is_fresh(TableId(3), 9, || 50), "recheck time came");
    assert!(entry.is_live(99) && !entry.is_live(100));
}

#[test]
fn expiry_is_stored_once_a_second_or_when_it_shrinks() {
    assert!(!worth_storing(10 * SECOND, 10 * SECOND + SECOND - 1));
    assert!(worth_storing(10 * SECOND, 11 * SECOND));
    assert!(worth_storing(10 * SECOND, 9 * SECOND));
}

proptest! {
    #[test]
    fn only_a_reply_makes_replied(packets in prop::collection::vec(any::<(bool, u8)>(), 0..12)) {
        let mut now = 0;
        let mut replied = false;
        for (reply, bits) in packets {
            let tcp = TcpFlags(bits);
            now = next_state(now, protocol::TCP, reply, tcp);
            replied = (replied && now != 0) || reply;
            prop_assert_eq!(now & state::REPLIED != 0, replied);
            if now & state::ESTABLISHED != 0 {
                prop_assert!(replied);
            }
        }
    }
}

#[test]
fn a_flow_is_assured_only_if_both_ends_take_part() {
    let one_sided = [(false, SYN), (false, ACK), (false, ACK), (false, FIN)];
    assert!(!is_assured(walk(&one_sided)));
    let asked = [(false, SYN), (true, SYN_ACK)];
    assert!(!is_assured(walk(&asked)) && !is_replied(walk(&asked), protocol::TCP));
    assert!(is_replied(walk(&asked), protocol::UDP));
    let established = [asked[0], asked[1], (false, ACK)];
    assert!(!is_assured(walk(&established)) && is_replied(walk(&established), protocol::TCP));
    assert!(is_open(walk(&established)));
    for end in [FIN, RST] {
        let ended = walk(&[&established[..], &[(false, end), (true, ACK)]].concat());
        assert!(!is_assured(ended) && !is_open(ended));
    }
    let scanned = walk(&[asked[0], asked[1], (false, RST)]);
    assert!(is_replied(scanned, protocol::TCP) && !is_open(scanned));
    let used = [asked[0], asked[1], (false, ACK), (true, ACK)];
    assert!(is_assured(walk(&used)) && is_replied(walk(&used), protocol::TCP));
    let refused = [(false, SYN), (true, RST)];
    assert!(!is_assured(walk(&refused)) && is_replied(walk(&refused), protocol::TCP));
    let half_closed = [&used[..], &[(true, FIN)]].concat();
    assert!(is_assured(walk(&half_closed)));
    for end in [FIN, RST] {
        assert!(!is_assured(walk(
            &[&half_closed[..], &[(false, end)]].concat()
        )));
    }
}

#[test]
fn a_reset_that_both_ends_ignore_is_cleared() {
    let established = [(false, SYN), (true, SYN_ACK), (false, ACK), (true, ACK)];
    let after = |more: &[(bool, TcpFlags)]| walk(&[&established[..], more].concat());
    let reset = (true, RST);
    assert!(!is_assured(after(&[reset])));
    assert!(
        !is_assured(after(&[reset, (false, ACK), (false, ACK)])),
        "data in flight"
    );
    let gone_on = after(&[reset, (false, ACK), (true, ACK)]);
    assert_eq!(gone_on, walk(&established));
    assert_eq!(seconds(gone_on, protocol::TCP), 8000);
    assert!(!is_assured(after(&[
        reset,
        (false, ACK),
        reset,
        (true, ACK)
    ])));
}

proptest! {
    /// Only a SYN that restarts a replied flow makes it unreplied again.
    #[test]
    fn a_replied_flow_stays_replied_until_it_restarts(
        packets in proptest::collection::vec((any::<bool>(), any::<u8>()), 1..40),
        proto in prop_oneof![Just(protocol::TCP), Just(protocol::UDP), Just(protocol::ICMP)],
    ) {
        let mut now = 0;
        for (reply, flags) in packets {
            let tcp = TcpFlags(if proto == protocol::TCP { flags } else { 0 });
            let after = next_state(now, proto, reply, tcp);
            if is_replied(now, proto) && !restarts(now, proto, reply, tcp) {
                prop_assert!(is_replied(after, proto), "{now:#x} {reply} {tcp:?} {after:#x}");
            }
            now = after;
        }
    }
}

#[test]
fn a_state_is_the_same_as_its_bytes() {
    for state in 0..=u8::MAX {
        let StateBytes(bytes) = StateBytes::of(state);
        assert_eq!(StateBytes(bytes).bits(), state);
        for (bit, byte) in bytes.to_le_bytes().into_iter().enumerate() {
            assert_eq!(byte, state >> bit & 1, "bit {bit} of {state:#x}");
        }
    }
}

fn key4(port: u16) -> CtKey4 {
    CtKey4 {
        local: Ip4::from_wire([10, 0, 0, 2]),
        peer: Ip4::from_wire([10, 0, 0, 3]),
        ifindex: 7,
        local_port: Port::new(port),
        peer_port: Port::new(80),
        protocol: protocol::TCP,
        reserved: [0; 3],
    }
}

fn decided(table: u32, verdict: Verdict) -> CtEntry {
    let mut entry = CtEntry::default();
    entry.clear(TableId(table), 5);
    entry.decide(&Decision::lasting(verdict, RuleSlot(20)), IdentityId(17));
    entry
}

#[test]
fn an_entry_is_sealed_for_its_own_key_and_decision_only() {
    let (key, other) = (key4(1), key4(2));
    let mut entry = decided(7, Verdict::Allow);
    entry.seal = entry.seal_for(&key);
    assert!(entry.is_sealed_for(&key) && !entry.is_sealed_for(&other));
    let live = CtEntry {
        expires: 99,
        state: StateBytes::of(3),
        originator_seen: 4,
        ..entry
    };
    assert!(live.is_sealed_for(&key), "what changes is not sealed");
    assert!(!CtEntry::default().is_sealed_for(&key), "cleared memory");
    assert!(!CtEntry::default().is_sealed_for(&CtKey4::default()));
}

#[test]
fn a_mixture_of_two_entries_has_no_valid_seal() {
    let (key, other) = (key4(1), key4(2));
    let sealed = |mut entry: CtEntry, key: &CtKey4| {
        entry.seal = entry.seal_for(key);
        let bytes: [u8; 64] = zerocopy::transmute!(entry);
        bytes
    };
    let pairs = [
        // The same flow, evaluated again: an old verdict must not carry the new table.
        (
            sealed(decided(7, Verdict::Allow), &key),
            sealed(decided(8, Verdict::Deny), &key),
        ),
        // Another flow.
        (
            sealed(decided(7, Verdict::Allow), &other),
            sealed(decided(7, Verdict::Deny), &key),
        ),
    ];
    for (old, new) in pairs {
        for from in 16..64 {
            for to in from + 1..=64 {
                let mut mixed = new;
                mixed[from..to].copy_from_slice(&old[from..to]);
                if mixed == new {
                    continue;
                }
                let mixed: CtEntry = zerocopy::transmute!(mixed);
                let whole = [new, old].map(|bytes| -> CtEntry { zerocopy::transmute!(bytes) });
                let is_whole = whole.iter().any(|entry| {
                    (entry.seal, entry.table, entry.verdicts)
                        == (mixed.seal, mixed.table, mixed.verdicts)
                });
                assert!(is_whole || !mixed.is_sealed_for(&key), "{from}..{to}");
            }
        }
    }
}

#[test]
fn a_steady_state_stays_as_it_is() {
    let (mut steady, mut kept) = (0, 0);
    for (state, flags) in
        (0..=255_u8).flat_map(|state| (0..=255_u8).map(move |flags| (state, flags)))
    {
        let tcp = TcpFlags(flags);
        for proto in [
            protocol::TCP,
            protocol::UDP,
            protocol::ICMP,
            protocol::SCTP,
            253,
        ] {
            // Only TCP has flags.
            let tcp = if proto == protocol::TCP {
                tcp
            } else {
                TcpFlags(0)
            };
            let stays = [false, true].map(|reply| next_state(state, proto, reply, tcp) == state);
            kept += u32::from(stays == [true; 2]);
            if is_steady(StateBytes::of(state), tcp) {
                steady += 1;
                assert_eq!(stays, [true; 2], "{state} {proto} {flags}");
                assert!(is_assured(state) && is_replied(state, proto));
                assert_eq!(steady_timeout(proto), timeout(state, proto));
            }
        }
    }
    assert!(steady > 0 && kept > steady, "{steady} of {kept}");
}
