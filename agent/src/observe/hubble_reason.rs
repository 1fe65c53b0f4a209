//! Our drop reasons as Hubble's numbers and names (`flow.proto`, enum `DropReason`).
//!
//! Invariants: every reason is mapped to the closest reason of Hubble; the record has our own name
//! in `extensions`. These numbers are only for output.

use ringfence_common::drop_reason::DropReason;

use super::flow::FlowRecord;
use super::names::Decider;

/// Number and name of Hubble's closest reason.
pub(super) fn of(record: &FlowRecord, reason: DropReason) -> (u32, &'static str) {
    match reason {
        DropReason::Policy if matches!(record.decider, Decider::Rule(_)) => (181, "POLICY_DENY"),
        DropReason::Policy | DropReason::Lockdown => (133, "POLICY_DENIED"),
        DropReason::NoPolicyRow => (165, "NO_CONFIGURATION_AVAILABLE_TO_PERFORM_POLICY_DECISION"),
        DropReason::UnknownPeer => (171, "INVALID_IDENTITY"),
        DropReason::UnknownEndpoint => (152, "NO_MATCHING_LOCAL_CONTAINER_FOUND"),
        DropReason::SpoofedSource | DropReason::ArpSpoof => (132, "INVALID_SOURCE_IP"),
        DropReason::ConntrackFull => (155, "CT_MAP_INSERTION_FAILED"),
        DropReason::Truncated | DropReason::TcpHeader | DropReason::UdpHeader => {
            (135, "CT_TRUNCATED_OR_INVALID_HEADER")
        }
        DropReason::Ethertype => (166, "UNSUPPORTED_L2_PROTOCOL"),
        DropReason::Vlan => (182, "VLAN_FILTERED"),
        DropReason::Ipv4Header
        | DropReason::Ipv6Header
        | DropReason::IpLength
        | DropReason::TinyFragment
        | DropReason::TcpFlags
        | DropReason::ArpHeader => (134, "INVALID_PACKET_DROPPED"),
        DropReason::ExtensionHeaders | DropReason::RoutingHeader => {
            (156, "INVALID_IPV6_EXTENSION_HEADER")
        }
        DropReason::NoProgram => (140, "MISSED_TAIL_CALL"),
        DropReason::OrphanFragment => (175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND"),
        DropReason::FragmentTableFull => (138, "CT_CANNOT_CREATE_ENTRY_FROM_PACKET"),
        DropReason::IcmpErrorUnmatched | DropReason::ReplyForgotten => {
            (163, "UNKNOWN_CONNECTION_TRACKING_STATE")
        }
        DropReason::Redirect
        | DropReason::RouterAdvertisement
        | DropReason::NeighbourSpoof
        | DropReason::DiscoveryHeader
        | DropReason::ListenerQuery => (176, "FORBIDDEN_ICMPV6_MESSAGE"),
        DropReason::DiscoveryRate => (198, "DROP_RATE_LIMITED"),
    }
}
