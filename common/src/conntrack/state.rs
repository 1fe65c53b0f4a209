//! The life of a flow: which packets move it where, and how long it may be silent.
//!
//! Invariants: pure functions of the state and one packet; a state never says whether a flow is
//! allowed. Windows are not tracked: a reset or FIN that the ends ignore shortens an entry's life
//! until both ends have gone on, and no more.

use crate::{
    SECOND, mutant,
    packet::{TcpFlags, protocol},
};

/// A packet of the reply direction was seen.
pub const REPLIED: u8 = 1;
/// The originator went on after a reply: the connection stands.
pub const ESTABLISHED: u8 = 2;
/// FIN from the originator.
pub const FIN_ORIGINAL: u8 = 4;
/// FIN from the answering side.
pub const FIN_REPLY: u8 = 8;
/// RST from either side.
pub const RESET: u8 = 16;
/// The originator went on after the RST.
pub const CONTINUED_ORIGINAL: u8 = 32;
/// The answering side went on after the RST.
pub const CONTINUED_REPLY: u8 = 64;
/// Either end went on after the connection stood, before any end closed it.
pub const USED: u8 = 128;

const FINS: u8 = FIN_ORIGINAL | FIN_REPLY;
const CONTINUED: u8 = CONTINUED_ORIGINAL | CONTINUED_REPLY;

/// Whether the originator went on after an answer, something followed, and the ends have not ended it:
/// an entry worth more than any number of attempts. One side alone cannot make a flow look so, unless it is
/// both. A connection that is opened and closed without data, as health checks do, is never worth moving.
#[inline(always)]
#[must_use]
pub fn is_assured(state: u8) -> bool {
    mutant!(
        a_handshake_is_proof,
        state & USED != 0,
        state & ESTABLISHED != 0
    ) && state & RESET == 0
        && state & FINS != FINS
}

/// Whether the originator went on after an answer, and neither end has closed or reset it: with TCP, the
/// handshake is complete.
#[inline(always)]
#[must_use]
pub fn is_open(state: u8) -> bool {
    mutant!(
        a_reset_is_a_handshake,
        state & ESTABLISHED != 0 && state & (RESET | FINS) == 0,
        state & ESTABLISHED != 0
    )
}

/// Whether the flow is no mere attempt any more: the other end answered, and with TCP it refused, or
/// the originator has shown that it heard, as a SYN flood does not. Once answered, a flow stays so
/// until a SYN [`restarts`] it.
#[inline(always)]
#[must_use]
pub const fn is_replied(state: u8, proto: u8) -> bool {
    if proto != protocol::TCP {
        return state & REPLIED != 0;
    }
    state & ESTABLISHED != 0 || (state & REPLIED != 0 && state & RESET != 0)
}

/// Whether the packet begins a new connection in the place of one that ended.
#[inline(always)]
#[must_use]
pub const fn restarts(before: u8, proto: u8, reply: bool, tcp: TcpFlags) -> bool {
    !reply && opens(proto, tcp) && before & (RESET | FINS) != 0
}

/// Whether the packet opens a connection, whatever conntrack believes: a pure SYN.
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
                // Neither end has believed it: it was not for this connection.
                after &= !(RESET | CONTINUED);
            }
        }
    }
    after
}

/// How long, in nanoseconds, an entry lives after its last packet.
#[inline(always)]
#[must_use]
pub const fn timeout(entry_state: u8, proto: u8) -> u64 {
    let seconds = match proto {
        protocol::TCP => {
            if entry_state & RESET != 0 || entry_state & FINS == FINS {
                10
            } else if entry_state & FINS != 0 {
                120
            } else if entry_state & ESTABLISHED != 0 {
                8000
            } else {
                30
            }
        }
        protocol::UDP => {
            if entry_state & REPLIED != 0 {
                180
            } else {
                30
            }
        }
        protocol::ICMP | protocol::ICMPV6 => 30,
        protocol::SCTP => 300,
        _ => 60,
    };
    seconds * SECOND
}
