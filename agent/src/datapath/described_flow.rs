//! Reads flows out of conntrack maps of another layout, by their description.
//!
//! Invariants: pure. A flow becomes an entry that decides nothing: table 0 and a recheck time in the
//! past, so the next packet evaluates it in its recorded direction, by present policy. Bytes that do
//! not fit the description are no flow. That an entry and its key belong together is the caller's to
//! find out.

use std::hash::Hash;

use aya::Pod;
use ringfence_common::{
    conntrack::{
        CtEntry, CtKey4, CtKey6, SealedKey, StateBytes,
        description::{Bit, DescribedEntry, DescribedKey, DescribedMap, Description, Field},
        flags, originator,
    },
    ids::{RuleSlot, TableId},
    net::{Ip4, Ip6, Port},
};

/// A flow key of this layout.
pub(super) trait FlowKey: Pod + SealedKey + Eq + Hash {
    /// 0 for IPv4, 1 for IPv6.
    const FAMILY: usize;

    fn described(description: &Description) -> &DescribedKey;
    fn read(described: &DescribedKey, bytes: &[u8]) -> Option<Self>;
    fn ifindex(&self) -> u32;
}

impl FlowKey for CtKey4 {
    const FAMILY: usize = 0;

    fn described(description: &Description) -> &DescribedKey {
        &description.key4
    }

    fn read(described: &DescribedKey, bytes: &[u8]) -> Option<Self> {
        Some(Self {
            local: Ip4::from_wire(array(described.local, bytes)?),
            peer: Ip4::from_wire(array(described.peer, bytes)?),
            ifindex: number(described.ifindex, bytes)?.try_into().ok()?,
            local_port: Port::from_wire(array(described.local_port, bytes)?),
            peer_port: Port::from_wire(array(described.peer_port, bytes)?),
            protocol: number(described.protocol, bytes)?.try_into().ok()?,
            reserved: [0; 3],
        })
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

impl FlowKey for CtKey6 {
    const FAMILY: usize = 1;

    fn described(description: &Description) -> &DescribedKey {
        &description.key6
    }

    fn read(described: &DescribedKey, bytes: &[u8]) -> Option<Self> {
        Some(Self {
            local: Ip6::from_wire(array(described.local, bytes)?),
            peer: Ip6::from_wire(array(described.peer, bytes)?),
            ifindex: number(described.ifindex, bytes)?.try_into().ok()?,
            local_port: Port::from_wire(array(described.local_port, bytes)?),
            peer_port: Port::from_wire(array(described.peer_port, bytes)?),
            protocol: number(described.protocol, bytes)?.try_into().ok()?,
            reserved: [0; 7],
        })
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

fn bytes_of(field: Field, bytes: &[u8]) -> Option<&[u8]> {
    let at = usize::from(field.at);
    bytes.get(at..at.checked_add(usize::from(field.size))?)
}

fn array<const N: usize>(field: Field, bytes: &[u8]) -> Option<[u8; N]> {
    bytes_of(field, bytes)?.try_into().ok()
}

/// A number of one to eight bytes, in the machine's byte order.
fn number(field: Field, bytes: &[u8]) -> Option<u64> {
    let bytes = bytes_of(field, bytes)?;
    Some(match bytes.len() {
        1 => u64::from(*bytes.first()?),
        2 => u64::from(u16::from_ne_bytes(bytes.try_into().ok()?)),
        4 => u64::from(u32::from_ne_bytes(bytes.try_into().ok()?)),
        8 => u64::from_ne_bytes(bytes.try_into().ok()?),
        _ => return None,
    })
}

fn is_set(bit: Bit, bytes: &[u8]) -> Option<bool> {
    let byte = bytes.get(usize::from(bit.at))?;
    Some(u16::from(*byte) & bit.mask != 0)
}

/// The flows in one value of a map, alive at `now` (tick clock).
pub(super) fn read<K: FlowKey>(
    description: &Description,
    map: &DescribedMap,
    (key, value): (&[u8], &[u8]),
    now: u64,
    mut visit: impl FnMut(K, CtEntry),
) {
    for slot in 0..usize::from(map.slots) {
        let flow = slot_of(map, value, slot).and_then(|bytes| {
            let entry = bytes.get(usize::from(map.entry)..)?;
            let key = match map.holds_keys {
                0 => key,
                _ => bytes.get(usize::from(map.key)..)?,
            };
            let key = K::read(K::described(description), key)?;
            Some((key, read_entry(&description.entry, entry, &key, now)?))
        });
        if let Some((key, entry)) = flow {
            visit(key, entry);
        }
    }
}

/// The bytes from a slot to the end of the value, if the slot is in use.
fn slot_of<'a>(map: &DescribedMap, value: &'a [u8], slot: usize) -> Option<&'a [u8]> {
    let size = usize::from(map.used_size);
    let used = usize::from(map.used) + slot * size;
    if size > 0 && value.get(used..used + size)?.iter().all(|byte| *byte == 0) {
        return None;
    }
    value.get(usize::from(map.first) + slot * usize::from(map.stride)..)
}

fn read_entry(
    described: &DescribedEntry,
    bytes: &[u8],
    key: &impl SealedKey,
    now: u64,
) -> Option<CtEntry> {
    let expires = number(described.expires, bytes)?;
    if expires <= now {
        return None;
    }
    let mut state = 0;
    for (at, bit) in described.state.iter().enumerate() {
        state |= u8::from(is_set(*bit, bytes)?) << at;
    }
    let seen = number(described.originator_seen, bytes).and_then(|seen| u32::try_from(seen).ok());
    let mut entry = CtEntry::default();
    entry.clear(TableId::NONE, 0);
    // The past, so the verdict, a deny, is never current.
    entry.recheck = 0;
    entry.expires = expires;
    entry.state = StateBytes::of(state);
    entry.originator_seen = seen.unwrap_or_else(|| originator::coarse(now));
    // The map that it is stored in: that of the assured entries, whose writes are single entries.
    // The kernel programs move it when its state changes.
    entry.flags = flags::ASSURED;
    for (bit, flag) in [
        (described.from_workload, flags::FROM_WORKLOAD),
        (described.host_ingress, flags::HOST_INGRESS),
        (described.picked_up, flags::PICKED_UP),
        (described.was_allowed, flags::WAS_ALLOWED),
    ] {
        if is_set(bit, bytes)? {
            entry.flags |= flag;
        }
    }
    if entry.flags & flags::HOST_INGRESS != 0 {
        // Read before the evaluation, to tell other senders from the host.
        entry.rule = RuleSlot::HOST_INGRESS.0.try_into().ok()?;
    }
    entry.seal = entry.seal_for(key);
    Some(entry)
}

/// Whether no packet was evaluated by the entry yet: it is as [`read`] made it.
pub(super) fn is_unused(entry: &CtEntry) -> bool {
    entry.recheck == 0 && entry.table == TableId::NONE
}

/// Whether an entry of the other layout says more than the one that was read from it before.
pub(super) fn is_newer(read: &CtEntry, before: &CtEntry) -> bool {
    (read.expires, read.state, read.flags) != (before.expires, before.state, before.flags)
}

#[cfg(test)]
mod tests;
