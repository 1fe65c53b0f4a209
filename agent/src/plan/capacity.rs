//! Checks, before anything is written, that the desired state fits the maps.
//!
//! Invariants: the check is for the peak, when the maps hold old and new entries at once; a state
//! that does not fit changes nothing.

use std::{
    collections::BTreeSet,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv6Net};
use ringfence_common::{ids::IdentityId, maps};

use super::state::State;
use crate::ordmap::Map;

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
    let lowest = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let [ip4, ip6] = at_once(&actual.addresses, &desired.addresses, &lowest);
    fits(maps::IPCACHE4, "ipcache", limits.ipcache, ip4)?;
    fits(maps::IPCACHE6, "ipcache", limits.ipcache, ip6)?;
    let lowest = IpNet::V6(Ipv6Net::default());
    let [net4, net6] = at_once(&actual.prefixes, &desired.prefixes, &lowest);
    fits(maps::CIDR4, "cidr", limits.cidr, net4)?;
    fits(maps::CIDR6, "cidr", limits.cidr, net6)
}

/// How many keys old and new entries have together, of IPv4 and of IPv6: those from `lowest6` on.
fn at_once<K: Ord + Hash>(
    actual: &Map<K, IdentityId>,
    desired: &Map<K, IdentityId>,
    lowest6: &K,
) -> [usize; 2] {
    let of_4 = desired.count_below(lowest6);
    let mut count = [of_4, desired.len() - of_4];
    let [ip4, ip6] = &mut count;
    desired.since(actual, |change| {
        let family = if change.key < lowest6 {
            &mut *ip4
        } else {
            &mut *ip6
        };
        *family += usize::from(change.new.is_none());
    });
    count
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
