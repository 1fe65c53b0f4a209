//! Ranges of addresses that are not hosts of the world: groups, broadcast, links, loopback.
//!
//! Invariants: no range contains another. A rule that grants matches an address in one of them only if
//! it names the range, which is to say that its own range lies within. Everything not listed here is
//! an ordinary address, private and reserved space included: operators use it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(first: u8, second: u8, length: u8) -> IpNet {
    let address = Ipv4Addr::new(first, second, 0, 0);
    IpNet::V4(Ipv4Net::new_assert(address, length))
}

const fn v6(first: u16, length: u8) -> IpNet {
    let address = Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0);
    IpNet::V6(Ipv6Net::new_assert(address, length))
}

const BROADCAST: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32));
const MAPPED: IpNet = IpNet::V6(Ipv6Net::new_assert(
    Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0),
    96,
));

/// The ranges, and what each is called. `::/96` contains the unspecified address and loopback.
pub const SPECIAL_RANGES: [(IpNet, &str); 9] = [
    (v4(0, 0, 8), "this network"),
    (v4(127, 0, 8), "loopback"),
    (v4(169, 254, 16), "link-local"),
    (v4(224, 0, 4), "multicast"),
    (BROADCAST, "broadcast"),
    (v6(0, 96), "loopback"),
    (MAPPED, "IPv4-mapped"),
    (v6(0xfe80, 10), "link-local"),
    (v6(0xff00, 8), "multicast"),
];

/// The special range that contains a whole network, if one does.
#[must_use]
pub fn special_range(net: &IpNet) -> Option<IpNet> {
    let mut ranges = SPECIAL_RANGES.iter().map(|(range, _)| *range);
    ranges.find(|range| range.contains(net))
}

/// The special range that contains an address, if one does.
#[must_use]
pub fn special_range_of(address: IpAddr) -> Option<IpNet> {
    special_range(&IpNet::from(address))
}

/// What a special range is called. One that is not listed is the broadcast address of a link.
#[must_use]
pub fn special_range_name(range: &IpNet) -> &'static str {
    let listed = SPECIAL_RANGES.iter().find(|(listed, _)| listed == range);
    listed.map_or("broadcast", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_range_contains_another() {
        for (one, _) in &SPECIAL_RANGES {
            let containing = SPECIAL_RANGES.iter().filter(|(all, _)| all.contains(one));
            assert_eq!(containing.count(), 1, "{one}");
        }
    }

    #[test]
    fn addresses_are_in_the_ranges_of_their_kind() {
        let name = |text: &str| {
            let range = special_range_of(text.parse().unwrap());
            range.map_or("none", |range| special_range_name(&range))
        };
        for (address, expected) in [
            ("0.0.0.0", "this network"),
            ("127.0.0.53", "loopback"),
            ("169.254.169.254", "link-local"),
            ("224.0.0.251", "multicast"),
            ("239.255.255.255", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("255.255.255.254", "none"),
            ("240.0.0.1", "none"),
            ("10.0.0.255", "none"),
            ("::", "loopback"),
            ("::1", "loopback"),
            ("::ffff:10.0.0.1", "IPv4-mapped"),
            ("64:ff9b::a00:1", "none"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "none"),
            ("ff02::1", "multicast"),
            ("fd00::1", "none"),
        ] {
            assert_eq!(name(address), expected, "{address}");
        }
    }

    #[test]
    fn a_network_that_leads_out_of_a_range_is_not_in_it() {
        for (net, expected) in [
            ("169.254.0.0/16", true),
            ("169.254.1.0/24", true),
            ("169.254.0.0/15", false),
            ("0.0.0.0/0", false),
            ("0.0.0.0/8", true),
            ("224.0.0.0/3", false),
            ("::/0", false),
            ("::/95", false),
            ("fe80::/9", false),
        ] {
            let net: IpNet = net.parse().unwrap();
            assert_eq!(special_range(&net).is_some(), expected, "{net}");
        }
    }
}
