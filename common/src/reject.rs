//! Reject packets: rate limit per endpoint, and the record that lets them pass the fence.
//!
//! A reject packet leaves by the interface of the rejected packet, so it meets the endpoint's own
//! fence at the other hook. It is recognised there by its content, never by a mark that others
//! could set: [`RejectKey`] is the whole packet, and nothing may follow that in the frame. A record
//! lets one packet pass, once, within [`REJECT_LIFETIME`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{SECOND, layout::shared_layout, packet::reject::WholePacket};

/// The most reject packets of an endpoint in a second.
pub const REJECTS_PER_SECOND: u64 = 1000;
/// How long a reject packet may take to reach the other hook.
pub const REJECT_LIFETIME: u64 = SECOND;
/// How many reject packets can be in flight at once.
pub const REJECTS_CAPACITY: u32 = 1024;

/// A reject packet in flight, 104 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RejectKey {
    /// The packet, from its IP header on.
    pub packet: WholePacket,
    /// The endpoint's interface.
    pub ifindex: u32,
    /// 1 if the other hook sees it as from the workload, 0 if as to the workload.
    pub from_workload: u32,
}
shared_layout!(RejectKey, size 104, packet at 0, ifindex at 96, from_workload at 100);

/// Rate limit state of an endpoint, 16 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RejectLimit {
    /// Tick-clock time from which reject packets are counted.
    pub since: u64,
    /// Reject packets sent since then.
    pub given: u64,
}
shared_layout!(RejectLimit, size 16, since at 0, given at 8);

impl RejectLimit {
    /// Whether the second that is counted is over.
    #[inline(always)]
    #[must_use]
    pub const fn is_over(since: u64, now: u64) -> bool {
        now.saturating_sub(since) >= SECOND
    }
}
