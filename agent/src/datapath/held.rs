//! The numbers that conntrack and deny aggregates hold, and the mark of table numbers.
//!
//! An entry or an aggregate may refer to a rule or an identity long after policy does, so such a
//! number must not get another meaning while one does. Invariants: every map that is adopted from
//! an earlier run is walked; an entry that exists throughout the walk is seen, because the kernel
//! returns whole buckets of a hash (`__htab_map_lookup_and_delete_batch`), also if it moves between the
//! maps meanwhile. Which numbers are free is decided elsewhere.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use aya::{
    Pod,
    maps::{Array, HashMap, IterableMap, MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use ringfence_common::{
    conntrack::{
        CtEntry, CtKey4, CtKey6,
        unreplied::{CtSet4, CtSet6},
    },
    deny_aggregate::{DenyCount, DenyKey},
    ids::{IdentityId, RuleSlot, TableId},
    maps::{self as names, RuleHit},
    net::Address as _,
};

use super::{
    DatapathError, Pins, batch,
    maps::{failed, ignore_missing, open},
};

/// Numbers that entries of the kernel programs refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldNumbers {
    /// Peers of conntrack entries.
    pub identities: HashSet<IdentityId>,
    /// Rules that decided about conntrack entries.
    pub rules: HashSet<RuleSlot>,
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
    unreplied4: Array<MapData, CtSet4>,
    unreplied6: Array<MapData, CtSet6>,
    denies: HashMap<MapData, DenyKey, DenyCount>,
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
    pub(super) fn walk(&self, in_force: Result<InForce, DatapathError>) -> HeldWalk {
        let entries = Arc::clone(&self.entries);
        Box::new(move || {
            let in_force = in_force?;
            entries.held(&|ifindex, slot, entry| in_force.uses(ifindex, slot, entry))
        })
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

/// What decides whether an entry is used as it is.
pub(super) struct InForce {
    /// The tick clock.
    pub(super) now: u64,
    /// The table of each endpoint, by interface.
    pub(super) tables: BTreeMap<u32, TableId>,
    /// Every epoch.
    pub(super) epochs: Vec<u32>,
}

impl InForce {
    /// Whether a program may use the entry without evaluating it again. An expired entry, one of an
    /// interface without an endpoint and one with another table or epoch hold nothing: what they
    /// refer to is written again before it is used. `slot` is the epoch slot of the peer.
    fn uses(&self, ifindex: u32, slot: u32, entry: &CtEntry) -> bool {
        entry.is_live(self.now)
            && self.tables.get(&ifindex) == Some(&entry.table)
            && self.epochs.get(slot as usize) == Some(&entry.epoch)
    }
}

/// Whether an entry of this interface and of this epoch slot is in use.
type InUse<'a> = &'a dyn Fn(u32, u32, &CtEntry) -> bool;

impl EntryMaps {
    fn held(&self, in_use: InUse<'_>) -> Result<HeldNumbers, DatapathError> {
        let mut held = HeldNumbers::default();
        // An entry may move between the tables in either direction meanwhile: it is written to its
        // new place before it is removed from the old one, so one of three walks finds it.
        self.add_unreplied(&mut held, in_use)?;
        walk(&self.assured4, names::CT4, &mut |key, entry| {
            held.add(key.ifindex, key.peer.epoch_slot(), entry, in_use);
        })?;
        walk(&self.assured6, names::CT6, &mut |key, entry| {
            held.add(key.ifindex, key.peer.epoch_slot(), entry, in_use);
        })?;
        self.add_unreplied(&mut held, in_use)?;
        walk(&self.denies, names::DENIES, &mut |key, _| {
            held.denying.insert(key.rule);
        })?;
        Ok(held)
    }

    fn add_unreplied(
        &self,
        held: &mut HeldNumbers,
        in_use: InUse<'_>,
    ) -> Result<(), DatapathError> {
        walk(&self.unreplied4, names::CT_UNREPLIED4, &mut |_, set| {
            for way in &set.ways {
                held.add(
                    way.key.ifindex,
                    way.key.peer.epoch_slot(),
                    &way.entry,
                    in_use,
                );
            }
        })?;
        walk(&self.unreplied6, names::CT_UNREPLIED6, &mut |_, set| {
            for way in &set.ways {
                held.add(
                    way.key.ifindex,
                    way.key.peer.epoch_slot(),
                    &way.entry,
                    in_use,
                );
            }
        })
    }
}

impl HeldNumbers {
    fn add(&mut self, ifindex: u32, slot: u32, entry: &CtEntry, in_use: InUse<'_>) {
        if in_use(ifindex, slot, entry) {
            self.identities.insert(entry.peer());
            self.rules.extend([entry.rule(), entry.reverse_rule()]);
        }
    }
}

/// Visits every entry of a map.
fn walk<K: Pod, V: Pod>(
    map: &impl IterableMap<K, V>,
    name: &'static str,
    each: &mut dyn FnMut(&K, &V),
) -> Result<(), DatapathError> {
    batch::lookup(map, each).map_err(failed(name, "walk"))
}
