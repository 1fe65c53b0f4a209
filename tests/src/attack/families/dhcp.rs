//! DHCP that is not the answer to a request of the workload: requests pass without a rule, and so does nothing
//! else that has these ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_common::drop_reason::DropReason::Policy;

use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, LINK_LOCAL};
use crate::attack::family::{Family, IN, Member, OUT};
use crate::attack::fixture::{self, protocol};

const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const BROADCAST: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);
const SERVERS: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2));

pub(super) const DHCP: Family = Family {
    name: "dhcp",
    members: &[
        Member::new("an answer without a request", IN, |s| {
            let answer = message(s, Role::Server);
            let to = client(s);
            s.deny(Policy, craft::ip_frame(s.peer, to, protocol::UDP, &answer));
        }),
        Member::new("an answer to the own address without a request", IN, |s| {
            let answer = message(s, Role::Server);
            s.deny(Policy, s.frame(protocol::UDP, &answer));
        }),
        Member::new("an answer to another transaction", IN, |s| {
            let request = message(s, Role::Client);
            s.permit_back(request_frame(s.v6, &request));
            let answer = message(s, Role::Server);
            let to = client(s);
            s.deny(Policy, craft::ip_frame(s.peer, to, protocol::UDP, &answer));
        }),
        Member::new("a request to the workload", IN, |s| {
            let request = message(s, Role::Client);
            s.deny(Policy, s.frame(protocol::UDP, &request));
        }),
        Member::new("a workload that serves", OUT, |s| {
            let answer = message(s, Role::Server);
            s.deny(Policy, s.frame(protocol::UDP, &answer));
        }),
        Member::new("a workload that serves all of the link", OUT, |s| {
            let answer = message(s, Role::Server);
            let to = if s.v6 {
                fixture::other_workload(true)
            } else {
                BROADCAST
            };
            let frame = craft::ip_frame(s.workload(), to, protocol::UDP, &answer);
            s.deny(Policy, frame);
        }),
        Member::new("a request to a host that no rule names", OUT, |s| {
            s.peer = fixture::unlisted_host(s.v6);
            let request = message(s, Role::Client);
            s.deny(Policy, s.frame(protocol::UDP, &request));
        }),
        Member::new("control: a request", OUT, |s| {
            let request = message(s, Role::Client);
            s.permit(request_frame(s.v6, &request));
        }),
    ],
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

/// Where servers answer a client that has no address yet.
const fn client(s: &CaseBuilder<'_>) -> IpAddr {
    if s.v6 { LINK_LOCAL } else { BROADCAST }
}

fn request_frame(v6: bool, request: &[u8]) -> Vec<u8> {
    let (from, to) = if v6 {
        (LINK_LOCAL, SERVERS)
    } else {
        (NOWHERE, BROADCAST)
    };
    craft::ip_frame(from, to, protocol::UDP, request)
}

/// A message of a random transaction (RFC 2131 §2, RFC 8415 §8), with the ports of its sender.
fn message(s: &mut CaseBuilder<'_>, role: Role) -> Vec<u8> {
    let [a, b, c, d, ..] = s.rng.next_u64().to_be_bytes();
    let is_answer = role == Role::Server;
    let body = if s.v6 {
        vec![if is_answer { 7 } else { 1 }, a, b, c, 0, 1, 0, 0]
    } else {
        let mut body = vec![if is_answer { 2 } else { 1 }, 1, 6, 0, a, b, c, d];
        body.resize(28, 0);
        body.extend(craft::FROM);
        body.resize(240, 0);
        body
    };
    let (mut from, mut to) = if s.v6 { (546, 547) } else { (68, 67) };
    if is_answer {
        std::mem::swap(&mut from, &mut to);
    }
    craft::udp(from, to, &body)
}
