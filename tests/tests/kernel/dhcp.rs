//! DHCP: requests of a workload pass without a rule, and so do their answers, for ten seconds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::{
    drop_reason::DropReason,
    mode::{Direction, Mode},
    quota::DISCOVERY_BURST,
};

use crate::discovery::{LINK_LOCAL, MAC};
use crate::fence::{Arriving, Dropped, FRIEND, Fence, LOCAL, Leaving, Passed};
use crate::frames::{UDP, frame, udp};

const XID: [u8; 4] = [0, 2, 3, 4];
const OTHER_XID: [u8; 4] = [0, 2, 3, 5];
const SERVERS: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2));
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const BROADCAST: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

/// A message of a client or a server: request or answer, transaction, hardware address.
fn message(v6: bool, is_answer: bool, xid: [u8; 4], hardware: [u8; 6]) -> Vec<u8> {
    let (client, server) = if v6 { (546, 547) } else { (68, 67) };
    let ports = if is_answer {
        (server, client)
    } else {
        (client, server)
    };
    let body = if v6 {
        let [_, a, b, c] = xid;
        vec![if is_answer { 7 } else { 1 }, a, b, c, 0, 1, 0, 0]
    } else {
        let mut body = vec![if is_answer { 2 } else { 1 }, 1, 6, 0];
        body.extend(xid);
        body.resize(28, 0);
        body.extend(hardware);
        body.resize(240, 0);
        body
    };
    let mut datagram = udp(ports.0, ports.1, body.len());
    datagram[8..].copy_from_slice(&body);
    datagram
}

fn request(v6: bool, xid: [u8; 4]) -> Vec<u8> {
    let (from, to) = if v6 {
        (LINK_LOCAL, SERVERS)
    } else {
        (NOWHERE, BROADCAST)
    };
    frame(from, to, UDP, &message(v6, false, xid, MAC))
}

/// An answer of a server that no rule names.
fn answer(v6: bool, to: IpAddr, xid: [u8; 4], hardware: [u8; 6]) -> Vec<u8> {
    frame(FRIEND.ip(v6), to, UDP, &message(v6, true, xid, hardware))
}

fn client(v6: bool) -> IpAddr {
    if v6 { LINK_LOCAL } else { BROADCAST }
}

#[test]
fn an_answer_passes_only_to_the_request() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        let right = answer(v6, client(v6), XID, MAC);
        let reason = DropReason::Policy;
        fence.denies(Arriving, &right, reason, "control: without a request");
        fence.clear_flows();
        fence.passes(Leaving, &request(v6, XID), "a request");
        fence.passes(Arriving, &right, "its answer");
        fence.passes(Arriving, &right, "another server's");
        let other = answer(v6, client(v6), OTHER_XID, MAC);
        fence.denies(Arriving, &other, reason, "another transaction");
        let as_request = {
            let ports = if v6 { (547, 546) } else { (67, 68) };
            let mut datagram = message(v6, false, XID, MAC);
            datagram[..2].copy_from_slice(&u16::to_be_bytes(ports.0));
            datagram[2..4].copy_from_slice(&u16::to_be_bytes(ports.1));
            frame(FRIEND.ip(v6), client(v6), UDP, &datagram)
        };
        fence.denies(Arriving, &as_request, reason, "no answer");
        let elsewhere = if v6 {
            answer(v6, LOCAL.ip(v6), XID, MAC)
        } else {
            answer(v6, client(v6), XID, [6; 6])
        };
        fence.denies(Arriving, &elsewhere, reason, "to another client");
        if !v6 {
            let unicast = answer(v6, LOCAL.ip(v6), XID, MAC);
            fence.passes(Arriving, &unicast, "to the own address");
            let far = answer(v6, FRIEND.ip(v6), XID, MAC);
            fence.denies(Arriving, &far, reason, "to another address");
        }
        fence.passes(Leaving, &request(v6, OTHER_XID), "the next request");
        fence.denies(Arriving, &right, reason, "a late answer to the one before");
        fence.set_mode(Mode::Lockdown);
        assert_eq!(fence.run(Arriving, &other), Dropped, "in lockdown");
        assert_eq!(
            fence.run(Leaving, &request(v6, XID)),
            Dropped,
            "in lockdown"
        );
    }
}

#[test]
fn an_answer_passes_for_ten_seconds() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.passes(Leaving, &request(v6, XID), "a request");
        let right = answer(v6, client(v6), XID, MAC);
        fence.loaded().age_dhcp(9_000_000_000);
        fence.passes(Arriving, &right, "after nine seconds");
        fence.loaded().age_dhcp(1_000_000_000);
        fence.denies(Arriving, &right, DropReason::Policy, "after ten");
    }
}

/// A fenced server needs a rule to answer, and to be asked.
#[test]
fn a_workload_answers_by_a_rule_only() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        let ports = if v6 { (547, 546) } else { (67, 68) };
        let offer = message(v6, true, XID, MAC);
        let offer = frame(LOCAL.ip(v6), FRIEND.ip(v6), UDP, &offer);
        fence.passes(Leaving, &request(v6, XID), "its own request");
        fence.denies(Leaving, &offer, DropReason::Policy, "without a rule");
        fence.clear_flows();
        fence.allow(Direction::Egress, UDP, ports.1);
        fence.passes(Leaving, &offer, "with a rule");
    }
}

#[test]
fn requests_are_limited_like_discovery() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        let frame = request(v6, XID);
        let sent = DISCOVERY_BURST + 50;
        let passed = (0..sent).filter(|_| fence.run(Leaving, &frame) == Passed);
        let passed = passed.count() as u64;
        assert!((DISCOVERY_BURST..sent).contains(&passed), "{passed}");
        let (dropped, _) = fence.count(DropReason::DiscoveryRate);
        assert_eq!(dropped, sent - passed);
    }
}
