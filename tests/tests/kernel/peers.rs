//! The addresses of the workload and of its peers, one of each family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The workload.
pub(crate) const LOCAL: DualStack = DualStack(
    Ipv4Addr::new(10, 0, 0, 2),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
);
/// A peer of class [`crate::fence::FRIENDS`].
pub(crate) const FRIEND: DualStack = DualStack(
    Ipv4Addr::new(10, 0, 0, 3),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3),
);
/// A peer of class [`crate::fence::OTHERS`].
pub(crate) const OTHER: DualStack = DualStack(
    Ipv4Addr::new(10, 0, 0, 4),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 4),
);
/// An address that is in no map.
pub(crate) const UNKNOWN_PEER: DualStack = DualStack(
    Ipv4Addr::new(192, 0, 2, 9),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9),
);

/// An address of each family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DualStack(pub(crate) Ipv4Addr, pub(crate) Ipv6Addr);

impl DualStack {
    pub(crate) fn ip(self, v6: bool) -> IpAddr {
        if v6 { self.1.into() } else { self.0.into() }
    }
}
