//! How long an entry lives after its last packet: the defaults, and configured timeouts.

use ringfence_common::{
    SECOND,
    conntrack::Timeout,
    mode::{Direction, Verdict},
    policy::PolicyRow,
};

use crate::fence::{
    Arriving, Dropped, FRIEND, FRIENDS, Fence, LOCAL, Leaving, RULE, TABLE, Way, any_protocol,
};
use crate::frames::{ACK, FIN, Flow, RST, SCTP, SYN, TCP, UDP, echo, echo_reply, frame, icmp_of};

/// Packets that bring a flow into a state, by who sends them and with which TCP flags.
type Script = &'static [(Way, u8)];

const ESTABLISHED: Script = &[(Leaving, SYN), (Arriving, SYN | ACK), (Leaving, ACK)];
const ANSWERED: Script = &[(Leaving, 0), (Arriving, 0)];

/// The timeouts with their protocol and default seconds, and how a flow comes to have them: on
/// from [`ESTABLISHED`] if the first flag says so. Echo is separate.
const CASES: [(Timeout, u8, u64, bool, Script); 9] = [
    (Timeout::TcpHandshake, TCP, 30, false, &[(Leaving, SYN)]),
    (Timeout::TcpEstablished, TCP, 8000, true, &[]),
    (
        Timeout::TcpHalfClosed,
        TCP,
        240,
        true,
        &[(Arriving, FIN | ACK)],
    ),
    (
        Timeout::TcpClosed,
        TCP,
        10,
        true,
        &[(Arriving, FIN | ACK), (Leaving, FIN | ACK)],
    ),
    (
        Timeout::TcpClosing,
        TCP,
        120,
        false,
        &[(Leaving, SYN), (Leaving, FIN | ACK)],
    ),
    (Timeout::Udp, UDP, 30, false, &[(Leaving, 0)]),
    (Timeout::UdpReplied, UDP, 180, false, ANSWERED),
    (Timeout::Sctp, SCTP, 300, false, ANSWERED),
    (Timeout::Other, 253, 60, false, ANSWERED),
];

/// Runs a flow that only the workload may open, and returns whether a reply finds its entry after
/// this many seconds.
fn lives(fence: &mut Fence, v6: bool, case: (u8, bool, Script), seconds: u64) -> bool {
    let (protocol, established, script) = case;
    fence.clear_flows();
    let flow = Flow {
        v6,
        local: (LOCAL, 40000),
        peer: (FRIEND, 443),
    };
    let handshake = if established { ESTABLISHED } else { &[] };
    for (way, flags) in handshake.iter().chain(script) {
        let frame = match way {
            Leaving => flow.outbound(protocol, *flags),
            _ => flow.inbound(protocol, *flags),
        };
        fence.passes(*way, &frame, "the flow");
    }
    fence.age_flows(seconds * SECOND);
    fence.arriving(&flow.inbound(protocol, ACK)) != Dropped
}

fn fence(timeouts: &[(Timeout, u32)]) -> Fence {
    let mut fence = if timeouts.is_empty() {
        Fence::new()
    } else {
        Fence::with_timeouts(timeouts)
    };
    let row = PolicyRow::lasting(Verdict::Allow, RULE);
    fence.put_row(any_protocol(TABLE, FRIENDS, Direction::Egress), row);
    fence
}

#[test]
fn an_entry_lives_for_its_timeout_and_no_longer() {
    let mut fence = fence(&[]);
    for (timeout, protocol, seconds, established, script) in CASES {
        for v6 in [false, true] {
            let case = (protocol, established, script);
            assert!(lives(&mut fence, v6, case, seconds - 3), "{timeout:?}");
            assert!(!lives(&mut fence, v6, case, seconds + 1), "{timeout:?}");
        }
    }
}

#[test]
fn timeouts_are_configured_each_by_itself() {
    let seconds = |at: usize| 20 + 7 * u32::try_from(at).unwrap();
    let configured = CASES.iter().enumerate();
    let configured: Vec<_> = configured.map(|(at, case)| (case.0, seconds(at))).collect();
    let mut fence = fence(&configured);
    for (at, (timeout, protocol, _, established, script)) in CASES.into_iter().enumerate() {
        let seconds = u64::from(seconds(at));
        let case = (protocol, established, script);
        assert!(lives(&mut fence, false, case, seconds - 3), "{timeout:?}");
        assert!(!lives(&mut fence, false, case, seconds + 1), "{timeout:?}");
    }
}

#[test]
fn an_assured_half_closed_connection_has_four_minutes() {
    for v6 in [false, true] {
        let mut fence = fence(&[]);
        let script = &[(Arriving, ACK), (Leaving, ACK), (Leaving, FIN | ACK)];
        assert!(lives(&mut fence, v6, (TCP, true, script), 237));
        assert_eq!(fence.assured(), 1, "control: it is assured");
        // What the other end still sends keeps it.
        let flow = Flow {
            v6,
            local: (LOCAL, 40000),
            peer: (FRIEND, 443),
        };
        for _ in 0..3 {
            fence.age_flows(237 * SECOND);
            fence.passes(Arriving, &flow.inbound(TCP, ACK), "data");
        }
        fence.age_flows(241 * SECOND);
        assert_eq!(fence.arriving(&flow.inbound(TCP, ACK)), Dropped, "silent");
        let reset = &[(Leaving, RST)];
        assert!(
            !lives(&mut fence, v6, (TCP, true, reset), 11),
            "control: reset"
        );
    }
}

#[test]
fn an_echo_request_waits_for_its_reply() {
    for (configured, seconds) in [(&[][..], 30), (&[(Timeout::Icmp, 50)], 50)] {
        let mut fence = fence(configured);
        for v6 in [false, true] {
            let (own, peer) = (LOCAL.ip(v6), FRIEND.ip(v6));
            let request = frame(own, peer, icmp_of(v6), &echo(v6, 7));
            let reply = frame(peer, own, icmp_of(v6), &echo_reply(v6, 7));
            for (age, lives) in [(seconds - 3, true), (seconds + 1, false)] {
                fence.clear_flows();
                fence.passes(Leaving, &request, "the request");
                fence.age_flows(age * SECOND);
                assert_eq!(fence.arriving(&reply) != Dropped, lives, "{age}");
            }
        }
    }
}
