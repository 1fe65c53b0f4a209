//! The numbers that conntrack and deny aggregates hold, and the mark of table numbers.
//!
//! An entry or an aggregate may refer to a rule or an identity long after policy does, so such a
//! number must not get another meaning while one does. Invariants: every map that is adopted from
//! an earlier run is walked; an entry that exists throughout the walk is seen, because the kernel
//! returns whole buckets of a hash (`__htab_map_lookup_and_delete_batch`). An entry that moves
//! between the maps meanwhile is re-evaluated before, and then holds numbers that are in use. Which
//! numbers are free is decided elsewhere.

use std::{collections::HashSet, sync::Arc};

use aya::{
    Pod,
    maps::{Array, HashMap, IterableMap, Map, MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use ringfence_common::{
    conntrack::{CtEntry, CtKey4, CtKey6},
    deny_aggregate::{DenyCount, DenyKey},
    ids::{IdentityId, RuleSlot, TableId},
    maps::{self as names, RuleHit},
};

use super::{
    DatapathError, Pins, batch,
    maps::{failed, ignore_missing},
};

/// Numbers that entries of the kernel programs refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldNumbers {
    /// Peers of conntrack entries.
    pub identities: HashSet<IdentityId>,
    /// Rules that decided about conntrack entries.
    pub rules: HashSet<RuleSlot>,
    /// Tables that decided about conntrack entries.
    pub tables: HashSet<TableId>,
    /// Rules of deny aggregates.
    pub denying: HashSet<RuleSlot>,
}

/// A walk of all entries, for any thread: two full maps of 131,072 entries take about a tenth of a
/// second.
pub type HeldWalk = Box<dyn FnOnce() -> Result<HeldNumbers, DatapathError> + Send>;

/// Handles of their own, because other parts of the agent own those of the loaded object.
pub(super) struct HoldingMaps {
    entries: Arc<EntryMaps>,
    denies: HashMap<MapData, DenyKey, DenyCount>,
    hits: PerCpuArray<MapData, RuleHit>,
    table_numbers: Array<MapData, u64>,
}

struct EntryMaps {
    assured4: HashMap<MapData, CtKey4, CtEntry>,
    assured6: HashMap<MapData, CtKey6, CtEntry>,
    unreplied4: HashMap<MapData, CtKey4, CtEntry>,
    unreplied6: HashMap<MapData, CtKey6, CtEntry>,
    denies: HashMap<MapData, DenyKey, DenyCount>,
}

fn open<T: TryFrom<Map, Error = MapError>>(
    pins: &Pins,
    name: &'static str,
) -> Result<T, DatapathError> {
    let data = MapData::from_pin(pins.map(name)).map_err(failed(name, "open"))?;
    let map = Map::from_map_data(data).map_err(failed(name, "open"))?;
    T::try_from(map).map_err(failed(name, "open"))
}

impl HoldingMaps {
    /// Opens the maps by their pins, which loading the object has made.
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let entries = EntryMaps {
            assured4: open(pins, names::CT4)?,
            assured6: open(pins, names::CT6)?,
            unreplied4: open(pins, names::CT_UNREPLIED4)?,
            unreplied6: open(pins, names::CT_UNREPLIED6)?,
            denies: open(pins, names::DENIES)?,
        };
        Ok(Self {
            entries: Arc::new(entries),
            denies: open(pins, names::DENIES)?,
            hits: open(pins, names::RULE_HITS)?,
            table_numbers: open(pins, names::TABLE_NUMBERS)?,
        })
    }

    /// A walk that begins when it is called.
    pub(super) fn walk(&self) -> HeldWalk {
        let entries = Arc::clone(&self.entries);
        Box::new(move || entries.held())
    }

    /// Removes the deny aggregates of these rules, and sets their hits to zero.
    pub(super) fn clear_rules(&mut self, rules: &HashSet<RuleSlot>) -> Result<(), DatapathError> {
        if rules.is_empty() {
            return Ok(());
        }
        let mut aggregates = Vec::new();
        walk(&self.denies, names::DENIES, &mut |key, _| {
            if rules.contains(&key.rule) {
                aggregates.push(*key);
            }
        })?;
        for key in aggregates {
            ignore_missing(self.denies.remove(&key))
                .map_err(failed(names::DENIES, "remove an aggregate"))?;
        }
        let cpus = nr_cpus().map_err(|(_, error)| failed(names::RULE_HITS, "count CPUs")(error))?;
        for rule in rules {
            PerCpuValues::try_from(vec![RuleHit::default(); cpus])
                .map_err(MapError::from)
                .and_then(|none| self.hits.set(rule.0, none, 0))
                .map_err(failed(names::RULE_HITS, "clear a rule"))?;
        }
        Ok(())
    }

    /// The mark of table numbers; `None` if it was never written.
    pub(super) fn table_mark(&self) -> Result<Option<u32>, DatapathError> {
        let mark = self.table_numbers.get(&0, 0);
        let mark = mark.map_err(failed(names::TABLE_NUMBERS, "read the mark"))?;
        Ok((mark > 0).then(|| u32::try_from(mark).unwrap_or(u32::MAX)))
    }

    pub(super) fn set_table_mark(&mut self, mark: u32) -> Result<(), DatapathError> {
        self.table_numbers
            .set(0, u64::from(mark), 0)
            .map_err(failed(names::TABLE_NUMBERS, "write the mark"))
    }
}

impl EntryMaps {
    fn held(&self) -> Result<HeldNumbers, DatapathError> {
        let mut held = HeldNumbers::default();
        // New entries are in the unreplied maps first, so these are walked first.
        held.add_entries(&self.unreplied4, names::CT_UNREPLIED4)?;
        held.add_entries(&self.unreplied6, names::CT_UNREPLIED6)?;
        held.add_entries(&self.assured4, names::CT4)?;
        held.add_entries(&self.assured6, names::CT6)?;
        walk(&self.denies, names::DENIES, &mut |key, _| {
            held.denying.insert(key.rule);
        })?;
        Ok(held)
    }
}

impl HeldNumbers {
    fn add_entries<K: Pod>(
        &mut self,
        map: &impl IterableMap<K, CtEntry>,
        name: &'static str,
    ) -> Result<(), DatapathError> {
        walk(map, name, &mut |_, entry| {
            self.identities.insert(entry.peer);
            self.rules.insert(entry.rule);
            self.tables.insert(entry.table);
        })
    }
}

/// Visits every entry of a hash.
fn walk<K: Pod, V: Pod>(
    map: &impl IterableMap<K, V>,
    name: &'static str,
    each: &mut dyn FnMut(&K, &V),
) -> Result<(), DatapathError> {
    batch::lookup(map, each).map_err(failed(name, "walk"))
}
