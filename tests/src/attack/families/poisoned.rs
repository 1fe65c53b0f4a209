//! Poisoned conntrack: a neighbour forges both directions of a flow of its victim, so that later packets
//! would pass as replies. Nothing that is forged leaves an entry.

use std::net::IpAddr;

use ringfence_common::drop_reason::DropReason::{Policy, SpoofedSource};

use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{self, flag};
use crate::attack::family::{ANY, Family, IN, Member, OUT};
use crate::attack::fixture::{self, protocol};

pub(super) const POISONED: Family = Family {
    name: "poisoned-conntrack",
    members: &[
        Member::new("TCP as the victim, then answered", IN, |s| {
            as_victim(s, protocol::TCP);
        }),
        Member::new("UDP as the victim, then answered", IN, |s| {
            as_victim(s, protocol::UDP);
        }),
        Member::new("SCTP as the victim, then answered", IN, |s| {
            as_victim(s, protocol::SCTP);
        }),
        Member::new("a whole handshake as both ends", IN, |s| {
            let port = s.denied_port();
            let (peer, victim) = s.ends();
            let segment = |from, to, flags| craft::tcp(from, to, flags);
            let syn = segment(s.port, port, flag::SYN);
            s.deny(
                SpoofedSource,
                craft::ip_frame(victim, peer, protocol::TCP, &syn),
            );
            let answer = segment(port, s.port, flag::SYN | flag::ACK);
            s.deny(Policy, s.frame(protocol::TCP, &answer));
            let ack = segment(s.port, port, flag::ACK);
            s.deny(
                SpoofedSource,
                craft::ip_frame(victim, peer, protocol::TCP, &ack),
            );
            let data = segment(port, s.port, flag::ACK | flag::PSH);
            s.deny(Policy, s.frame(protocol::TCP, &data));
            s.deny_back(Policy, s.frame_back(protocol::TCP, &ack));
        }),
        Member::new("as the victim to its own port", IN, |s| {
            let (peer, victim) = s.ends();
            let port = s.denied_port();
            let number = random(s);
            let forged = craft::transport(number, s.port, port);
            s.deny(
                SpoofedSource,
                craft::ip_frame(victim, victim, number, &forged),
            );
            let answer = craft::transport(number, port, s.port);
            s.deny(Policy, craft::ip_frame(peer, victim, number, &answer));
            s.deny_back(Policy, s.frame_back(number, &answer));
        }),
        Member::new("a fenced workload as another", OUT, |s| {
            let victim = fixture::other_workload(s.v6);
            as_other(s, victim);
        }),
        Member::new("a fenced workload as a peer", OUT, |s| {
            let victim = s.peer;
            as_other(s, victim);
        }),
        Member::new("control: a peer's reply", ANY, |s| {
            s.exchange();
        }),
    ],
};

fn random(s: &mut CaseBuilder<'_>) -> u8 {
    let all = [protocol::TCP, protocol::UDP, protocol::SCTP];
    s.rng.choose(&all, protocol::UDP)
}

/// The neighbour's frame with the workload's address to its own port, its answer, and the workload's.
fn as_victim(s: &mut CaseBuilder<'_>, number: u8) {
    let port = s.denied_port();
    let (peer, victim) = s.ends();
    let request = craft::transport(number, s.port, port);
    s.deny(
        SpoofedSource,
        craft::ip_frame(victim, peer, number, &request),
    );
    let answer = craft::transport(number, port, s.port);
    s.deny(Policy, s.frame(number, &answer));
    s.deny_back(Policy, s.frame_back(number, &request));
}

/// A workload's frame with another's address to its own port, then its answer and the other's.
fn as_other(s: &mut CaseBuilder<'_>, victim: IpAddr) {
    s.peer = victim;
    let number = random(s);
    let port = s.denied_port();
    let request = craft::transport(number, s.port, port);
    s.deny(
        SpoofedSource,
        craft::ip_frame(victim, s.workload(), number, &request),
    );
    let answer = craft::transport(number, port, s.port);
    s.deny(Policy, s.frame(number, &answer));
    s.deny_back(Policy, s.frame_back(number, &request));
}
