//! `IDENTITY_EPOCH`: a new epoch of an address makes the kernel re-evaluate the address's flows.
//! `OWNERS`: a new owner of an address is not bound by what its former owner opened.
//!
//! Invariant: there is only one writer, so epochs are read once and tracked from then on.

use std::net::IpAddr;

use aya::maps::{Array, MapData};
use ringfence_common::{
    maps as names,
    net::{Address as _, Ip4, Ip6},
};

use super::{
    DatapathError, batch,
    maps::{failed, open},
    pins::Pins,
};

/// The map and a copy of its content.
pub(super) struct Epochs {
    map: Array<MapData, u32>,
    current: Vec<u32>,
    owners: Array<MapData, u32>,
}

impl Epochs {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let map: Array<_, u32> = open(pins, names::IDENTITY_EPOCH)?;
        let current = map.iter().collect::<Result<_, _>>();
        let current = current.map_err(failed(names::IDENTITY_EPOCH, "read an epoch"))?;
        Ok(Self {
            map,
            current,
            owners: open(pins, names::OWNERS)?,
        })
    }

    /// Every epoch.
    pub(super) fn current(&self) -> &[u32] {
        &self.current
    }

    /// Starts a new epoch of an address, and of every address that shares its slot.
    pub(super) fn bump(&mut self, address: IpAddr) -> Result<(), DatapathError> {
        let slot = slot_of(address);
        let current = self.current.get(slot as usize).copied();
        self.set(slot, current.unwrap_or_default().wrapping_add(1))
    }

    /// Whether the map has the epoch of an address that was written last.
    pub(super) fn holds(&self, address: IpAddr) -> Result<bool, DatapathError> {
        let slot = slot_of(address);
        let found = self.map.get(&slot, 0);
        let found = found.map_err(failed(names::IDENTITY_EPOCH, "read an epoch"))?;
        Ok(self.current.get(slot as usize) == Some(&found))
    }

    /// Records another owner of an address, and of every address that shares its slot.
    pub(super) fn new_owner(&mut self, address: IpAddr) -> Result<(), DatapathError> {
        let slot = slot_of(address);
        let current = self.owners.get(&slot, 0);
        let current = current.map_err(failed(names::OWNERS, "read an owner number"))?;
        self.owners
            .set(slot, current.wrapping_add(1), 0)
            .map_err(failed(names::OWNERS, "write an owner number"))
    }

    /// Starts a new epoch of every address.
    pub(super) fn bump_all(&mut self) -> Result<(), DatapathError> {
        let next = (0..).zip(self.current.iter().map(|epoch| epoch.wrapping_add(1)));
        let next: Vec<(u32, u32)> = next.collect();
        let made = batch::update(&self.map, &next);
        for (current, (_, epoch)) in self.current.iter_mut().zip(&next).take(made) {
            *current = *epoch;
        }
        let mut rest = next.into_iter().skip(made);
        rest.try_for_each(|(slot, epoch)| self.set(slot, epoch))
    }

    fn set(&mut self, slot: u32, epoch: u32) -> Result<(), DatapathError> {
        self.map
            .set(slot, epoch, 0)
            .map_err(failed(names::IDENTITY_EPOCH, "bump an epoch"))?;
        if let Some(current) = self.current.get_mut(slot as usize) {
            *current = epoch;
        }
        Ok(())
    }
}

fn slot_of(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(a) => Ip4::from_wire(a.octets()).epoch_slot(),
        IpAddr::V6(a) => Ip6::from_wire(a.octets()).epoch_slot(),
    }
}
