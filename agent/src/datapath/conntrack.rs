//! Sweeping conntrack: proven entries that died of silence go, because nothing evicts them.
//!
//! Invariants: a live entry of an endpoint is never removed; this is the only writer of `CT_USAGE_SWEEP`, which
//! puts right what the kernel programs count. Connections that end in order are moved by the kernel programs
//! themselves, so a missing sweep costs room and never a verdict.

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
    maps::{failed, gone_is_fine, take},
};

/// The most entries that one sweep removes, which bounds its memory.
const BATCH: usize = 16_384;

/// What a sweep found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Live proven entries.
    pub assured: u64,
    /// Entries removed.
    pub removed: u64,
}

/// Handles of the proven flows.
pub struct Conntrack {
    proven4: HashMap<MapData, CtKey4, CtEntry>,
    proven6: HashMap<MapData, CtKey6, CtEntry>,
    usages: HashMap<MapData, u32, Usage>,
    swept: HashMap<MapData, u32, u64>,
    /// The most steps of a walk: while others write, a walk may begin again.
    steps: usize,
}

/// A key of either family.
trait OfEndpoint {
    fn ifindex(&self) -> u32;
}

impl OfEndpoint for CtKey4 {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

impl OfEndpoint for CtKey6 {
    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

impl Conntrack {
    pub(super) fn take(ebpf: &mut Ebpf, capacity: u32) -> Result<Self, DatapathError> {
        Ok(Self {
            proven4: take(ebpf, names::CT4)?,
            proven6: take(ebpf, names::CT6)?,
            usages: take(ebpf, names::CT_USAGE)?,
            swept: take(ebpf, names::CT_USAGE_SWEEP)?,
            steps: 2 * capacity as usize,
        })
    }

    /// Removes what is dead at a tick-clock time, and what belongs to no endpoint.
    ///
    /// # Errors
    /// When a map cannot be walked or written; what was removed until then stays removed.
    pub fn sweep(&mut self, now: u64, endpoints: &BTreeSet<u32>) -> Result<Sweep, DatapathError> {
        let mut census = Census {
            now,
            steps: self.steps,
            live: endpoints.iter().map(|ifindex| (*ifindex, 0)).collect(),
            removed: 0,
        };
        census.walk(names::CT4, &mut self.proven4)?;
        census.walk(names::CT6, &mut self.proven6)?;
        for (ifindex, live) in &census.live {
            match self.usages.get(ifindex, 0) {
                Ok(usage) => self
                    .swept
                    .insert(ifindex, usage.excess(*live), 0)
                    .map_err(failed(names::CT_USAGE_SWEEP, "write an excess"))?,
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(names::CT_USAGE, "read a usage")(error)),
            }
        }
        self.forget_strangers(endpoints)?;
        Ok(Sweep {
            assured: census.live.values().sum(),
            removed: census.removed,
        })
    }

    /// An interface number may come back, and then begins with nothing.
    fn forget_strangers(&mut self, endpoints: &BTreeSet<u32>) -> Result<(), DatapathError> {
        let strangers: Vec<u32> = self
            .usages
            .keys()
            .filter_map(Result::ok)
            .filter(|ifindex| !endpoints.contains(ifindex))
            .collect();
        for ifindex in strangers {
            gone_is_fine(self.usages.remove(&ifindex))
                .map_err(failed(names::CT_USAGE, "forget an endpoint"))?;
            gone_is_fine(self.swept.remove(&ifindex))
                .map_err(failed(names::CT_USAGE_SWEEP, "forget an endpoint"))?;
        }
        Ok(())
    }
}

/// What one sweep counts.
struct Census {
    now: u64,
    steps: usize,
    /// By interface of an endpoint.
    live: BTreeMap<u32, u64>,
    removed: u64,
}

impl Census {
    fn is_dead(&self, key: &impl OfEndpoint, entry: &CtEntry) -> bool {
        !entry.is_live(self.now) || !self.live.contains_key(&key.ifindex())
    }

    fn walk<K: Pod + OfEndpoint>(
        &mut self,
        name: &'static str,
        map: &mut HashMap<MapData, K, CtEntry>,
    ) -> Result<(), DatapathError> {
        let mut dead = Vec::new();
        for key in map.keys().take(self.steps) {
            let key = key.map_err(failed(name, "walk"))?;
            // Gone meanwhile is gone.
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
            // It may have been replaced since by a connection between the same ports.
            let still = map.get(&key, 0);
            if still.is_ok_and(|entry| self.is_dead(&key, &entry)) && map.remove(&key).is_ok() {
                self.removed += 1;
            }
        }
        Ok(())
    }
}
