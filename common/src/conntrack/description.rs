//! A description of the conntrack maps, pinned next to them, so that agents with another layout can
//! read what is needed to continue the flows.
//!
//! Invariants: the layout of this type never changes; what it says can. Fields are added at
//! [`Description::reserved`]; an agent that cannot read a description does without the flows. It says
//! where a field is, and not what a policy decided: numbers of tables, rules, identities and owners
//! are those of another agent and are not read. Reading and writing maps is the agent's.

use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    CtEntry, CtKey4, CtKey6, flags,
    unreplied::{CtSet4, CtSet6, CtWay4, CtWay6, WAYS, WayWord},
};
use crate::{layout::shared_layout, mode::Verdict};

/// Marks a value as a description, version 1.
pub const MAGIC: u32 = 0x5246_4301;

/// Where a number or an address is: bytes from the start of its key or entry. Size 0: nowhere.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Field {
    /// Offset in bytes.
    pub at: u16,
    /// Size in bytes. Numbers have the machine's byte order, addresses and ports that of the wire.
    pub size: u16,
}
shared_layout!(Field, size 4, at at 0, size at 2);

/// Where a bit of an entry is: it is set if the byte at an offset has a bit of the mask. Mask 0: nowhere.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Bit {
    /// Offset in bytes.
    pub at: u16,
    /// Mask of one byte.
    pub mask: u16,
}
shared_layout!(Bit, size 4, at at 0, mask at 2);

/// A flow key of one address family.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DescribedKey {
    /// Address of the workload's end.
    pub local: Field,
    /// Address of the peer's end.
    pub peer: Field,
    /// The endpoint's interface, a number.
    pub ifindex: Field,
    /// Port of the workload's end.
    pub local_port: Field,
    /// Port of the peer's end.
    pub peer_port: Field,
    /// IP protocol number.
    pub protocol: Field,
}
shared_layout!(DescribedKey, size 24);

/// An entry.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DescribedEntry {
    /// Tick-clock time after which the entry is dead, in nanoseconds.
    pub expires: Field,
    /// When the originator sent its last packet, on the tick clock in units of 2^26 nanoseconds.
    pub originator_seen: Field,
    /// The bits of [`super::state`], from the lowest.
    pub state: [Bit; 8],
    /// [`flags::FROM_WORKLOAD`].
    pub from_workload: Bit,
    /// [`flags::HOST_INGRESS`].
    pub host_ingress: Bit,
    /// [`flags::PICKED_UP`].
    pub picked_up: Bit,
    /// [`flags::WAS_ALLOWED`].
    pub was_allowed: Bit,
}
shared_layout!(DescribedEntry, size 56);

/// A map: its values hold entries in one or more slots.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct DescribedMap {
    /// Slots of a value.
    pub slots: u16,
    /// Offset of the first slot in the value.
    pub first: u16,
    /// Bytes from one slot to the next.
    pub stride: u16,
    /// Offset of the entry in its slot.
    pub entry: u16,
    /// 0: the map's key is the flow's. 1: the flow's key is in the slot.
    pub holds_keys: u16,
    /// Offset of the flow's key in its slot.
    pub key: u16,
    /// Offset in the value of a word for each slot, of `used_size` bytes: 0 means the slot is free.
    pub used: u16,
    /// Bytes of such a word; 0: there are none, every slot is in use.
    pub used_size: u16,
}
shared_layout!(DescribedMap, size 16);

/// Value of `CT_DESCRIPTION`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Description {
    /// [`MAGIC`].
    pub magic: u32,
    /// Keys of IPv4 flows.
    pub key4: DescribedKey,
    /// Keys of IPv6 flows.
    pub key6: DescribedKey,
    /// Entries of both.
    pub entry: DescribedEntry,
    /// `CT4` and `CT6`.
    pub assured: [DescribedMap; 2],
    /// `CT_UNREPLIED4` and `CT_UNREPLIED6`.
    pub unreplied: [DescribedMap; 2],
    /// Zero.
    pub reserved: [u32; 21],
}
shared_layout!(Description, size 256, key4 at 4, key6 at 28, entry at 52, assured at 108, unreplied at 140);

#[allow(
    clippy::cast_possible_truncation,
    reason = "offsets and sizes of structs below 64 KiB"
)]
const fn field(at: usize, size: usize) -> Field {
    Field {
        at: at as u16,
        size: size as u16,
    }
}

#[allow(clippy::cast_possible_truncation, reason = "as in `field`")]
const fn bit(at: usize, mask: u8) -> Bit {
    Bit {
        at: at as u16,
        mask: mask as u16,
    }
}

macro_rules! key {
    ($key:ty, $address:literal) => {
        DescribedKey {
            local: field(offset_of!($key, local), $address),
            peer: field(offset_of!($key, peer), $address),
            ifindex: field(offset_of!($key, ifindex), 4),
            local_port: field(offset_of!($key, local_port), 2),
            peer_port: field(offset_of!($key, peer_port), 2),
            protocol: field(offset_of!($key, protocol), 1),
        }
    };
}

/// A map with an entry as its value, under the flow's key.
#[allow(clippy::cast_possible_truncation, reason = "as in `field`")]
const PLAIN: DescribedMap = DescribedMap {
    slots: 1,
    first: 0,
    stride: size_of::<CtEntry>() as u16,
    entry: 0,
    holds_keys: 0,
    key: 0,
    used: 0,
    used_size: 0,
};

macro_rules! sets {
    ($set:ty, $way:ty) => {
        DescribedMap {
            slots: WAYS as u16,
            first: offset_of!($set, ways) as u16,
            stride: size_of::<$way>() as u16,
            entry: offset_of!($way, entry) as u16,
            holds_keys: 1,
            key: offset_of!($way, key) as u16,
            used: offset_of!($set, words) as u16,
            used_size: size_of::<WayWord>() as u16,
        }
    };
}

impl Description {
    /// This version's maps.
    #[allow(clippy::cast_possible_truncation, reason = "as in `field`")]
    pub const OWN: Self = Self {
        magic: MAGIC,
        key4: key!(CtKey4, 4),
        key6: key!(CtKey6, 16),
        entry: DescribedEntry {
            expires: field(offset_of!(CtEntry, expires), 8),
            originator_seen: field(offset_of!(CtEntry, originator_seen), 4),
            // A byte for each bit (`StateBytes`).
            state: [
                bit(offset_of!(CtEntry, state), 1),
                bit(offset_of!(CtEntry, state) + 1, 1),
                bit(offset_of!(CtEntry, state) + 2, 1),
                bit(offset_of!(CtEntry, state) + 3, 1),
                bit(offset_of!(CtEntry, state) + 4, 1),
                bit(offset_of!(CtEntry, state) + 5, 1),
                bit(offset_of!(CtEntry, state) + 6, 1),
                bit(offset_of!(CtEntry, state) + 7, 1),
            ],
            from_workload: bit(offset_of!(CtEntry, flags), flags::FROM_WORKLOAD),
            host_ingress: bit(offset_of!(CtEntry, flags), flags::HOST_INGRESS),
            picked_up: bit(offset_of!(CtEntry, flags), flags::PICKED_UP),
            was_allowed: bit(offset_of!(CtEntry, flags), flags::WAS_ALLOWED),
        },
        assured: [PLAIN; 2],
        unreplied: [sets!(CtSet4, CtWay4), sets!(CtSet6, CtWay6)],
        reserved: [0; 21],
    };

    /// The maps of ABI version 6, which has no description: keys as they are now, all entries in
    /// hashes, expiry at 0, verdict at 56, a byte of state bits at 57 and of flags at 58.
    pub const ABI6: Self = Self {
        entry: DescribedEntry {
            expires: field(0, 8),
            originator_seen: field(0, 0),
            state: [
                bit(57, 1),
                bit(57, 2),
                bit(57, 4),
                bit(57, 8),
                bit(57, 16),
                bit(57, 32),
                bit(57, 64),
                bit(57, 128),
            ],
            from_workload: bit(58, flags::FROM_WORKLOAD),
            host_ingress: bit(58, flags::HOST_INGRESS),
            picked_up: bit(58, flags::PICKED_UP),
            was_allowed: bit(56, Verdict::Allow as u8),
        },
        unreplied: [PLAIN; 2],
        ..Self::OWN
    };
}

const _: () = assert!(Verdict::Allow as u8 & Verdict::Deny as u8 == 0);
