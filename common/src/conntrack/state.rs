//! Conntrack state: transitions and timeouts.
//!
//! Invariants: pure functions of the state and one packet; a state never says whether a flow is
//! allowed. TCP windows are not tracked: a reset or FIN that the ends ignore shortens an entry's
//! timeout only until both ends have sent more.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::timeouts::{Timeout, timeout};
use crate::{
    layout::shared_layout,
    packet::{TcpFlags, protocol},
};

/// A packet of the reply direction was seen.
pub const REPLIED: u8 = 1;
/// The originator sent a packet after a reply: the connection is established.
pub const ESTABLISHED: u8 = 2;
/// FIN from the originator.
pub const FIN_ORIGINAL: u8 = 4;
/// FIN from the responder.
pub const FIN_REPLY: u8 = 8;
/// RST from either side.
pub const RESET: u8 = 16;
/// The originator sent a packet after the RST.
pub const CONTINUED_ORIGINAL: u8 = 32;
/// The responder sent a packet after the RST.
pub const CONTINUED_REPLY: u8 = 64;
/// Either end sent a packet after the connection was established and before either end closed it.
pub const USED: u8 = 128;

const FINS: u8 = FIN_ORIGINAL | FIN_REPLY;
const CONTINUED: u8 = CONTINUED_ORIGINAL | CONTINUED_REPLY;

/// Whether the flow is assured: established, used afterwards, and not ended by both ends. Such an
/// entry is worth more than any number of unreplied ones. One end alone cannot make a flow assured,
/// unless it is both ends. A connection that is opened and closed without data, such as a health
/// check, is never moved.
#[inline(always)]
#[must_use]
pub fn is_assured(state: u8) -> bool {
    state & USED != 0 && state & RESET == 0 && state & FINS != FINS
}

/// Whether the originator sent a packet after a reply and neither end has closed or reset the
/// connection; for TCP, the handshake is complete.
#[inline(always)]
#[must_use]
pub fn is_open(state: u8) -> bool {
    state & ESTABLISHED != 0 && state & (RESET | FINS) == 0
}

/// Whether the flow no longer counts as unreplied: the responder replied, and for TCP it refused
/// the connection or the originator proved that it received the reply, which a SYN flood does not.
/// A flow stays replied until a SYN [`restarts`] it.
#[inline(always)]
#[must_use]
pub const fn is_replied(state: u8, proto: u8) -> bool {
    if proto != protocol::TCP {
        return state & REPLIED != 0;
    }
    state & ESTABLISHED != 0 || (state & REPLIED != 0 && state & RESET != 0)
}

/// Whether the packet starts a new connection in place of one that ended.
#[inline(always)]
#[must_use]
pub const fn restarts(before: u8, proto: u8, reply: bool, tcp: TcpFlags) -> bool {
    !reply && opens(proto, tcp) && before & (RESET | FINS) != 0
}

/// Whether the packet opens a connection, whatever the state: a pure SYN.
#[inline(always)]
#[must_use]
pub const fn opens(proto: u8, tcp: TcpFlags) -> bool {
    proto == protocol::TCP && tcp.is_pure_syn()
}

/// The state after a packet. A pure SYN of the original direction starts over.
#[inline(always)]
#[must_use]
pub const fn next_state(before: u8, proto: u8, reply: bool, tcp: TcpFlags) -> u8 {
    if restarts(before, proto, reply, tcp) {
        return 0;
    }
    let mut after = before;
    if reply {
        after |= REPLIED;
    } else if before & REPLIED != 0 && !opens(proto, tcp) {
        after |= ESTABLISHED;
    }
    let ends = tcp.has(TcpFlags::FIN) || tcp.has(TcpFlags::RST);
    if before & ESTABLISHED != 0 && before & FINS == 0 && !ends {
        after |= USED;
    }
    if proto == protocol::TCP {
        if tcp.has(TcpFlags::FIN) {
            after |= if reply { FIN_REPLY } else { FIN_ORIGINAL };
        }
        if tcp.has(TcpFlags::RST) {
            after = (after | RESET) & !CONTINUED;
        } else if before & RESET != 0 && before & ESTABLISHED != 0 {
            after |= if reply {
                CONTINUED_REPLY
            } else {
                CONTINUED_ORIGINAL
            };
            if after & CONTINUED == CONTINUED {
                // Neither end accepted the reset: it was not for this connection.
                after &= !(RESET | CONTINUED);
            }
        }
    }
    after
}

/// The state of a flow that both ends use and neither has closed.
const OPEN_AND_USED: u8 = REPLIED | ESTABLISHED | USED;

/// Whether [`next_state`] certainly leaves the state as it is, for either end's packet. No packet that
/// opens, closes or resets a TCP connection is said to.
#[inline(always)]
#[must_use]
pub const fn is_steady(state: StateBytes, tcp: TcpFlags) -> bool {
    state.0 == StateBytes::of(OPEN_AND_USED).0
        && !tcp.has(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST)
}

/// Which timeout an entry in such a state has.
#[inline(always)]
#[must_use]
pub const fn steady_timeout(proto: u8) -> Timeout {
    timeout(OPEN_AND_USED, proto)
}

/// Whether the packets of a protocol show which end opened the flow: TCP by its SYN, ICMP echo by its
/// type. Of other protocols either end may be taken for the originator ([`super::originator`]).
#[inline(always)]
#[must_use]
pub const fn shows_originator(proto: u8) -> bool {
    matches!(proto, protocol::TCP | protocol::ICMP | protocol::ICMPV6)
}

/// The bits of a state, each in a byte of its own. A CPU that sets one bit stores one byte, so it
/// cannot undo what another CPU set at the same time, and needs no atomic operation (those that do
/// more than add exist since Linux 5.12).
#[repr(transparent)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct StateBytes(pub u64);
shared_layout!(StateBytes, size 8);

impl StateBytes {
    /// The bytes of a state.
    #[must_use]
    #[inline(always)]
    pub const fn of(state: u8) -> Self {
        // Spread the bits: byte i holds bit i. The multiplication copies the state to every byte.
        let copies = (state as u64).wrapping_mul(0x0101_0101_0101_0101);
        let bits = copies & 0x8040_2010_0804_0201;
        // Each byte is 0 or a power of two below 256; adding 0x7f carries into the top bit.
        let ones = ((bits.wrapping_add(0x007f_7f7f_7f7f_7f7f)) | bits) & 0x8080_8080_8080_8080;
        Self((ones >> 7).to_le())
    }

    /// The state.
    #[must_use]
    #[inline(always)]
    pub const fn bits(self) -> u8 {
        // Gather the lowest bit of every byte in the highest byte.
        let ones = u64::from_le(self.0) & 0x0101_0101_0101_0101;
        (ones.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
    }
}
