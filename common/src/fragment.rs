//! Fragments: later fragments use the ports of the first one.
//!
//! Invariants: only a first fragment that holds the whole transport header is recorded. No later
//! fragment may begin before the end of that header, which it would overwrite. A record is valid at
//! the hook that saw the first fragment, for at most [`LIFETIME`], the kernel's own reassembly
//! timeout. Fragments are not reassembled here.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    SECOND,
    conntrack::seal::{self, SealedKey},
    layout::shared_layout,
    net::{Ip4, Ip6, Port},
};

/// Default of `net.ipv4.ipfrag_time`; after that the kernel does not reassemble the fragments.
pub const LIFETIME: u64 = 30 * SECOND;

/// Key of `FRAG4`, 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentKey4 {
    /// Source address.
    pub source: Ip4,
    /// Destination address.
    pub destination: Ip4,
    /// The endpoint's interface.
    pub ifindex: u32,
    /// Identification field, zero-extended.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// 1 for packets from the workload, 0 for packets to it.
    pub from_workload: u8,
    /// Zero.
    pub reserved: [u8; 2],
}
shared_layout!(FragmentKey4, size 20, id at 12, protocol at 16, from_workload at 17);

/// Key of `FRAG6`, 48 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentKey6 {
    /// Source address.
    pub source: Ip6,
    /// Destination address.
    pub destination: Ip6,
    /// The endpoint's interface.
    pub ifindex: u32,
    /// Identification field.
    pub id: u32,
    /// 1 for packets from the workload, 0 for packets to it.
    pub from_workload: u8,
    /// Zero. IPv6 reassembles by addresses and identification alone (RFC 8200 §4.5).
    pub reserved: [u8; 7],
}
shared_layout!(FragmentKey6, size 48, id at 36, from_workload at 40);

/// Value of `FRAG4` and `FRAG6`, 24 bytes. LRU hashes give the memory of a record to another key at
/// once, so a record is used only if its seal is right for the key and a copy of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FragmentPorts {
    /// Tick-clock time of the first fragment.
    pub seen: u64,
    /// Its source port.
    pub source: Port,
    /// Its destination port.
    pub destination: Port,
    /// Protocol of its transport header.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// Bytes from the start of the fragmented data to the end of the transport header.
    pub headers: u16,
    /// [`FragmentPorts::seal_for`].
    pub seal: u64,
}
shared_layout!(
    FragmentPorts, size 24, source at 8, destination at 10, protocol at 12, headers at 14,
    seal at 16,
);

impl FragmentPorts {
    /// The seal that belongs to this record under a key.
    #[inline(always)]
    #[must_use]
    pub fn seal_for(&self, key: &impl SealedKey) -> u64 {
        let words: [u64; 3] = zerocopy::transmute!(*self);
        key.sum()
            .wrapping_add(seal::mix(words[0], seal::WORDS[6]))
            .wrapping_add(seal::mix(words[1], seal::WORDS[7]))
    }

    /// Whether record and key belong together.
    #[inline(always)]
    #[must_use]
    pub fn is_sealed_for(&self, key: &impl SealedKey) -> bool {
        self.seal == self.seal_for(key)
    }

    /// Whether the record is recent enough for later fragments. Another CPU may have stored it a
    /// tick after this one read the time.
    #[inline(always)]
    #[must_use]
    pub fn is_current(&self, now: u64) -> bool {
        now.saturating_sub(self.seen) < LIFETIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_current_for_its_lifetime_even_if_the_clock_is_a_tick_behind() {
        let record = FragmentPorts {
            seen: 100 * SECOND,
            source: Port::new(1),
            destination: Port::new(2),
            protocol: 17,
            reserved: 0,
            headers: 8,
            seal: 0,
        };
        assert!(record.is_current(record.seen - 1));
        assert!(record.is_current(record.seen + LIFETIME - 1));
        assert!(!record.is_current(record.seen + LIFETIME));
    }
}
