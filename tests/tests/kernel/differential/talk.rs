//! Conversations: the packets of one flow in the order in which they come, or nearly so.

use std::net::IpAddr;

use super::{craft, dice::Dice};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;

/// A connection from beginning to end: whether its opener speaks, and TCP's flags.
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
const SURPRISES: [u8; 9] = [
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
pub(super) struct Talk {
    pub(super) own: IpAddr,
    pub(super) peer: IpAddr,
    /// The workload's port, the peer's; of an echo, its identifier is the opener's.
    pub(super) ports: (u16, u16),
    pub(super) protocol: u8,
    pub(super) opened_by_workload: bool,
    pub(super) at: usize,
}

/// A payload, and who sends it.
pub(super) struct Said {
    pub(super) by_workload: bool,
    pub(super) payload: Vec<u8>,
}

impl Talk {
    /// What is said next.
    pub(super) fn next(&mut self, dice: &mut Dice) -> Said {
        let (by_opener, flags) = if dice.often(15) {
            (dice.often(50), dice.pick(&SURPRISES))
        } else {
            SCRIPT[self.at % SCRIPT.len()]
        };
        self.at += 1;
        let by_workload = by_opener == self.opened_by_workload;
        let (own, peer) = self.ports;
        let ports = if by_workload {
            (own, peer)
        } else {
            (peer, own)
        };
        let payload = match (self.protocol, self.own.is_ipv6()) {
            (6, _) => craft::tcp(dice, ports, flags),
            (17, _) => craft::udp(dice, ports),
            (132, _) => craft::sctp(dice, ports),
            (1, false) => craft::icmp(dice, if by_opener { 8 } else { 0 }, own),
            (58, true) => craft::icmp(dice, if by_opener { 128 } else { 129 }, own),
            _ => {
                let length = dice.below(24);
                dice.bytes(length)
            }
        };
        Said {
            by_workload,
            payload,
        }
    }

    /// Source and destination of what one side says.
    pub(super) fn ends(&self, by_workload: bool) -> (IpAddr, IpAddr) {
        if by_workload {
            (self.own, self.peer)
        } else {
            (self.peer, self.own)
        }
    }
}
