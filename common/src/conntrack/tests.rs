use proptest::prelude::*;

use super::*;
use crate::packet::{TcpFlags, protocol};

const SYN: TcpFlags = TcpFlags(TcpFlags::SYN);
const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN | TcpFlags::ACK);
const ACK: TcpFlags = TcpFlags(TcpFlags::ACK);
const FIN: TcpFlags = TcpFlags(TcpFlags::FIN | TcpFlags::ACK);
const RST: TcpFlags = TcpFlags(TcpFlags::RST);

fn seconds(entry_state: u8, proto: u8) -> u64 {
    timeout(entry_state, proto) / SECOND
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
    assert_eq!(seconds(walk(&half_closed), protocol::TCP), 120);
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
        bytes: [0; 2],
        packets: [0; 2],
        table: TableId(3),
        epoch: 9,
        rule: RuleSlot(20),
        peer: IdentityId(17),
        verdict: 1,
        state: 0,
        flags: 0,
        reason: 0,
        reserved: [0; 4],
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
    /// Charges are refunded once: only a SYN that restarts the flow makes it unreplied again.
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
