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
    fragment::{FragmentKey4, FragmentKey6},
    net::{Address as _, Ip4, Ip6, Port},
};

use super::Loaded;

/// An entry of conntrack with the workload's port of its key.
pub(crate) enum Record<'a> {
    /// In `CT4` or `CT6`.
    Assured(u16, &'a mut CtEntry),
    /// In the unreplied tables, with the word of its way.
    Way(u16, &'a mut WayWord, &'a mut CtEntry),
}

impl Record<'_> {
    /// The workload's port.
    pub(crate) const fn port(&self) -> u16 {
        match self {
            Self::Assured(port, _) | Self::Way(port, ..) => *port,
        }
    }

    pub(crate) fn entry(&mut self) -> &mut CtEntry {
        match self {
            Self::Assured(_, entry) | Self::Way(_, _, entry) => entry,
        }
    }
}

impl Loaded {
    /// Rewrites every record of conntrack.
    pub(crate) fn rewrite(&mut self, mut edit: impl FnMut(Record<'_>)) {
        rewrite_hash(&mut self.ct4, |key, entry| {
            edit(Record::Assured(key.local_port.number(), entry));
        });
        rewrite_hash(&mut self.ct6, |key, entry| {
            edit(Record::Assured(key.local_port.number(), entry));
        });
        rewrite_sets(&mut self.unreplied4, |set: &mut CtSet4| {
            for (word, way) in set.words.iter_mut().zip(&mut set.ways) {
                if word.0 != 0 {
                    let port = way.key.local_port.number();
                    edit(Record::Way(port, word, &mut way.entry));
                }
            }
        });
        rewrite_sets(&mut self.unreplied6, |set: &mut CtSet6| {
            for (word, way) in set.words.iter_mut().zip(&mut set.ways) {
                if word.0 != 0 {
                    let port = way.key.local_port.number();
                    edit(Record::Way(port, word, &mut way.entry));
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
            entry.originator_seen = entry.originator_seen.wrapping_sub(coarse);
            if let Record::Way(_, word, _) = record {
                let expires = (word.0 & 0xffff_ffff).saturating_sub(u64::from(coarse));
                word.0 = word.0 >> 32 << 32 | expires;
            }
        });
    }

    /// Copies every assured entry under the key with this port of the peer.
    pub(crate) fn copy_assured(&mut self, peer_port: u16) {
        let peer_port = Port::new(peer_port);
        copy_records(&mut self.ct4, |key| CtKey4 { peer_port, ..key });
        copy_records(&mut self.ct6, |key| CtKey6 { peer_port, ..key });
    }

    /// Copies every fragment record under another identification.
    pub(crate) fn copy_fragments(&mut self, id: u32) {
        copy_records(&mut self.fragments4, |key| FragmentKey4 { id, ..key });
        copy_records(&mut self.fragments6, |key| FragmentKey6 { id, ..key });
    }

    /// Stores the ipcache value of one address under another.
    pub(crate) fn misplace_identity(&mut self, of: IpAddr, under: IpAddr) {
        match (of, under) {
            (IpAddr::V4(of), IpAddr::V4(under)) => {
                let [of, under] = [of, under].map(|ip| Ip4::from_wire(ip.octets()));
                let value = self.ipcache4.get(&of, 0).unwrap();
                self.ipcache4.insert(under, value, 0).unwrap();
            }
            (IpAddr::V6(of), IpAddr::V6(under)) => {
                let [of, under] = [of, under].map(|ip| Ip6::from_wire(ip.octets()));
                let value = self.ipcache6.get(&of, 0).unwrap();
                self.ipcache6.insert(under, value, 0).unwrap();
            }
            _ => panic!("{of} and {under} are of two families"),
        }
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

fn copy_records<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, other: impl Fn(K) -> K) {
    let records: Vec<_> = map.iter().collect::<Result<_, _>>().unwrap();
    for (key, value) in records {
        map.insert(other(key), value, 0).unwrap();
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
