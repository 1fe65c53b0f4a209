//! Checks, before anything is written, that the desired state fits the maps.
//!
//! Invariants: the check is for the peak, when the maps hold old and new entries at once; a state
//! that does not fit changes nothing.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use ringfence_common::maps;

use super::state::State;

/// The most entries that each map can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacities {
    /// `ENDPOINTS`.
    pub endpoints: usize,
    /// `IPCACHE4` and `IPCACHE6`, each.
    pub ipcache: usize,
    /// `CIDR4` and `CIDR6`, each.
    pub cidr: usize,
    /// `POLICY`.
    pub policy: usize,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            endpoints: maps::ENDPOINTS_CAPACITY as usize,
            ipcache: maps::IPCACHE_CAPACITY as usize,
            cidr: maps::CIDR_CAPACITY as usize,
            policy: maps::POLICY_CAPACITY as usize,
        }
    }
}

/// A map too small for the desired state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "map {map} has capacity {capacity}, but publishing needs {needed}: nothing was changed; raise \
     `{key}` under [maps] in the configuration, run `ringfence cleanup` and start again, or apply \
     fewer policies"
)]
pub struct CapacityError {
    /// The map.
    pub map: &'static str,
    /// Its key in the configuration.
    pub key: &'static str,
    /// The entries it can hold.
    pub capacity: usize,
    /// The entries that old and new state need together.
    pub needed: usize,
}

/// Checks every map that can overflow.
///
/// # Errors
/// The first map that cannot hold old and new entries at once.
pub fn check(actual: &State, desired: &State, limits: &Capacities) -> Result<(), CapacityError> {
    let rows = desired.rows()
        + actual
            .tables
            .iter()
            .map(|(table, rows)| match desired.tables.get(table) {
                Some(same) if Arc::ptr_eq(same, rows) => 0,
                Some(same) => rows.keys().filter(|key| !same.contains_key(*key)).count(),
                None => rows.len(),
            })
            .sum::<usize>();
    fits(maps::POLICY, "policy", limits.policy, rows)?;
    let endpoints: BTreeSet<_> = actual
        .endpoints
        .keys()
        .chain(desired.endpoints.keys())
        .collect();
    fits(
        maps::ENDPOINTS,
        "endpoints",
        limits.endpoints,
        endpoints.len(),
    )?;
    addresses_fit(actual, desired, limits)?;
    for (v6, map) in [(false, maps::CIDR4), (true, maps::CIDR6)] {
        let prefixes: BTreeSet<&IpNet> = actual
            .prefixes
            .keys()
            .chain(desired.prefixes.keys())
            .filter(|prefix| matches!(prefix, IpNet::V6(_)) == v6)
            .collect();
        fits(map, "cidr", limits.cidr, prefixes.len())?;
    }
    Ok(())
}

fn addresses_fit(
    actual: &State,
    desired: &State,
    limits: &Capacities,
) -> Result<(), CapacityError> {
    let [mut leaving4, mut leaving6] = [0, 0];
    desired.addresses.since(&actual.addresses, |change| {
        let leaving = if change.key.is_ipv6() {
            &mut leaving6
        } else {
            &mut leaving4
        };
        *leaving += usize::from(change.new.is_none());
    });
    let lowest6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let wanted4 = desired.addresses.count_below(&lowest6);
    let wanted6 = desired.addresses.len() - wanted4;
    fits(
        maps::IPCACHE4,
        "ipcache",
        limits.ipcache,
        wanted4 + leaving4,
    )?;
    fits(
        maps::IPCACHE6,
        "ipcache",
        limits.ipcache,
        wanted6 + leaving6,
    )
}

fn fits(
    map: &'static str,
    key: &'static str,
    capacity: usize,
    needed: usize,
) -> Result<(), CapacityError> {
    if needed > capacity {
        return Err(CapacityError {
            map,
            key,
            capacity,
            needed,
        });
    }
    Ok(())
}
