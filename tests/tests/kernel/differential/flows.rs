//! The model's flows: what an entry knows, and when it dies. Written from the documented rules, without
//! the code of the programs.
//!
//! Time is counted in whole seconds from the beginning of a sequence. The programs store times up to a
//! second late and the run itself takes time, so [`Entry::is_near_an_edge`] tells when a comparison
//! would not be exact.

use std::net::IpAddr;

use ringfence_common::{ids::TableId, mode::Direction};

use super::expectation::Decision;
use super::parse::Ip;

/// Address and port of the workload and of the peer; the protocol.
pub(super) type FlowKey = ([(IpAddr, u16); 2], u8);

/// Seconds before and after an edge in which the programs may already, or may not yet, see it.
const EARLY: u64 = 6;
const LATE: u64 = 2;

/// What the packets of a flow have shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    answered: bool,
    established: bool,
    /// FIN of the originator, and of the other side.
    fin: [bool; 2],
    reset: bool,
    /// Whether originator and other side continued after the reset.
    after_reset: [bool; 2],
}

impl Seen {
    /// Seconds until a flow in this state is forgotten.
    pub(super) fn timeout(self, protocol: u8) -> u64 {
        match (protocol, self.fin, self.established) {
            (6, ..) if self.reset => 10,
            (6, [true, true], _) => 10,
            (6, [false, false], true) => 8000,
            (6, [true, false] | [false, true], true) => 240,
            (6, [true, false] | [false, true], false) => 120,
            (17, ..) if self.answered => 180,
            // UDP without a reply, TCP before the handshake is complete, or an echo request.
            (6, [false, false], false) | (1 | 17 | 58, ..) => 30,
            (132, ..) => 300,
            _ => 60,
        }
    }

    fn after(mut self, reply: bool, ip: &Ip) -> Self {
        let before = self;
        if ip.is_opening && !reply && (self.reset || self.fin != [false; 2]) {
            return Self::default();
        }
        if reply {
            self.answered = true;
        } else if before.answered && !ip.is_opening {
            self.established = true;
        }
        let side = usize::from(reply);
        self.fin[side] |= ip.is_fin;
        if ip.is_reset {
            self.reset = true;
            self.after_reset = [false; 2];
        } else if before.reset && before.established {
            self.after_reset[side] = true;
            if self.after_reset == [true; 2] {
                self.reset = false;
                self.after_reset = [false; 2];
            }
        }
        self
    }
}

/// What a stored decision depends on: the endpoint's table, and how often the peer's epoch changed.
pub(super) type Stamp = (TableId, u64);

/// A conntrack entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) decision: Decision,
    /// The originator's.
    pub(super) direction: Direction,
    pub(super) from_host: bool,
    /// Whether it was allowed without a rule, because it arrived from an own address.
    pub(super) to_itself: bool,
    /// Whether it was allowed without a rule, because the workload sent it to itself through an address of
    /// the node.
    pub(super) came_back: bool,
    /// Whether the node gave its address to the peer, and may forget that it did.
    pub(super) is_translated: bool,
    /// Whether the direction is a guess.
    pub(super) picked_up: bool,
    pub(super) stamp: Stamp,
    /// Whether policy allowed the originator since the peer's address has this owner.
    pub(super) was_allowed: bool,
    pub(super) owner: u64,
    /// Whether the other side's own direction is known to be allowed.
    pub(super) other_side: Option<bool>,
    pub(super) seen: Seen,
    /// When the originator sent its last packet.
    pub(super) originator_seen: u64,
    pub(super) expires: u64,
}

impl Entry {
    /// Seconds until it is forgotten.
    fn timeout(&self, protocol: u8) -> u64 {
        let seconds = self.seen.timeout(protocol);
        match protocol {
            6 => seconds,
            132 if self.is_translated => seconds.min(2),
            _ if self.is_translated => seconds.min(25),
            _ => seconds,
        }
    }

    /// A packet of the flow passed.
    pub(super) fn touch(&mut self, now: u64, reply: bool, ip: &Ip) {
        self.seen = self.seen.after(reply, ip);
        // Only what arrives shows that the node still translates.
        let may_miss = self.is_translated && reply && ip.protocol != 6;
        let expires = now + self.timeout(ip.protocol);
        if !may_miss || expires < self.expires {
            self.expires = expires;
        }
        if !reply {
            self.originator_seen = now;
        }
    }

    /// A packet of the originator was dropped.
    pub(super) fn receive(&mut self, now: u64, protocol: u8) {
        self.originator_seen = now;
        self.expires = now + self.timeout(protocol);
    }

    /// Whether the other side may become the originator.
    pub(super) fn gives_way(&self, now: u64, owner: u64, protocol: u8) -> bool {
        let silent = now - self.originator_seen >= self.timeout(protocol);
        !self.was_allowed || self.owner != owner || silent
    }

    /// Whether at this time the entry is about to die, or its originator about to be silent.
    pub(super) fn is_near_an_edge(&self, now: u64, protocol: u8) -> bool {
        let silent = self.originator_seen + self.timeout(protocol);
        is_near(self.expires, now) || is_near(silent, now)
    }
}

/// Whether a time is near an edge.
pub(super) fn is_near(edge: u64, now: u64) -> bool {
    now + EARLY > edge && now < edge + LATE
}

/// Whether the packets of a protocol show which end opened the flow.
pub(super) fn shows_originator(protocol: u8) -> bool {
    matches!(protocol, 1 | 6 | 58)
}
