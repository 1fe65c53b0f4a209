//! Implicit allow and its limits: packets from the host, and packets between own addresses.

use std::net::IpAddr;

use ringfence_common::{
    drop_reason::DropReason,
    ids::TableId,
    mode::{Direction, Mode},
    net::{Ip4, Ip6},
};

use crate::fence::{
    Arriving, Dropped, DualStack, FRIEND, Fence, FromHost, Hairpin, LOCAL, Leaving, OTHER,
    UNKNOWN_PEER,
};
use crate::frames::{ACK, FIN, Flow, PSH, RST, SCTP, SYN, TCP, UDP};

/// The endpoint's policy table after a change.
const NEXT: TableId = TableId(8);

/// The ports of workload and peer in a flow that the workload opens.
const OPENED: (u16, u16) = (40000, 443);
/// The ports in a flow that the peer opens.
const ACCEPTED: (u16, u16) = (443, 40000);

fn flow(v6: bool, peer: DualStack, (local_port, peer_port): (u16, u16)) -> Flow {
    Flow {
        v6,
        local: (LOCAL, local_port),
        peer: (peer, peer_port),
    }
}

/// A fence, within its pick-up window or not.
fn fence(window: bool) -> Fence {
    let mut fence = Fence::new();
    if window {
        let soon = u32::try_from(fence.now() / 1_000_000_000 + 600).unwrap();
        fence.edit(|endpoint| endpoint.pickup_until = soon);
    }
    fence
}

fn revoke(fence: &mut Fence) {
    fence.deny_by_default(NEXT);
    fence.edit(|endpoint| endpoint.table = NEXT);
}

#[test]
fn flows_opened_by_the_host_need_no_rule() {
    for v6 in [false, true] {
        for ports in [OPENED, ACCEPTED] {
            let flow = flow(v6, UNKNOWN_PEER, ports);
            let mut fence = Fence::new();
            fence.passes(FromHost, &flow.inbound(TCP, SYN), "the host's SYN");
            fence.passes(Leaving, &flow.outbound(TCP, SYN | ACK), "the SYN+ACK");
            fence.passes(FromHost, &flow.inbound(TCP, ACK), "the flow continues");
            revoke(&mut fence);
            fence.passes(
                Leaving,
                &flow.outbound(TCP, ACK | PSH),
                "no rule that could be revoked",
            );
            for protocol in [UDP, SCTP] {
                fence.passes(
                    FromHost,
                    &flow.inbound(protocol, 0),
                    "a protocol without a handshake",
                );
                fence.passes(Leaving, &flow.outbound(protocol, 0), "a reply");
            }
        }
    }
}

#[test]
fn a_mid_flow_packet_of_the_host_creates_no_flow_of_the_host() {
    for v6 in [false, true] {
        // Outside the window with any ports; within it, if the host seems to be the server.
        let outside = [OPENED, ACCEPTED, (1000, 443)].map(|ports| (ports, false));
        let within = [OPENED, (1000, 10250), (50_051, 30_000)].map(|ports| (ports, true));
        for (ports, window) in outside.into_iter().chain(within) {
            for flags in [ACK, ACK | PSH, FIN | ACK] {
                creates_no_flow(v6, ports, window, flags);
            }
        }
        // Packets with these flags never create an entry.
        for (ports, window) in [(OPENED, false), (ACCEPTED, false), (ACCEPTED, true)] {
            for flags in [SYN | ACK, RST, RST | ACK] {
                creates_no_flow(v6, ports, window, flags);
            }
        }
        for ports in [ACCEPTED, (50_051, 40_000), (40_000, 40_000)] {
            let flow = flow(v6, FRIEND, ports);
            let mut fence = fence(true);
            fence.passes(
                FromHost,
                &flow.inbound(TCP, ACK),
                "a connection older than the fence",
            );
            fence.passes(
                Leaving,
                &flow.outbound(TCP, ACK),
                "picked up as a flow of the host",
            );
        }
    }
}

#[track_caller]
fn creates_no_flow(v6: bool, ports: (u16, u16), window: bool, flags: u8) {
    let flow = flow(v6, FRIEND, ports);
    let mut fence = fence(window);
    let what = format!("{ports:?} {flags:#x}, window {window}");
    fence.passes(FromHost, &flow.inbound(TCP, flags), &what);
    fence.passes(FromHost, &flow.inbound(TCP, flags), "again");
    fence.denies(Leaving, &flow.outbound(TCP, ACK), DropReason::Policy, &what);
}

#[test]
fn a_mid_flow_reply_of_the_host_creates_a_flow_that_can_be_revoked() {
    for v6 in [false, true] {
        // The workload may choose any port.
        for local_port in [40_000, 1000] {
            for (peer_port, window) in [(443, false), (8443, false), (443, true), (40_443, true)] {
                let flow = flow(v6, FRIEND, (local_port, peer_port));
                let mut fence = fence(window);
                fence.allow(Direction::Egress, TCP, peer_port);
                // The workload opened the connection; its entry is missing.
                fence.passes(FromHost, &flow.inbound(TCP, ACK | PSH), "a reply");
                fence.passes(Leaving, &flow.outbound(TCP, ACK), "allowed by the rule");
                revoke(&mut fence);
                let more = flow.outbound(TCP, ACK | PSH);
                fence.denies(Leaving, &more, DropReason::Policy, "revoked");
                let more = flow.inbound(TCP, ACK | PSH);
                fence.denies(
                    FromHost,
                    &more,
                    DropReason::Policy,
                    "a reply of the revoked flow",
                );
                fence.passes(
                    FromHost,
                    &flow.inbound(TCP, SYN),
                    "control: a SYN of the host",
                );
                fence.passes(Leaving, &flow.outbound(TCP, SYN | ACK), "the SYN+ACK");
            }
        }
    }
}

#[test]
fn a_syn_ack_of_the_host_leaves_no_entry() {
    let mut fence = Fence::new();
    fence.allow_friends();
    let flow = flow(false, FRIEND, OPENED);
    fence.passes(FromHost, &flow.inbound(TCP, SYN | ACK), "from the host");
    assert_eq!(fence.unreplied(), 0, "the SYN may have been forged");
    fence.passes(Leaving, &flow.outbound(TCP, SYN), "control: a SYN");
    assert_eq!(fence.unreplied(), 1);
}

#[test]
fn only_the_host_may_use_its_flows() {
    for v6 in [false, true] {
        let flow = flow(v6, FRIEND, ACCEPTED);
        for (protocol, first, more) in [(TCP, SYN, ACK), (UDP, 0, 0), (SCTP, 0, 0)] {
            for flags in [first, more] {
                let mut fence = Fence::new();
                fence.passes(FromHost, &flow.inbound(protocol, first), "from the host");
                for way in [Arriving, Hairpin] {
                    let frame = flow.inbound(protocol, flags);
                    fence.denies(way, &frame, DropReason::Policy, "from elsewhere");
                }
                fence.passes(
                    FromHost,
                    &flow.inbound(protocol, more),
                    "control: from the host",
                );
                fence.passes(Leaving, &flow.outbound(protocol, more), "the reply");
            }
        }

        // A sender that a rule allows takes the flow over, and loses it with the rule; a mid-flow
        // TCP packet takes nothing over.
        let mut fence = Fence::new();
        fence.allow(Direction::Ingress, TCP, ACCEPTED.0);
        fence.passes(FromHost, &flow.inbound(TCP, SYN), "from the host");
        for flags in [RST, FIN | ACK, ACK] {
            fence.passes(Arriving, &flow.inbound(TCP, flags), "a rule allows it");
        }
        revoke(&mut fence);
        fence.passes(
            Leaving,
            &flow.outbound(TCP, SYN | ACK),
            "still the host's flow",
        );

        let mut fence = Fence::new();
        fence.allow(Direction::Ingress, UDP, ACCEPTED.0);
        fence.passes(FromHost, &flow.inbound(UDP, 0), "from the host");
        fence.passes(Arriving, &flow.inbound(UDP, 0), "a rule allows it");
        revoke(&mut fence);
        let reply = flow.outbound(UDP, 0);
        fence.denies(Leaving, &reply, DropReason::Policy, "revoked");
    }
}

#[test]
fn a_flow_from_an_own_address_is_denied_once_the_address_is_removed() {
    for v6 in [false, true] {
        for way in [Leaving, Arriving] {
            for (protocol, first, more) in [(TCP, SYN, ACK), (UDP, 0, 0)] {
                let flow = flow(v6, OTHER, ACCEPTED);
                let mut fence = Fence::new();
                set_extra_address(&mut fence, Some(OTHER));
                fence.passes(
                    Hairpin,
                    &flow.inbound(protocol, first),
                    "from an own address",
                );
                set_extra_address(&mut fence, None);
                let frame = if way == Leaving {
                    flow.outbound(protocol, more)
                } else {
                    flow.inbound(protocol, more)
                };
                fence.denies(way, &frame, DropReason::Policy, "no longer an own address");
            }
        }
    }
}

#[test]
fn a_packet_dropped_by_lockdown_does_not_take_over_a_flow_of_the_host() {
    for v6 in [false, true] {
        let flow = flow(v6, FRIEND, ACCEPTED);
        let mut fence = Fence::new();
        fence.allow(Direction::Ingress, TCP, ACCEPTED.0);
        for (way, flags) in [
            (FromHost, SYN),
            (Leaving, SYN | ACK),
            (FromHost, ACK),
            (FromHost, ACK | PSH),
        ] {
            let frame = if way == Leaving {
                flow.outbound(TCP, flags)
            } else {
                flow.inbound(TCP, flags)
            };
            fence.passes(way, &frame, "the handshake and data");
        }
        assert_eq!(fence.assured(), 1);
        fence.set_mode(Mode::Lockdown);
        assert_eq!(fence.arriving(&flow.inbound(TCP, SYN)), Dropped, "lockdown");
        assert_eq!(fence.assured(), 1, "the entry is unchanged");
        fence.set_mode(Mode::Enforce);
        fence.passes(
            Arriving,
            &flow.inbound(TCP, SYN),
            "control: a rule allows it",
        );
        assert_eq!(fence.assured(), 0, "the new flow replaced the entry");
    }
}

/// Gives the workload another address of each family, or removes it.
fn set_extra_address(fence: &mut Fence, extra: Option<DualStack>) {
    let address = |v6| extra.map(|both| both.ip(v6));
    fence.edit(|endpoint| {
        endpoint.ip4[2] = match address(false) {
            Some(IpAddr::V4(address)) => Ip4::from_wire(address.octets()),
            _ => Ip4::default(),
        };
        endpoint.ip6[1] = match address(true) {
            Some(IpAddr::V6(address)) => Ip6::from_wire(address.octets()),
            _ => Ip6::default(),
        };
    });
}
