//! How many entries each map has.
//!
//! Invariant: a pinned map with another capacity is refused, never resized silently.

use aya::maps::MapInfo;
use ringfence_common::{
    endpoint::{MAX_IP6, RECORDS},
    maps as names,
    quota::unreplied_sets,
};

use super::{DatapathError, LoadOptions, pins::Pins};

/// Refuses pinned maps with other capacities than those configured.
pub(super) fn check_pinned(pins: &Pins, options: &LoadOptions) -> Result<(), DatapathError> {
    for (map, wanted) in capacities(options) {
        let Ok(info) = MapInfo::from_pin(pins.map(map)) else {
            continue;
        };
        let found = info.max_entries();
        if found != wanted {
            return Err(DatapathError::PinnedCapacity { map, found, wanted });
        }
    }
    Ok(())
}

#[allow(clippy::cast_possible_truncation, reason = "two")]
const ADDRESSES: u32 = MAX_IP6 as u32;

/// The capacity of every map whose capacity an index type does not fix.
pub(super) fn capacities(options: &LoadOptions) -> Vec<(&'static str, u32)> {
    let sets = unreplied_sets(capacity_of(names::CT4, options));
    let endpoints = capacity_of(names::ENDPOINTS, options) + 1;
    let derived = [
        (names::ENDPOINTS, endpoints * RECORDS),
        (names::CT_UNREPLIED4, sets),
        (names::CT_UNREPLIED6, sets),
        (names::CT_USAGE, endpoints),
        (names::CT_USAGE_SWEEP, endpoints),
        (names::REJECT_LIMITS, endpoints),
        (names::DISCOVERY_LIMITS, endpoints),
        (names::DHCP_REQUESTS, endpoints),
        (names::OWN_ADDRESSES6, (endpoints - 1) * ADDRESSES),
        (names::PICKUP, endpoints),
    ];
    let own_size = |map: &&(&str, u32)| map.0 != names::ENDPOINTS;
    let configurable = DEFAULTS.iter().filter(own_size);
    let configurable = configurable.map(|(map, _)| (*map, capacity_of(map, options)));
    derived.into_iter().chain(configurable).collect()
}

/// The configured capacity, or the default.
pub(super) fn capacity_of(map: &str, options: &LoadOptions) -> u32 {
    let configured = options.capacities.iter().find(|(name, _)| *name == map);
    let default = DEFAULTS.iter().find(|(name, _)| *name == map);
    configured.or(default).map_or(1, |(_, capacity)| *capacity)
}

/// The maps whose capacity can be configured, with their defaults.
const DEFAULTS: [(&str, u32); 11] = [
    (names::ENDPOINTS, names::ENDPOINTS_CAPACITY),
    (names::IPCACHE4, names::IPCACHE_CAPACITY),
    (names::IPCACHE6, names::IPCACHE_CAPACITY),
    (names::CIDR4, names::CIDR_CAPACITY),
    (names::CIDR6, names::CIDR_CAPACITY),
    (names::POLICY, names::POLICY_CAPACITY),
    (names::CT4, names::CONNTRACK_CAPACITY),
    (names::CT6, names::CONNTRACK_CAPACITY),
    (names::FRAG4, names::FRAGMENT_CAPACITY),
    (names::FRAG6, names::FRAGMENT_CAPACITY),
    (names::DENIES, names::DENIES_CAPACITY),
];
