//! Timeouts of conntrack entries, and their defaults.
//!
//! Invariant: pure functions of state and protocol; the values are configuration
//! (`[timeouts]`), fixed when the programs are loaded. Where nf_conntrack differs, its
//! default is in `docs/operations.md`.

use super::state::{ESTABLISHED, FIN_ORIGINAL, FIN_REPLY, REPLIED, RESET};
use crate::{SECOND, packet::protocol};

/// Which timeout applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Timeout {
    /// TCP before the handshake is complete.
    TcpHandshake = 0,
    /// TCP after the handshake.
    TcpEstablished = 1,
    /// An established TCP connection that one end closed; at least four minutes (RFC 5382 REQ-5).
    TcpHalfClosed = 2,
    /// TCP that both ends closed, or that was reset.
    TcpClosed = 3,
    /// TCP with a FIN before the handshake was complete.
    TcpClosing = 4,
    /// UDP without a reply.
    Udp = 5,
    /// UDP with a reply.
    UdpReplied = 6,
    /// ICMP and ICMPv6 echo.
    Icmp = 7,
    /// SCTP.
    Sctp = 8,
    /// Any other protocol.
    Other = 9,
}

/// While a peer has its address by translation, entries last less than nf_conntrack's of the same protocol:
/// 30 seconds for a datagram, 3 for an SCTP association that is being opened.
const TRANSLATED: u64 = 25 * SECOND;
const TRANSLATED_SCTP: u64 = 2 * SECOND;

/// Seconds by [`Timeout`], padded to a power of two so that an index can be masked.
pub type Timeouts = [u32; MASK + 1];
/// Mask of an index into [`Timeouts`].
pub const MASK: usize = 15;

impl Timeout {
    /// Every timeout, with its key in the configuration and its default in seconds.
    pub const ALL: [(Self, &'static str, u32); 10] = [
        (Self::TcpHandshake, "tcp-handshake", 30),
        (Self::TcpEstablished, "tcp-established", 8000),
        (Self::TcpHalfClosed, "tcp-half-closed", 240),
        (Self::TcpClosed, "tcp-closed", 10),
        (Self::TcpClosing, "tcp-closing", 120),
        (Self::Udp, "udp", 30),
        (Self::UdpReplied, "udp-replied", 180),
        (Self::Icmp, "icmp", 30),
        (Self::Sctp, "sctp", 300),
        (Self::Other, "other", 60),
    ];

    /// Nanoseconds that an entry lasts whose peer has an address of the node by translation. The node may
    /// forget the translation, and from then on what the workload sends to that address would reach the node
    /// itself. TCP lasts as ever: a SYN is no reply, and a segment without a connection is answered with a reset.
    #[inline(always)]
    #[must_use]
    pub const fn while_translated(self, lasts: u64) -> u64 {
        let most = match self {
            Self::Sctp => TRANSLATED_SCTP,
            Self::Udp | Self::UdpReplied | Self::Icmp | Self::Other => TRANSLATED,
            _ => lasts,
        };
        if lasts < most { lasts } else { most }
    }

    /// The default of every timeout.
    #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
    pub const DEFAULTS: Timeouts = {
        let mut seconds = [0; MASK + 1];
        let mut at = 0;
        while at < Self::ALL.len() {
            seconds[Self::ALL[at].0 as usize] = Self::ALL[at].2;
            at += 1;
        }
        seconds
    };
}

/// The timeout of an entry after its last packet.
#[inline(always)]
#[must_use]
pub const fn timeout(entry_state: u8, proto: u8) -> Timeout {
    const FINS: u8 = FIN_ORIGINAL | FIN_REPLY;
    match proto {
        protocol::TCP => {
            if entry_state & RESET != 0 || entry_state & FINS == FINS {
                Timeout::TcpClosed
            } else if entry_state & FINS != 0 {
                if entry_state & ESTABLISHED != 0 {
                    Timeout::TcpHalfClosed
                } else {
                    Timeout::TcpClosing
                }
            } else if entry_state & ESTABLISHED != 0 {
                Timeout::TcpEstablished
            } else {
                Timeout::TcpHandshake
            }
        }
        protocol::UDP => {
            if entry_state & REPLIED != 0 {
                Timeout::UdpReplied
            } else {
                Timeout::Udp
            }
        }
        protocol::ICMP | protocol::ICMPV6 => Timeout::Icmp,
        protocol::SCTP => Timeout::Sctp,
        _ => Timeout::Other,
    }
}

/// Nanoseconds of a number of seconds.
#[inline(always)]
#[must_use]
pub const fn nanoseconds(seconds: u32) -> u64 {
    seconds as u64 * SECOND
}
