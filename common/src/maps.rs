//! Names and default capacities of the maps.
//!
//! Invariants: every name here is a map in the object (checked by a test). Arrays and LRU maps are
//! preallocated, so their capacity costs memory; the others grow as they fill. Capacities are
//! configurable except where an index type fixes them.

/// Array: position of an interface ([`crate::endpoint::position`]) →
/// [`crate::endpoint::RecordSlot`] in force.
pub const ENDPOINT_SLOTS: &str = "ENDPOINT_SLOTS";
/// Array: [`crate::endpoint::RecordSlot`] → [`crate::endpoint::Endpoint`].
pub const ENDPOINTS: &str = "ENDPOINTS";
/// Array: [`crate::ids::NamespaceSlot`] → mode byte (as `u32`).
pub const NAMESPACE_MODE: &str = "NAMESPACE_MODE";
/// Hash: [`crate::net::Ip4`] → [`crate::ipcache::IpcacheEntry`].
pub const IPCACHE4: &str = "IPCACHE4";
/// Hash: [`crate::net::Ip6`] → [`crate::ipcache::IpcacheEntry`].
pub const IPCACHE6: &str = "IPCACHE6";
/// LPM trie: IPv4 prefix → [`crate::ids::IdentityId`].
pub const CIDR4: &str = "CIDR4";
/// LPM trie: IPv6 prefix → [`crate::ids::IdentityId`].
pub const CIDR6: &str = "CIDR6";
/// Array: [`crate::ids::IdentityId`] → [`crate::ids::ClassId`].
pub const CLASSES: &str = "CLASSES";
/// LPM trie: [`crate::policy::PolicyKey`] → [`crate::policy::PolicyRow`].
pub const POLICY: &str = "POLICY";
/// Array: epoch slot of an address → epoch.
pub const IDENTITY_EPOCH: &str = "IDENTITY_EPOCH";
/// Array: epoch slot of an address → how often an address of the slot got another owner.
pub const OWNERS: &str = "OWNERS";
/// Hash: [`crate::conntrack::CtKey4`] → [`crate::conntrack::CtEntry`], assured entries.
pub const CT4: &str = "CT4";
/// Hash: [`crate::conntrack::CtKey6`] → [`crate::conntrack::CtEntry`], assured entries.
pub const CT6: &str = "CT6";
/// Array of sets: [`crate::conntrack::unreplied::CtSet4`], all entries that are not assured.
pub const CT_UNREPLIED4: &str = "CT_UNREPLIED4";
/// Array of sets: [`crate::conntrack::unreplied::CtSet6`], all entries that are not assured.
pub const CT_UNREPLIED6: &str = "CT_UNREPLIED6";
/// Array of two `u64`: the secret that places flows in sets, written once by the agent.
pub const CT_SEED: &str = "CT_SEED";
/// Array of one [`crate::conntrack::description::Description`], written by the agent for agents with
/// another layout.
pub const CT_DESCRIPTION: &str = "CT_DESCRIPTION";
/// Array of one [`crate::quota::Share`], written by the agent.
pub const CT_SHARE: &str = "CT_SHARE";
/// Array: [`crate::ids::EndpointNumber`] → [`crate::quota::Usage`], written by the kernel programs.
pub const CT_USAGE: &str = "CT_USAGE";
/// Array: [`crate::ids::EndpointNumber`] → [`crate::quota::Excess`], written by the agent.
pub const CT_USAGE_SWEEP: &str = "CT_USAGE_SWEEP";
/// Array: [`crate::ids::EndpointNumber`] → [`crate::reject::RejectLimit`].
pub const REJECT_LIMITS: &str = "REJECT_LIMITS";
/// Array: [`crate::ids::EndpointNumber`] → tick-clock time up to which the endpoint's discovery
/// messages are charged ([`crate::quota::charge_discovery`]).
pub const DISCOVERY_LIMITS: &str = "DISCOVERY_LIMITS";
/// LRU hash: [`crate::packet::neighbour::Solicitor`] → tick-clock time of its last neighbour solicitation.
pub const SOLICITORS: &str = "SOLICITORS";
/// Array: [`crate::ids::EndpointNumber`] → [`crate::packet::dhcp::DhcpRequest`].
pub const DHCP_REQUESTS: &str = "DHCP_REQUESTS";
/// Hash: [`crate::net::Ip6`] of an endpoint of this node → its ifindex. An index of [`ENDPOINTS`].
pub const OWN_ADDRESSES6: &str = "OWN_ADDRESSES6";
/// Hash: ifindex → boot-clock second at which the interface's pick-up window ends. Only the agent
/// reads and writes it; key 0 holds the first interface index that did not stand before
/// the agent's first start.
pub const PICKUP: &str = "PICKUP";
/// LRU hash: [`crate::fragment::FragmentKey4`] → [`crate::fragment::FragmentPorts`].
pub const FRAG4: &str = "FRAG4";
/// LRU hash: [`crate::fragment::FragmentKey6`] → [`crate::fragment::FragmentPorts`].
pub const FRAG6: &str = "FRAG6";
/// Per-CPU array: [`crate::ids::RuleSlot`] → [`RuleHit`].
pub const RULE_HITS: &str = "RULE_HITS";
/// LRU hash: [`crate::deny_aggregate::DenyKey`] → [`crate::deny_aggregate::DenyCount`].
pub const DENIES: &str = "DENIES";
/// Ring buffer of [`crate::event::FlowEvent`].
pub const EVENTS: &str = "EVENTS";
/// Per-CPU array of `u64`, indexed by [`crate::stats`].
pub const STATS: &str = "STATS";
/// Array of two `u64`: the boot clock and the tick clock as the kernel programs read them, written
/// by the program `clocks`.
pub const CLOCK: &str = "CLOCK";

/// Array of one `u64`, for the agent alone: no table number from this one on was ever given out; 0
/// if it was never written. It lives and dies with conntrack, whose verdicts are compared by such
/// numbers.
pub const TABLE_NUMBERS: &str = "TABLE_NUMBERS";
/// Array of 32 bytes, for the agent alone: the fingerprint of the programs pinned next to the maps, by
/// which a start recognises them; all zero if there is none.
pub const LOADED_PROGRAMS: &str = "LOADED_PROGRAMS";

/// Array of two programs, `from_workload` and `to_workload`, for the moment in which a fence moves to
/// the head of a hook; empty otherwise. What the programs `stand_in_from` and `stand_in_to` call.
pub const STAND_IN_FOR: &str = "STAND_IN_FOR";

/// Every map of the object, except those that the compiler adds.
pub const ALL: [&str; 36] = [
    ENDPOINT_SLOTS,
    ENDPOINTS,
    NAMESPACE_MODE,
    IPCACHE4,
    IPCACHE6,
    CIDR4,
    CIDR6,
    CLASSES,
    POLICY,
    IDENTITY_EPOCH,
    OWNERS,
    CT4,
    CT6,
    CT_UNREPLIED4,
    CT_UNREPLIED6,
    CT_SEED,
    CT_DESCRIPTION,
    CT_SHARE,
    CT_USAGE,
    CT_USAGE_SWEEP,
    REJECT_LIMITS,
    DISCOVERY_LIMITS,
    SOLICITORS,
    DHCP_REQUESTS,
    OWN_ADDRESSES6,
    PICKUP,
    FRAG4,
    FRAG6,
    RULE_HITS,
    DENIES,
    EVENTS,
    STATS,
    CLOCK,
    TABLE_NUMBERS,
    LOADED_PROGRAMS,
    STAND_IN_FOR,
];

/// Default number of endpoints; [`ENDPOINTS`] has [`crate::endpoint::RECORDS`] records for each, and
/// for number 0.
pub const ENDPOINTS_CAPACITY: u32 = 4096;
/// Size of [`NAMESPACE_MODE`].
pub const NAMESPACES: u32 = 4096;
/// Default capacity of [`IPCACHE4`] and of [`IPCACHE6`].
pub const IPCACHE_CAPACITY: u32 = 131_072;
/// Default capacity of [`CIDR4`] and of [`CIDR6`].
pub const CIDR_CAPACITY: u32 = 16_384;
/// Size of [`CLASSES`]: the maximum number of identities on a node.
pub const IDENTITIES: u32 = 65_536;
/// Default capacity of [`POLICY`].
pub const POLICY_CAPACITY: u32 = 65_536;
/// Size of [`IDENTITY_EPOCH`], a power of two.
pub const EPOCHS: u32 = 4096;
/// Default capacity of [`CT4`] and of [`CT6`].
pub const CONNTRACK_CAPACITY: u32 = 131_072;
/// Default number of sets of [`CT_UNREPLIED4`] and of [`CT_UNREPLIED6`].
pub const UNREPLIED_SETS: u32 = crate::quota::unreplied_sets(CONNTRACK_CAPACITY);
/// Default capacity of [`FRAG4`] and of [`FRAG6`]. Fragments of a packet follow each other within
/// milliseconds; a flood of first fragments takes longer than that to evict a record.
pub const FRAGMENT_CAPACITY: u32 = 6144;
/// Size of [`RULE_HITS`]: the maximum number of rules on a node.
pub const RULES: u32 = 16_384;
/// Default capacity of [`DENIES`].
pub const DENIES_CAPACITY: u32 = 8192;
/// Bytes of [`EVENTS`], a power of two and a multiple of the page size.
pub const EVENTS_BYTES: u32 = 2 << 20;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::shared_layout;

/// Value of [`RULE_HITS`].
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct RuleHit {
    /// Verdicts of this rule: one per new or re-evaluated flow, one per denied packet, and one per
    /// second for every flow that it keeps alive.
    pub hits: u64,
    /// Tick-clock time of the last verdict.
    pub last: u64,
}
shared_layout!(RuleHit, size 16, hits at 0, last at 8);
