//! Link-local addresses: whether a workload may use one as its own.
//!
//! No inventory lists them, and on a shared link a workload that claims a router's address would
//! receive its neighbours' traffic. So an address is accepted only if it is derived from the source
//! hardware address of the frame (RFC 4291 appendix A), and if the message contains no other
//! hardware address for it. A workload whose link-local address is derived in another way lists it
//! among its addresses, or does without: neighbour discovery works from its other addresses.

use super::{ETHERNET, Frame};
use crate::net::Ip6;

/// Offset of the frame's source hardware address.
const SOURCE: u32 = ETHERNET - 8;

/// The hardware address from which a link-local address is derived, if it has that form.
#[inline(always)]
#[must_use]
pub(super) const fn hardware_address(address: Ip6) -> Option<[u8; 6]> {
    if address.first != 0xfe80_u64.rotate_right(16).to_be() {
        return None;
    }
    let [a, b, c, 0xff, 0xfe, d, e, f] = address.last.to_ne_bytes() else {
        return None;
    };
    Some([a ^ 2, b, c, d, e, f])
}

/// Whether a message may be sent for a link-local address: one that is derived from the frame's source
/// hardware address, and to which the message binds no other (`bound`).
#[inline(always)]
pub(super) fn may_claim<F: Frame>(frame: &F, address: Ip6, bound: Option<[u8; 6]>) -> bool {
    let Some(hardware_address) = hardware_address(address) else {
        return false;
    };
    let mut hardware = [0u8; 6];
    frame.load(SOURCE, &mut hardware)
        && hardware == hardware_address
        && bound.is_none_or(|bound| bound == hardware_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_identifier_holds_a_hardware_address() {
        let made = |text: &str| {
            let address: std::net::Ipv6Addr = text.parse().unwrap();
            hardware_address(Ip6::from_wire(address.octets()))
        };
        let hardware = [0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde];
        assert_eq!(made("fe80::3656:78ff:fe9a:bcde"), Some(hardware));
        for other in [
            "fe80::1",
            "fe80:1::3656:78ff:fe9a:bcde",
            "fd00::3656:78ff:fe9a:bcde",
        ] {
            assert_eq!(made(other), None, "{other}");
        }
    }
}
