//! A hash map and a ring buffer in the kernel.
//!
//! The entries of a table are preallocated (no `BPF_F_NO_PREALLOC`): a new entry then costs half of
//! what it costs to allocate its memory, and no more than in an LRU map.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, RingBuf};

use super::{MAP_CREATE, Numbers, bpf, owned};

/// The capacity of the agent's `CT4` and `CT6`.
const ENTRIES: u32 = 131_072;

/// `BPF_MAP_TYPE_HASH`, without flags.
const HASH: u32 = 1;
/// `BPF_MAP_TYPE_RINGBUF`; its capacity is in bytes.
const RING: u32 = 27;
/// Space for the records of a sample.
const RING_BYTES: u32 = 16 << 20;
const NO_FLAGS: u32 = 0;

/// A hash map.
pub(super) struct Table(pub(super) OwnedFd);

impl Table {
    /// Creates an empty map for keys and values of these sizes.
    pub(super) fn new(key: usize, value: usize) -> Result<Self> {
        let (key, value) = (u32::try_from(key)?, u32::try_from(value)?);
        let mut create = Numbers([HASH, key, value, ENTRIES, NO_FLAGS]);
        let fd = bpf(MAP_CREATE, &mut create).context("creating a hash map")?;
        Ok(Self(owned(fd)?))
    }

    /// Removes every entry and returns their number.
    pub(super) fn empty<K: Pod, V: Pod>(&self) -> Result<usize> {
        let map = Map::HashMap(MapData::from_fd(self.0.try_clone()?)?);
        let mut map: HashMap<_, K, V> = HashMap::try_from(map)?;
        let all: Vec<K> = map.keys().collect::<Result<_, _>>()?;
        for key in &all {
            map.remove(key)?;
        }
        Ok(all.len())
    }
}

/// A ring of records that wake no reader.
pub(super) struct Ring(pub(super) OwnedFd);

impl Ring {
    /// Creates an empty ring.
    pub(super) fn new() -> Result<Self> {
        let mut create = Numbers([RING, 0, 0, RING_BYTES, NO_FLAGS]);
        let fd = bpf(MAP_CREATE, &mut create).context("creating a ring")?;
        Ok(Self(owned(fd)?))
    }

    /// Consumes every record and returns their number.
    pub(super) fn empty(&self) -> Result<usize> {
        let map = Map::RingBuf(MapData::from_fd(self.0.try_clone()?)?);
        let mut ring = RingBuf::try_from(map)?;
        let mut taken = 0;
        while ring.next().is_some() {
            taken += 1;
        }
        Ok(taken)
    }
}
