//! Endpoint records: `ENDPOINT_SLOTS` and `ENDPOINTS`.
//!
//! Invariants: a record is written only while no slot refers to it and no program that found it in a
//! slot is still running; one store of four bytes puts it in force. An interface keeps its position
//! and its endpoint number for as long as it has an endpoint. A number is given to another endpoint
//! as late as possible, so that little of its conntrack entries is left by then.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{Array, MapData};
use ringfence_common::{
    endpoint::{Endpoint, PROBES, RECORDS, RecordSlot, position},
    ids::EndpointNumber,
    maps as names,
    quota::{Excess, Share, Usage},
};

use super::{
    DatapathError,
    maps::{failed, open},
    own_addresses::OwnAddresses,
    pins::Pins,
    rcu,
};

/// Where an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    position: u32,
    slot: RecordSlot,
}

/// Handles of both maps and of what belongs to an endpoint's number, and what is in force.
pub(super) struct Endpoints {
    slots: Array<MapData, u32>,
    records: Array<MapData, Endpoint>,
    usage: Array<MapData, Usage>,
    sweep: Array<MapData, Excess>,
    share: Array<MapData, Share>,
    addresses: OwnAddresses,
    conntrack_capacity: u32,
    places: BTreeMap<u32, Place>,
    numbers: BTreeSet<EndpointNumber>,
    /// The number given last.
    last: EndpointNumber,
    /// Records that a program may still be reading.
    retired: BTreeSet<RecordSlot>,
    /// Interfaces that had an endpoint and have none.
    former: BTreeSet<u32>,
    capacity: u32,
}

impl Endpoints {
    pub(super) fn open(pins: &Pins, conntrack_capacity: u32) -> Result<Self, DatapathError> {
        let records: Array<_, Endpoint> = open(pins, names::ENDPOINTS)?;
        let mut endpoints = Self {
            slots: open(pins, names::ENDPOINT_SLOTS)?,
            capacity: records.len() / RECORDS - 1,
            records,
            usage: open(pins, names::CT_USAGE)?,
            sweep: open(pins, names::CT_USAGE_SWEEP)?,
            share: open(pins, names::CT_SHARE)?,
            addresses: OwnAddresses::open(pins)?,
            conntrack_capacity,
            places: BTreeMap::new(),
            numbers: BTreeSet::new(),
            last: EndpointNumber::NONE,
            retired: BTreeSet::new(),
            former: BTreeSet::new(),
        };
        endpoints.adopt()?;
        let records = endpoints.read()?;
        endpoints.addresses.adopt(&records)?;
        endpoints.set_share()?;
        Ok(endpoints)
    }

    /// Finds the endpoints that are in force: those whose record a slot refers to.
    fn adopt(&mut self) -> Result<(), DatapathError> {
        for slot in (RECORDS..self.records.len()).map(RecordSlot) {
            let record = self.record(slot)?;
            if record.ifindex == 0 {
                continue;
            }
            self.former.insert(record.ifindex);
            // A writer that died may have left a record that was in force a moment ago.
            self.retired.insert(slot);
            for probe in 0..PROBES {
                let position = position(record.ifindex, probe);
                let in_force = self.slots.get(&position, 0);
                if in_force.map_err(failed(names::ENDPOINT_SLOTS, "read a slot"))? == slot.0 {
                    self.places.insert(record.ifindex, Place { position, slot });
                    self.numbers.insert(slot.number());
                    self.last = self.last.max(slot.number());
                }
            }
        }
        let places = &self.places;
        self.former.retain(|ifindex| !places.contains_key(ifindex));
        Ok(())
    }

    /// Whether the interface has no endpoint and had one before: conntrack may still have its entries,
    /// with numbers that mean something else by now.
    pub(super) fn is_former(&self, ifindex: u32) -> bool {
        self.former.contains(&ifindex)
    }

    /// The most endpoints.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// The number of each endpoint, by interface.
    pub(super) fn numbers(&self) -> BTreeMap<u32, EndpointNumber> {
        let places = self.places.iter();
        places
            .map(|(ifindex, place)| (*ifindex, place.slot.number()))
            .collect()
    }

    /// Every record in force, by interface.
    pub(super) fn read(&self) -> Result<BTreeMap<u32, Endpoint>, DatapathError> {
        let places = self.places.iter();
        places
            .map(|(ifindex, place)| Ok((*ifindex, self.record(place.slot)?)))
            .collect()
    }

    /// Whether this record, and no other, is in force for the interface.
    pub(super) fn holds(&self, ifindex: u32, endpoint: &Endpoint) -> Result<bool, DatapathError> {
        let Some(place) = self.places.get(&ifindex) else {
            return Ok(false);
        };
        let slot = self.slots.get(&place.position, 0);
        let slot = slot.map_err(failed(names::ENDPOINT_SLOTS, "read a slot"))?;
        let wanted = Endpoint {
            ifindex,
            ..*endpoint
        };
        Ok(slot == place.slot.0 && self.record(place.slot)? == wanted)
    }

    fn record(&self, slot: RecordSlot) -> Result<Endpoint, DatapathError> {
        let record = self.records.get(&slot.0, 0);
        record.map_err(failed(names::ENDPOINTS, "read a record"))
    }

    /// Puts a record in force.
    pub(super) fn put(&mut self, ifindex: u32, endpoint: &Endpoint) -> Result<(), DatapathError> {
        let record = Endpoint {
            ifindex,
            ..*endpoint
        };
        let place = match self.places.get(&ifindex) {
            Some(Place { position, slot }) => Place {
                position: *position,
                slot: RecordSlot::of(slot.number(), slot.record() + 1),
            },
            None => self.new_place(ifindex)?,
        };
        if self.retired.contains(&place.slot) {
            rcu::synchronize();
            self.retired.clear();
        }
        self.records
            .set(place.slot.0, record, 0)
            .map_err(failed(names::ENDPOINTS, "write a record"))?;
        self.addresses.add(ifindex, &record)?;
        self.set_slot(place.position, place.slot)?;
        self.numbers.insert(place.slot.number());
        self.former.remove(&ifindex);
        match self.places.insert(ifindex, place) {
            Some(before) => {
                self.retired.insert(before.slot);
                let before = self.record(before.slot)?;
                self.addresses.remove(&before)
            }
            None => self.set_share(),
        }
    }

    /// Takes an endpoint out of force; no error if there is none.
    pub(super) fn remove(&mut self, ifindex: u32) -> Result<(), DatapathError> {
        let Some(place) = self.places.get(&ifindex).copied() else {
            return Ok(());
        };
        self.set_slot(place.position, RecordSlot::default())?;
        self.places.remove(&ifindex);
        self.former.insert(ifindex);
        self.numbers.remove(&place.slot.number());
        self.retired.insert(place.slot);
        let before = self.record(place.slot)?;
        self.addresses.remove(&before)?;
        self.give_up_entries(place.slot.number())?;
        self.set_share()
    }

    fn set_slot(&mut self, position: u32, slot: RecordSlot) -> Result<(), DatapathError> {
        self.slots
            .set(position, slot.0, 0)
            .map_err(failed(names::ENDPOINT_SLOTS, "write a slot"))
    }

    fn new_place(&mut self, ifindex: u32) -> Result<Place, DatapathError> {
        let refused = |reason: &str| DatapathError::Map {
            map: names::ENDPOINTS,
            operation: "add an endpoint",
            reason: reason.to_owned(),
        };
        let taken: BTreeSet<u32> = self.places.values().map(|place| place.position).collect();
        let position = (0..PROBES)
            .map(|probe| position(ifindex, probe))
            .find(|position| !taken.contains(position))
            .ok_or_else(|| refused("too many interfaces whose index differs by 65536"))?;
        let after = (self.last.0 + 1..=self.capacity).chain(1..=self.last.0);
        let number = after
            .map(EndpointNumber)
            .find(|number| !self.numbers.contains(number))
            .ok_or_else(|| refused("the map is full; raise `endpoints` under [maps]"))?;
        self.last = number;
        self.take_over_entries(number)?;
        Ok(Place {
            position,
            slot: RecordSlot::of(number, 0),
        })
    }

    /// Makes the entries of an endpoint that is gone count as over its share, so that others replace them.
    fn give_up_entries(&mut self, number: EndpointNumber) -> Result<(), DatapathError> {
        let counted = self.counted(number)?;
        let excess = Excess {
            unreplied: counted.unreplied.wrapping_sub(u64::from(u32::MAX)),
            assured: 0,
        };
        self.set_excess(number, excess)
    }

    /// Starts the account of a new endpoint: what its predecessor left is not its own.
    fn take_over_entries(&mut self, number: EndpointNumber) -> Result<(), DatapathError> {
        let counted = self.counted(number)?;
        let excess = Excess {
            unreplied: counted.unreplied,
            assured: counted.assured,
        };
        self.set_excess(number, excess)
    }

    fn counted(&self, number: EndpointNumber) -> Result<Usage, DatapathError> {
        let usage = self.usage.get(&number.0, 0);
        usage.map_err(failed(names::CT_USAGE, "read a usage"))
    }

    fn set_excess(&mut self, number: EndpointNumber, excess: Excess) -> Result<(), DatapathError> {
        self.sweep
            .set(number.0, excess, 0)
            .map_err(failed(names::CT_USAGE_SWEEP, "write a correction"))
    }

    /// Writes each endpoint's share for the present number of endpoints.
    fn set_share(&mut self) -> Result<(), DatapathError> {
        let endpoints = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        let share = Share::of(self.conntrack_capacity, endpoints);
        self.share
            .set(0, share, 0)
            .map_err(failed(names::CT_SHARE, "write the share"))
    }
}
