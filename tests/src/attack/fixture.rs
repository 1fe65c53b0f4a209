//! The fixed setup of every attack: the addresses, the ports and the policy.
//!
//! Addresses are the same in every network, so that the same bytes can be sent in each. The peers
//! have a whole range, so that every case draws an address and a port that have not been used
//! before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rng::Rng;

/// The direction of a frame, seen from the fenced workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the fenced workload; `from_workload` handles it.
    Out,
    /// To the fenced workload, from an unfenced host; `to_workload` handles it.
    In,
}

impl Direction {
    /// The other direction.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Out => Self::In,
            Self::In => Self::Out,
        }
    }
}

const fn address(v6: bool, ip4: [u8; 4], last: u16) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x18, 1, 0, 0, 0, last))
    } else {
        let [a, b, c, d] = ip4;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    }
}

/// The fenced workload.
#[must_use]
pub const fn workload(v6: bool) -> IpAddr {
    address(v6, [198, 18, 1, 2], 2)
}

/// Another workload, to and from which policy allows nothing.
#[must_use]
pub const fn other_workload(v6: bool) -> IpAddr {
    address(v6, [198, 18, 1, 3], 3)
}

/// The node.
#[must_use]
pub const fn node(v6: bool) -> IpAddr {
    address(v6, [198, 18, 1, 1], 1)
}

/// The solicited-node group of an address (RFC 4291 §2.7.1).
#[must_use]
pub const fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = ip.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

/// A host whose address is in no range that the policy names.
#[must_use]
pub const fn unlisted_host(v6: bool) -> IpAddr {
    address(v6, [198, 19, 9, 9], 0x9999)
}

/// A random address of the peers' range.
pub fn peer(v6: bool, rng: &mut Rng) -> IpAddr {
    let [_, b, c, d, e, f, g, h] = rng.next_u64().to_be_bytes();
    if v6 {
        let words = [[b, c], [d, e], [f, g], [h, 7]].map(u16::from_be_bytes);
        let [k, l, m, n] = words;
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0x8000, k, l, m, n))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, b, c, d.max(1)))
    }
}

/// A random address of a range from and to which policy rejects everything.
pub fn rejected_peer(v6: bool, rng: &mut Rng) -> IpAddr {
    let [b, c, d, e, f, g, h, i] = rng.next_u64().to_be_bytes();
    if v6 {
        let [k, l, m, n] = [[b, c], [d, e], [f, g], [h, i]].map(u16::from_be_bytes);
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0x9000, k, l, m, n))
    } else {
        IpAddr::V4(Ipv4Addr::new(198, 18, 0x80 | b, c.max(1)))
    }
}

/// The port of TCP, UDP and SCTP that policy rejects for every peer, in both directions.
pub const REJECTED_PORT: u16 = 7900;

/// Whether policy rejects a new flow with `peer`, in either direction.
#[must_use]
pub fn is_rejected(peer: IpAddr, protocol: u8, port: u16) -> bool {
    let is_peer = match peer {
        IpAddr::V4(ip) => ip.octets().starts_with(&[198, 18]) && ip.octets()[2] >= 0x80,
        IpAddr::V6(ip) => ip.segments().starts_with(&[0x2001, 0xdb8, 0x18, 0x9000]),
    };
    let has_port = matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
    is_peer || (has_port && port == REJECTED_PORT)
}

/// Whether an address lies in the peers' range.
#[must_use]
pub fn is_peer(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets().starts_with(&[10]),
        IpAddr::V6(ip) => ip.segments().starts_with(&[0x2001, 0xdb8, 0x18, 0x8000]),
    }
}

/// An address of the node's loopback device that no inventory lists, and the length of its prefix.
pub const UNLISTED_NODE: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 19, 7, 7), 24);

/// Another node, to which policy allows every protocol and port, and two of its tunnels by their names.
#[must_use]
pub const fn other_node(v6: bool) -> IpAddr {
    address(v6, [198, 19, 8, 1], 0x801)
}

/// The tunnel port that policy names.
pub const NAMED_TUNNEL: u16 = 4789;

/// UDP ports that policy allows from the workload to groups, link-local addresses and broadcast. One of
/// them is a tunnel's.
pub const ON_LINK_PORTS: std::ops::RangeInclusive<u16> = 8470..=8474;

/// Whether a node takes a packet with this protocol and destination port apart, and sends on what is inside.
const fn is_tunnel(protocol: u8, port: u16) -> bool {
    let is_port = matches!(port, 4789 | 6081 | 8472 | 51_820 | 51_871);
    matches!(protocol, 4 | 41 | 47) || (protocol == protocol::UDP && is_port)
}

/// The ranges of the cluster, as the configuration names them.
pub const CLUSTER_RANGES: [&str; 2] = ["198.19.96.0/20", "2001:db8:18:96::/64"];

/// A Service: an address of the cluster that no inventory lists.
#[must_use]
pub const fn service(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0x96, 0, 0, 0, 0x10))
    } else {
        IpAddr::V4(Ipv4Addr::new(198, 19, 96, 10))
    }
}

/// The UDP ports that policy allows with the world, with every IPv4 address and half of the IPv6 ones by
/// ranges, and with groups and neighbours on the link by their ranges; in both directions.
pub const WORLD_PORT: u16 = 7700;
/// See [`WORLD_PORT`].
pub const RANGE_PORT: u16 = 7701;
/// See [`WORLD_PORT`].
pub const NAMED_PORT: u16 = 7702;

/// Whether only a rule that names an address's range matches it: loopback, link-local, multicast,
/// broadcast and the like.
#[must_use]
pub fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let on_link = matches!(ip.octets(), [198, 19, 7, 0 | 255]);
            let [first, ..] = ip.octets();
            matches!(first, 0 | 127) || on_link || is_on_link(ip.into()) || ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            let is_old = matches!(ip.segments(), [0, 0, 0, 0, 0, 0 | 0xffff, ..]);
            is_old || is_on_link(ip.into())
        }
    }
}

fn is_upper_half(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.octets()[0] >= 0x80)
}

fn is_on_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

fn is_world(ip: IpAddr) -> bool {
    let listed = [workload, other_workload, node, other_node].map(|of| of(ip.is_ipv6()));
    let is_cluster = match ip {
        IpAddr::V4(ip) => matches!(ip.octets(), [198, 19, 96..=111, _]),
        IpAddr::V6(ip) => ip.segments().starts_with(&[0x2001, 0xdb8, 0x18, 0x96]),
    };
    // An IPv4 prefix on the loopback device is the node's as a whole.
    let is_nodes = matches!(ip, IpAddr::V4(ip) if ip.octets().starts_with(&[198, 19, 7]));
    !is_special(ip) && !is_cluster && !is_nodes && !listed.contains(&ip)
}

/// Protocol numbers.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// The port of a protocol that policy allows between the workload and its peers.
#[must_use]
pub const fn allowed_port(direction: Direction, protocol: u8) -> u16 {
    match (direction, protocol) {
        (Direction::Out, protocol::TCP) => 8080,
        (Direction::Out, _) => 5353,
        (Direction::In, protocol::TCP) => 7070,
        (Direction::In, _) => 7071,
    }
}

/// A port that policy opens to the node only, whose own packets need no rule.
pub const NODE_ONLY_PORT: u16 = 7272;

/// Whether policy allows a new flow with `peer`, from the workload (`Out`) or to it (`In`).
#[must_use]
pub fn is_allowed(direction: Direction, peer: IpAddr, protocol: u8, port: u16) -> bool {
    if is_rejected(peer, protocol, port) {
        return false;
    }
    let open = match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => port == allowed_port(direction, protocol),
        protocol::ICMP | protocol::ICMPV6 => direction == Direction::Out,
        _ => false,
    };
    let is_wide = match port {
        WORLD_PORT => is_world(peer),
        RANGE_PORT => !is_special(peer) && (peer.is_ipv4() || is_upper_half(peer)),
        NAMED_PORT => is_on_link(peer),
        _ => false,
    };
    let to_node = direction == Direction::Out && peer == other_node(peer.is_ipv6());
    let is_named = matches!((protocol, port), (protocol::UDP, NAMED_TUNNEL) | (47, _));
    if to_node && (is_named || !is_tunnel(protocol, port)) {
        return true;
    }
    if to_node {
        return false;
    }
    let is_broadcast = matches!(peer, IpAddr::V4(ip) if ip.is_broadcast());
    if direction == Direction::Out
        && protocol == protocol::UDP
        && (is_on_link(peer) || is_broadcast)
        && ON_LINK_PORTS.contains(&port)
        && !is_tunnel(protocol, port)
    {
        return true;
    }
    (is_peer(peer) && open) || (protocol == protocol::UDP && is_wide)
}

/// The policy that [`is_allowed`] models.
pub const POLICY: &str = r#"
[[policy]]
name = "allow-peers"
namespace = "lab"
subject = ""

[[policy.egress]]
to = [{ cidr = "10.0.0.0/8" }, { cidr = "2001:db8:18:8000::/64" }]
ports = ["tcp/8080", "udp/5353", "sctp/5353", "icmp"]

[[policy.ingress]]
from = [{ cidr = "10.0.0.0/8" }, { cidr = "2001:db8:18:8000::/64" }]
ports = ["tcp/7070", "udp/7071", "sctp/7071"]

[[policy.egress]]
to = [{ entity = "world" }]
ports = ["udp/7700"]

[[policy.egress]]
to = [{ cidr = "0.0.0.0/0" }, { cidr = "8000::/1" }]
ports = ["udp/7701"]

[[policy.egress]]
to = [
    { cidr = "169.254.0.0/16" },
    { cidr = "224.0.0.0/4" },
    { cidr = "fe80::/10" },
    { cidr = "ff00::/8" },
]
ports = ["udp/7702"]

[[policy.egress]]
to = [
    { cidr = "169.254.0.0/16" },
    { cidr = "224.0.0.0/4" },
    { cidr = "255.255.255.255/32" },
    { cidr = "fe80::/10" },
    { cidr = "ff00::/8" },
]
ports = ["udp/8470-8474"]

[[policy.egress]]
to = [{ entity = "remote-node" }]

[[policy.egress]]
to = [{ entity = "remote-node" }]
ports = ["udp/4789", "protocol/47"]

[[policy.ingress]]
from = [{ entity = "world" }]
ports = ["udp/7700"]

[[policy.ingress]]
from = [{ cidr = "0.0.0.0/0" }, { cidr = "8000::/1" }]
ports = ["udp/7701"]

[[policy.ingress]]
from = [
    { cidr = "169.254.0.0/16" },
    { cidr = "224.0.0.0/4" },
    { cidr = "fe80::/10" },
    { cidr = "ff00::/8" },
]
ports = ["udp/7702"]

[[policy.ingress]]
from = [{ entity = "host" }]
ports = ["tcp/7272", "udp/7272", "sctp/7272", "icmp"]

[[policy]]
name = "reject"
namespace = "lab"
subject = ""

[[policy.egress]]
action = "reject"
to = [{ cidr = "198.18.128.0/17" }, { cidr = "2001:db8:18:9000::/64" }]

[[policy.egress]]
action = "reject"
ports = ["tcp/7900", "udp/7900", "sctp/7900"]

[[policy.ingress]]
action = "reject"
from = [{ cidr = "198.18.128.0/17" }, { cidr = "2001:db8:18:9000::/64" }]

[[policy.ingress]]
action = "reject"
ports = ["tcp/7900", "udp/7900", "sctp/7900"]
"#;
