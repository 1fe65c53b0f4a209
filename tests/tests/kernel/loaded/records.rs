//! Rewriting what the maps hold: older entries, and records under the key of another.
//!
//! Invariant: nothing here decides; a rewritten record has exactly the bytes that the test asked for.

use std::net::IpAddr;

use aya::Pod;
use aya::maps::{Array, HashMap, MapData};
use ringfence_common::{
    conntrack::{
        COARSE, CtEntry, CtKey4, CtKey6,
        unreplied::{CtSet4, CtSet6, WayWord},
    },
    net::{Address as _, Ip4, Ip6},
};

use super::Loaded;

/// A flow's key and entry in either family, and where the entry is.
pub(crate) enum Record<'a> {
    Assured4(&'a CtKey4, &'a mut CtEntry),
    Assured6(&'a CtKey6, &'a mut CtEntry),
    /// The way's word, its key and its entry.
    Way4(&'a mut WayWord, &'a mut CtKey4, &'a mut CtEntry),
    Way6(&'a mut WayWord, &'a mut CtKey6, &'a mut CtEntry),
}

impl Record<'_> {
    /// The workload's port.
    pub(crate) fn local_port(&self) -> u16 {
        match self {
            Self::Assured4(key, _) => key.local_port.number(),
            Self::Assured6(key, _) => key.local_port.number(),
            Self::Way4(_, key, _) => key.local_port.number(),
            Self::Way6(_, key, _) => key.local_port.number(),
        }
    }

    pub(crate) fn entry(&mut self) -> &mut CtEntry {
        match self {
            Self::Assured4(_, entry)
            | Self::Assured6(_, entry)
            | Self::Way4(_, _, entry)
            | Self::Way6(_, _, entry) => entry,
        }
    }
}

impl Loaded {
    /// Rewrites every record of conntrack.
    pub(crate) fn rewrite(&mut self, mut edit: impl FnMut(Record<'_>)) {
        rewrite_hash(&mut self.ct4, |key, entry| {
            edit(Record::Assured4(key, entry));
        });
        rewrite_hash(&mut self.ct6, |key, entry| {
            edit(Record::Assured6(key, entry));
        });
        rewrite_sets(&mut self.unreplied4, |set: &mut CtSet4| {
            for (word, way) in set.words.iter_mut().zip(&mut set.ways) {
                if word.0 != 0 {
                    edit(Record::Way4(word, &mut way.key, &mut way.entry));
                }
            }
        });
        rewrite_sets(&mut self.unreplied6, |set: &mut CtSet6| {
            for (word, way) in set.words.iter_mut().zip(&mut set.ways) {
                if word.0 != 0 {
                    edit(Record::Way6(word, &mut way.key, &mut way.entry));
                }
            }
        });
    }

    /// Makes every entry older by a number of nanoseconds.
    pub(crate) fn age_flows(&mut self, by: u64) {
        let coarse = u32::try_from(by / COARSE).unwrap();
        self.rewrite(|mut record| {
            let entry = record.entry();
            entry.expires = entry.expires.saturating_sub(by);
            entry.opener_seen = entry.opener_seen.wrapping_sub(coarse);
            if let Record::Way4(word, ..) | Record::Way6(word, ..) = record {
                let expires = (word.0 & 0xffff_ffff).saturating_sub(u64::from(coarse));
                word.0 = word.0 >> 32 << 32 | expires;
            }
        });
    }

    /// Counts another owner of the address.
    pub(crate) fn change_owner(&mut self, address: IpAddr) {
        let slot = match address {
            IpAddr::V4(address) => Ip4::from_wire(address.octets()).epoch_slot(),
            IpAddr::V6(address) => Ip6::from_wire(address.octets()).epoch_slot(),
        };
        let before = self.owners.get(&slot, 0).unwrap();
        self.owners.set(slot, before + 1, 0).unwrap();
    }
}

fn rewrite_hash<K: Pod, V: Pod + PartialEq>(
    map: &mut HashMap<MapData, K, V>,
    mut edit: impl FnMut(&K, &mut V),
) {
    let records: Vec<_> = map.iter().collect::<Result<_, _>>().unwrap();
    for (key, before) in records {
        let mut after = before;
        edit(&key, &mut after);
        if after != before {
            map.insert(key, after, 0).unwrap();
        }
    }
}

fn rewrite_sets<S: Pod + PartialEq>(map: &mut Array<MapData, S>, mut edit: impl FnMut(&mut S)) {
    for index in 0..map.len() {
        let before = map.get(&index, 0).unwrap();
        let mut after = before;
        edit(&mut after);
        if after != before {
            map.set(index, after, 0).unwrap();
        }
    }
}
