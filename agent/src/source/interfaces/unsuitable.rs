//! Interfaces that get no fence, whatever the inventory says.
//!
//! Pure. A fence there would evaluate packets that are not one workload's, or read headers that are not
//! there. Each reason names its remedy.

use super::Links;

/// The hardware type of devices whose packets begin with an Ethernet header (`ARPHRD_ETHER`).
pub(super) const ETHERNET: u16 = 1;

/// Why an interface gets no fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// A loopback device.
    #[error(
        "it is the loopback device, which carries the host's own packets: name the host-side \
         interface of the workload"
    )]
    Loopback,
    /// A bridge, not one of its ports.
    #[error(
        "it is a bridge, which carries the packets of all its ports: name the port of the workload"
    )]
    Bridge,
    /// The device of a default route.
    #[error(
        "the node's default route leads through it, and a fence could cut the node off: name the \
         host-side interface of the workload, or set `allow-uplink = true` in the configuration"
    )]
    Uplink,
    /// A device of another hardware type (`ARPHRD_…`).
    #[error(
        "its packets have no Ethernet header (hardware type {0}), and a fence could not read them: \
         connect the workload through an Ethernet device, such as a veth pair"
    )]
    NotEthernet(u16),
}

impl Unsuitable {
    /// Whether a fence that an interface has already stays. A default route takes none off: the node may
    /// have it from a router advertisement, which a workload in `observe` can send.
    #[must_use]
    pub const fn keeps_a_fence(self) -> bool {
        matches!(self, Self::Uplink)
    }
}

impl Links {
    /// Why the link with this index gets no fence; `None` if it may have one, or does not exist.
    #[must_use]
    pub fn unsuitable(&self, index: u32) -> Option<Unsuitable> {
        let link = self.get(index)?;
        if link.is_loopback {
            return Some(Unsuitable::Loopback);
        }
        if link.hardware != ETHERNET {
            return Some(Unsuitable::NotEthernet(link.hardware));
        }
        if link.kind == "bridge" {
            return Some(Unsuitable::Bridge);
        }
        self.uplinks.contains(&index).then_some(Unsuitable::Uplink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::interfaces::Link;

    #[test]
    fn what_is_not_one_workloads_interface_is_unsuitable() {
        let ethernet = Link {
            name: "veth1".into(),
            hardware: ETHERNET,
            kind: "veth".into(),
            ..Link::default()
        };
        let bridge = Link {
            kind: "bridge".into(),
            ..ethernet.clone()
        };
        let lo = Link {
            hardware: 772,
            is_loopback: true,
            ..Link::default()
        };
        let tun = Link {
            hardware: 65_534,
            kind: "tun".into(),
            ..Link::default()
        };
        let mut links = Links::new(
            [
                (1, lo),
                (2, ethernet.clone()),
                (3, bridge),
                (4, tun),
                (5, ethernet),
            ]
            .into(),
        );
        links.uplinks = [2].into();
        for (index, expected) in [
            (1, Some(Unsuitable::Loopback)),
            (2, Some(Unsuitable::Uplink)),
            (3, Some(Unsuitable::Bridge)),
            (4, Some(Unsuitable::NotEthernet(65_534))),
            (5, None),
            (6, None),
        ] {
            assert_eq!(links.unsuitable(index), expected, "{index}");
        }
    }
}
