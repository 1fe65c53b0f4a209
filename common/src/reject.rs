//! Rejecting: how many answers an endpoint may cause, and how an answer is known again.
//!
//! An answer leaves by the interface that the packet came by, so it meets the endpoint's own fence
//! at the other hook. There it is recognised by what it is, never by a mark that others could set:
//! every byte that is not fixed by its kind is in [`RejectKey`], directly or through its checksum.
//! A record lets one packet pass, once, and soon.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{SECOND, layout::shared_layout, mutant, net::Ip6};

/// The most answers an endpoint's rejections cause in a second.
pub const REJECTS_PER_SECOND: u64 = 1000;
/// How long an answer may take to the other hook.
pub const REJECT_LIFETIME: u64 = SECOND;
/// How many answers can be on the way at once.
pub const REJECTS_CAPACITY: u32 = 1024;

/// An answer on its way, 64 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RejectKey {
    /// Source address, widened to sixteen bytes.
    pub source: Ip6,
    /// Destination address likewise.
    pub destination: Ip6,
    /// The first bytes behind the IP header: a TCP header, or an ICMP message whose checksum
    /// speaks for the rest.
    pub head: [u8; 20],
    /// The endpoint's interface.
    pub ifindex: u32,
    /// Bytes behind the IP header.
    pub payload: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// 1 when it will be seen as from the workload, 0 when as on its way to it.
    pub from_workload: u8,
    /// 4 or 6.
    pub version: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
shared_layout!(
    RejectKey, size 64, source at 0, destination at 16, head at 32, ifindex at 52, payload at 56,
    protocol at 58, from_workload at 59, version at 60,
);

/// What is left of an endpoint's answers, 16 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RejectLimit {
    /// Tick-clock time from which answers are counted.
    pub since: u64,
    /// Answers given since then.
    pub given: u64,
}
shared_layout!(RejectLimit, size 16, since at 0, given at 8);

impl RejectLimit {
    /// Takes one answer, if there is one left.
    #[inline(always)]
    pub fn take(&mut self, now: u64) -> bool {
        if now.saturating_sub(self.since) >= SECOND {
            self.since = now;
            self.given = 0;
        }
        if mutant!(
            answers_are_unlimited,
            self.given >= REJECTS_PER_SECOND,
            false
        ) {
            return false;
        }
        self.given += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_lasts_a_second() {
        let mut allowance = RejectLimit::default();
        let start = 10 * SECOND;
        let taken = |allowance: &mut RejectLimit, now| {
            (0..2 * REJECTS_PER_SECOND)
                .filter(|_| allowance.take(now))
                .count() as u64
        };
        assert_eq!(taken(&mut allowance, start), REJECTS_PER_SECOND);
        assert_eq!(taken(&mut allowance, start + SECOND - 1), 0);
        assert_eq!(taken(&mut allowance, start + SECOND), REJECTS_PER_SECOND);
    }
}
