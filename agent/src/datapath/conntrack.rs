//! The conntrack sweep: removes expired assured entries, which nothing else evicts, and corrects
//! the endpoints' usage.
//!
//! Invariants: a live entry of an endpoint is never removed; an unreplied entry is never written
//! here, because a system call replaces a whole set. `CT_USAGE_SWEEP` corrects what the kernel
//! programs count. A missed sweep costs room and never a verdict.

use std::collections::BTreeMap;

use aya::{
    Pod,
    maps::{Array, HashMap, MapData},
};
use ringfence_common::{
    conntrack::{
        CtEntry, CtKey4, CtKey6,
        unreplied::{CtSet4, CtSet6, WayWord},
    },
    ids::EndpointNumber,
    maps as names,
    quota::{Excess, Usage},
};

use super::{
    DatapathError,
    maps::{failed, open},
    pins::Pins,
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

/// Handles of the conntrack maps and the endpoints' usage.
pub struct Conntrack {
    assured4: HashMap<MapData, CtKey4, CtEntry>,
    assured6: HashMap<MapData, CtKey6, CtEntry>,
    unreplied4: Array<MapData, CtSet4>,
    unreplied6: Array<MapData, CtSet6>,
    usage: Array<MapData, Usage>,
    usage_sweep: Array<MapData, Excess>,
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
    pub(super) fn open(pins: &Pins, capacity: u32) -> Result<Self, DatapathError> {
        Ok(Self {
            assured4: open(pins, names::CT4)?,
            assured6: open(pins, names::CT6)?,
            unreplied4: open(pins, names::CT_UNREPLIED4)?,
            unreplied6: open(pins, names::CT_UNREPLIED6)?,
            usage: open(pins, names::CT_USAGE)?,
            usage_sweep: open(pins, names::CT_USAGE_SWEEP)?,
            max_visits: 2 * capacity as usize,
        })
    }

    /// Removes assured entries that have expired at `now` (tick clock) or belong to no endpoint, and
    /// writes each endpoint's usage correction.
    ///
    /// # Errors
    /// When a map cannot be walked or written; entries already removed stay removed.
    pub fn sweep(
        &mut self,
        now: u64,
        endpoints: &BTreeMap<u32, EndpointNumber>,
    ) -> Result<Sweep, DatapathError> {
        let mut count = SweepCount {
            now,
            max_visits: self.max_visits,
            live: endpoints.keys().map(|ifindex| (*ifindex, 0)).collect(),
            removed: 0,
        };
        count.walk(names::CT4, &mut self.assured4)?;
        count.walk(names::CT6, &mut self.assured6)?;
        let unreplied = self.count_unreplied()?;
        for (ifindex, number) in endpoints {
            let assured = count.live.get(ifindex).copied().unwrap_or_default();
            let unreplied = unreplied.get(number).copied().unwrap_or_default();
            self.correct(*number, unreplied, assured)?;
        }
        let assured = count.live.values().sum();
        let all = self.usage.get(&0, 0);
        let all = all.map_err(failed(names::CT_USAGE, "read a usage"))?;
        let excess = Excess {
            unreplied: 0,
            assured: all.assured.wrapping_sub(assured),
        };
        self.set_excess(EndpointNumber::NONE, excess)?;
        Ok(Sweep {
            assured,
            removed: count.removed,
        })
    }

    /// Writes by how much an endpoint's account exceeds what there is.
    fn correct(
        &mut self,
        number: EndpointNumber,
        unreplied: u64,
        assured: u64,
    ) -> Result<(), DatapathError> {
        let usage = self.usage.get(&number.0, 0);
        let usage = usage.map_err(failed(names::CT_USAGE, "read a usage"))?;
        let excess = Excess {
            unreplied: usage.unreplied.wrapping_sub(unreplied),
            assured: usage.assured.wrapping_sub(assured),
        };
        self.set_excess(number, excess)
    }

    fn set_excess(&mut self, number: EndpointNumber, excess: Excess) -> Result<(), DatapathError> {
        self.usage_sweep
            .set(number.0, excess, 0)
            .map_err(failed(names::CT_USAGE_SWEEP, "write a correction"))
    }

    /// The ways in use, by endpoint.
    fn count_unreplied(&self) -> Result<BTreeMap<EndpointNumber, u64>, DatapathError> {
        let mut counts = BTreeMap::new();
        let mut add = |words: &[WayWord]| {
            for word in words.iter().filter(|word| word.0 != 0) {
                *counts.entry(EndpointNumber(word.owner())).or_default() += 1;
            }
        };
        for set in self.unreplied4.iter() {
            add(&set.map_err(failed(names::CT_UNREPLIED4, "walk"))?.words);
        }
        for set in self.unreplied6.iter() {
            add(&set.map_err(failed(names::CT_UNREPLIED6, "walk"))?.words);
        }
        Ok(counts)
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
