//! Conversations: the packets of one flow, mostly in the order in which real ends send them.

use std::net::IpAddr;

use super::{craft, rng::Rng};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// A connection from beginning to end: whether the originator sends, and the TCP flags.
const SCRIPT: [(bool, u8); 9] = [
    (true, SYN),
    (false, SYN | ACK),
    (true, ACK),
    (true, PSH | ACK),
    (false, PSH | ACK),
    (false, ACK | URG),
    (true, FIN | ACK),
    (false, FIN | ACK),
    (true, ACK),
];
const UNEXPECTED: [u8; 9] = [
    SYN,
    SYN,
    SYN | ACK,
    ACK,
    RST,
    RST | ACK,
    PSH | ACK,
    0xc0 | SYN,
    SYN | PSH,
];

/// One flow of a workload.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    pub(super) own: IpAddr,
    pub(super) peer: IpAddr,
    /// The ports of workload and peer; for echo messages both are the identifier.
    pub(super) ports: (u16, u16),
    pub(super) protocol: u8,
    pub(super) opened_by_workload: bool,
    pub(super) step: usize,
}

/// The IP payload of one packet, and its sender.
pub(super) struct Message {
    pub(super) by_workload: bool,
    pub(super) payload: Vec<u8>,
}

impl Conversation {
    /// The next message.
    pub(super) fn next(&mut self, rng: &mut Rng) -> Message {
        let (by_originator, flags) = if rng.chance(15) {
            (rng.chance(50), rng.pick(&UNEXPECTED))
        } else {
            SCRIPT[self.step % SCRIPT.len()]
        };
        self.step += 1;
        let by_workload = by_originator == self.opened_by_workload;
        let (own, peer) = self.ports;
        let ports = if by_workload {
            (own, peer)
        } else {
            (peer, own)
        };
        let payload = match (self.protocol, self.own.is_ipv6()) {
            (6, _) => craft::tcp(rng, ports, flags),
            (17, _) => craft::udp(rng, ports),
            (132, _) => craft::sctp(rng, ports),
            (1, false) => craft::icmp(rng, if by_originator { 8 } else { 0 }, own),
            (58, true) => craft::icmp(rng, if by_originator { 128 } else { 129 }, own),
            _ => {
                let length = rng.below(24);
                rng.bytes(length)
            }
        };
        Message {
            by_workload,
            payload,
        }
    }

    /// Source and destination of a message.
    pub(super) fn ends(&self, by_workload: bool) -> (IpAddr, IpAddr) {
        if by_workload {
            (self.own, self.peer)
        } else {
            (self.peer, self.own)
        }
    }
}
