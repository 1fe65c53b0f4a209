//! Why a packet was denied or malformed: one list for kernel, metrics, flows and docs.
//!
//! Invariants: numbers are stable, because dashboards and pinned counters contain them; 0 is "no
//! reason". 8 was `flow-limit` and is not used again.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Why a packet was dropped, or would have been in `observe`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name = $number,)*
        }

        impl DropReason {
            /// Every reason, in order of number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable name in metrics, flows and docs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// From a map byte; `None` for 0 and for numbers of a newer version.
            #[must_use]
            pub const fn from_raw(raw: u8) -> Option<Self> {
                match raw { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    /// A rule, or the default of an isolated direction, denies the flow.
    Policy = 1, "policy";
    /// The endpoint's table has no row for the flow: its policy is not known yet.
    NoPolicyRow = 2, "no-policy-row";
    /// No map knows the peer's address.
    UnknownPeer = 3, "unknown-peer";
    /// The interface belongs to no known endpoint.
    UnknownEndpoint = 4, "unknown-endpoint";
    /// The source address is not the workload's own.
    SpoofedSource = 5, "spoofed-source";
    /// The namespace or the endpoint is locked down.
    Lockdown = 6, "lockdown";
    /// Scratch space of this CPU is missing, which does not happen: a lookup in a per-CPU array.
    ConntrackFull = 7, "conntrack-full";
    /// A reply to a flow whose entry was replaced, because its endpoint has more unreplied flows
    /// than its share.
    ReplyForgotten = 9, "reply-forgotten";
    /// The frame ends before a header it announces.
    Truncated = 10, "truncated";
    /// Neither IPv4, IPv6 nor ARP.
    Ethertype = 11, "ethertype";
    /// A VLAN tag, in the frame or in its metadata.
    Vlan = 12, "vlan";
    /// Wrong version or header length in an IPv4 header.
    Ipv4Header = 13, "ipv4-header";
    /// Wrong version in an IPv6 header.
    Ipv6Header = 14, "ipv6-header";
    /// The length in the IP header disagrees with the frame.
    IpLength = 15, "ip-length";
    /// More than eight IPv6 extension headers, or one out of order.
    ExtensionHeaders = 16, "extension-headers";
    /// An IPv6 routing header of type 0 (RFC 5095).
    RoutingHeader = 17, "routing-header";
    /// A first fragment without the whole transport header, or one that would overwrite it.
    TinyFragment = 18, "tiny-fragment";
    /// A later fragment whose first fragment was not seen.
    OrphanFragment = 19, "orphan-fragment";
    /// A TCP header shorter than it may be.
    TcpHeader = 20, "tcp-header";
    /// A combination of TCP flags that no stack sends.
    TcpFlags = 21, "tcp-flags";
    /// A UDP length that disagrees with the packet.
    UdpHeader = 22, "udp-header";
    /// An ICMP error about a flow that is not live or not allowed.
    IcmpErrorUnmatched = 24, "icmp-error-unmatched";
    /// An ICMP or ICMPv6 redirect from a workload.
    Redirect = 25, "redirect";
    /// A router advertisement from a workload.
    RouterAdvertisement = 26, "router-advertisement";
    /// Neighbour discovery for an address the workload does not own, or to where it has no use.
    NeighbourSpoof = 27, "neighbour-spoof";
    /// ARP for an address the workload does not own.
    ArpSpoof = 28, "arp-spoof";
    /// An ARP packet that is not Ethernet over IPv4, or one with more than its padding.
    ArpHeader = 29, "arp-header";
    /// The fragment table could not record a first fragment.
    FragmentTableFull = 30, "fragment-table-full";
    /// A stand-in for a program that moves to the head of its hook has none to call.
    NoProgram = 31, "no-program";
    /// A discovery message with more than its type has: extension headers, unknown or repeated options,
    /// reserved bits, a hop limit or router alert that it must not lack, trailing bytes.
    DiscoveryHeader = 32, "discovery-header";
    /// A multicast listener query from a workload.
    ListenerQuery = 33, "listener-query";
    /// More discovery messages and ARP packets from a workload than its rate allows.
    DiscoveryRate = 34, "discovery-rate";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        let names: std::collections::HashSet<_> =
            DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_raw(*reason as u8), Some(*reason));
            assert!((*reason as u8) < crate::stats::REASONS);
        }
        assert_eq!(DropReason::from_raw(0), None);
    }
}
