//! The conntrack sweep: removes expired assured entries, which nothing else evicts, and corrects
//! the endpoints' usage.
//!
//! Invariants: a live entry of an endpoint is never removed; this is the only writer of
//! `CT_USAGE_SWEEP`, which corrects what the kernel programs count. The programs themselves move
//! connections that close properly to the unreplied maps, so a missed sweep costs room and never a
//! verdict.

use std::collections::{BTreeMap, BTreeSet};

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData, MapError},
};
use ringfence_common::{
    conntrack::{CtEntry, CtKey4, CtKey6},
    maps as names,
    quota::Usage,
};

use super::{
    DatapathError,
    maps::{failed, ignore_missing, take},
};

/// The most entries that one sweep removes, which bounds its memory.
const BATCH: usize = 16_384;

/// The result of a sweep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Live assured entries.
    pub assured: u64,
    /// Entries removed.
    pub removed: u64,
}

/// Handles of the assured entries and the endpoints' usage.
pub struct Conntrack {
    assured4: HashMap<MapData, CtKey4, CtEntry>,
    assured6: HashMap<MapData, CtKey6, CtEntry>,
    usage: HashMap<MapData, u32, Usage>,
    usage_sweep: HashMap<MapData, u32, u64>,
    /// The most keys that one walk visits: concurrent writes can make a walk start over.
    max_visits: usize,
}

/// A conntrack key of either family.
trait ConntrackKey {
    fn ifindex(&self) -> u32;
}

impl ConntrackKey for CtKey4 {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

impl ConntrackKey for CtKey6 {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

impl Conntrack {
    pub(super) fn take(ebpf: &mut Ebpf, capacity: u32) -> Result<Self, DatapathError> {
        Ok(Self {
            assured4: take(ebpf, names::CT4)?,
            assured6: take(ebpf, names::CT6)?,
            usage: take(ebpf, names::CT_USAGE)?,
            usage_sweep: take(ebpf, names::CT_USAGE_SWEEP)?,
            max_visits: 2 * capacity as usize,
        })
    }

    /// Removes entries that have expired at `now` (tick clock) or belong to no endpoint, and writes
    /// each endpoint's usage correction.
    ///
    /// # Errors
    /// When a map cannot be walked or written; entries already removed stay removed.
    pub fn sweep(&mut self, now: u64, endpoints: &BTreeSet<u32>) -> Result<Sweep, DatapathError> {
        let mut count = SweepCount {
            now,
            max_visits: self.max_visits,
            live: endpoints.iter().map(|ifindex| (*ifindex, 0)).collect(),
            removed: 0,
        };
        count.walk(names::CT4, &mut self.assured4)?;
        count.walk(names::CT6, &mut self.assured6)?;
        for (ifindex, live) in &count.live {
            match self.usage.get(ifindex, 0) {
                Ok(usage) => self
                    .usage_sweep
                    .insert(ifindex, usage.excess(*live), 0)
                    .map_err(failed(names::CT_USAGE_SWEEP, "write a correction"))?,
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(names::CT_USAGE, "read a usage")(error)),
            }
        }
        self.remove_other_usage(endpoints)?;
        Ok(Sweep {
            assured: count.live.values().sum(),
            removed: count.removed,
        })
    }

    /// Removes the usage of interfaces that are no endpoints: if an interface number is reused, its
    /// usage must start at zero.
    fn remove_other_usage(&mut self, endpoints: &BTreeSet<u32>) -> Result<(), DatapathError> {
        let others: Vec<u32> = self
            .usage
            .keys()
            .filter_map(Result::ok)
            .filter(|ifindex| !endpoints.contains(ifindex))
            .collect();
        for ifindex in others {
            ignore_missing(self.usage.remove(&ifindex))
                .map_err(failed(names::CT_USAGE, "remove an endpoint"))?;
            ignore_missing(self.usage_sweep.remove(&ifindex))
                .map_err(failed(names::CT_USAGE_SWEEP, "remove an endpoint"))?;
        }
        Ok(())
    }
}

/// The counts of one sweep.
struct SweepCount {
    now: u64,
    max_visits: usize,
    /// Live entries by endpoint interface.
    live: BTreeMap<u32, u64>,
    removed: u64,
}

impl SweepCount {
    fn is_dead(&self, key: &impl ConntrackKey, entry: &CtEntry) -> bool {
        !entry.is_live(self.now) || !self.live.contains_key(&key.ifindex())
    }

    fn walk<K: Pod + ConntrackKey>(
        &mut self,
        name: &'static str,
        map: &mut HashMap<MapData, K, CtEntry>,
    ) -> Result<(), DatapathError> {
        let mut dead = Vec::new();
        for key in map.keys().take(self.max_visits) {
            let key = key.map_err(failed(name, "walk"))?;
            // The entry may have been removed since.
            let Ok(entry) = map.get(&key, 0) else {
                continue;
            };
            if !self.is_dead(&key, &entry) {
                *self.live.entry(key.ifindex()).or_default() += 1;
            } else if dead.len() < BATCH {
                dead.push(key);
            }
        }
        for key in dead {
            // A new connection with the same addresses and ports may have replaced it since.
            let still = map.get(&key, 0);
            if still.is_ok_and(|entry| self.is_dead(&key, &entry)) && map.remove(&key).is_ok() {
                self.removed += 1;
            }
        }
        Ok(())
    }
}
