//! `OWN_ADDRESSES6`: an index of the IPv6 addresses in `ENDPOINTS`, for discovery between endpoints of
//! this node.
//!
//! Invariants: an address is in the map as long as a record in force has it, and an opened index is made
//! equal to the records first. Nothing but the destination of discovery messages depends on it.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{HashMap, MapData};
use ringfence_common::{
    endpoint::Endpoint,
    maps as names,
    net::{Address as _, Ip6},
};

use super::{
    DatapathError,
    maps::{failed, open},
    pins::Pins,
};

/// The map, and how many records have each address.
pub(super) struct OwnAddresses {
    map: HashMap<MapData, Ip6, u32>,
    records: BTreeMap<[u8; 16], u32>,
}

impl OwnAddresses {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            map: open(pins, names::OWN_ADDRESSES6)?,
            records: BTreeMap::new(),
        })
    }

    /// Makes the map hold the addresses of these records and no others.
    pub(super) fn adopt(&mut self, records: &BTreeMap<u32, Endpoint>) -> Result<(), DatapathError> {
        for (ifindex, record) in records {
            self.add(*ifindex, record)?;
        }
        let held: Result<BTreeSet<_>, _> = self
            .map
            .keys()
            .map(|address| address.map(Ip6::to_wire))
            .collect();
        let held = held.map_err(failed(names::OWN_ADDRESSES6, "walk"))?;
        for address in held {
            if !self.records.contains_key(&address) {
                self.remove_address(address)?;
            }
        }
        Ok(())
    }

    /// Adds the addresses of a record that is to be in force.
    pub(super) fn add(&mut self, ifindex: u32, record: &Endpoint) -> Result<(), DatapathError> {
        for address in addresses(record) {
            let records = self.records.entry(address).or_default();
            *records += 1;
            if *records == 1 {
                self.map
                    .insert(Ip6::from_wire(address), ifindex, 0)
                    .map_err(failed(names::OWN_ADDRESSES6, "write"))?;
            }
        }
        Ok(())
    }

    /// Takes out the addresses of a record that is in force no longer.
    pub(super) fn remove(&mut self, record: &Endpoint) -> Result<(), DatapathError> {
        for address in addresses(record) {
            match self.records.get_mut(&address) {
                Some(records) if *records > 1 => *records -= 1,
                _ => {
                    self.records.remove(&address);
                    self.remove_address(address)?;
                }
            }
        }
        Ok(())
    }

    fn remove_address(&mut self, address: [u8; 16]) -> Result<(), DatapathError> {
        match self.map.remove(&Ip6::from_wire(address)) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(failed(names::OWN_ADDRESSES6, "delete")(error)),
        }
    }
}

/// The IPv6 addresses of a record, each once.
fn addresses(record: &Endpoint) -> BTreeSet<[u8; 16]> {
    let used = |address: &&Ip6| **address != Ip6::UNSPECIFIED;
    let addresses = record.ip6.iter().filter(used);
    addresses.map(|address| address.to_wire()).collect()
}
