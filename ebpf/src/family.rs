//! What differs between IPv4 and IPv6: keys and maps.
//!
//! Invariant: no decisions are made here, only lookups and updates.

use aya_ebpf::{
    bindings::{BPF_EXIST, BPF_NOEXIST},
    maps::lpm_trie::Key,
};
use ringfence_common::{
    conntrack::{CtEntry, CtKey4, CtKey6},
    endpoint::{Endpoint, Owns},
    fragment::{FragmentKey4, FragmentKey6, FragmentPorts},
    ids::IdentityId,
    net::{Ip4, Ip6, Port},
    packet::{
        Packet, Parse,
        neighbour::{Announce, OwnSource},
        reject::Reject,
    },
};

use crate::{maps, reject::RejectBuffer};

const ONLY_NEW: u64 = BPF_NOEXIST as u64;
const ONLY_EXISTING: u64 = BPF_EXIST as u64;

/// An IP version and its maps.
pub trait Family: Parse + Announce + OwnSource + Reject {
    /// 4 or 6.
    const VERSION: u8;
    type CtKey;
    type FragmentKey;

    fn owned_by(self, endpoint: &Endpoint) -> bool;
    /// The quote buffer of a reject packet.
    fn quote(buffer: &mut RejectBuffer) -> &mut Self::Quote;
    /// Exact address first, then longest prefix; [`IdentityId::UNKNOWN`] if there is neither.
    fn identity(self) -> IdentityId;
    fn ct_key(ifindex: u32, protocol: u8, local: (Self, Port), peer: (Self, Port)) -> Self::CtKey;
    /// Looks up an assured entry.
    fn assured(key: &Self::CtKey) -> Option<*mut CtEntry>;
    /// Looks up an unreplied entry.
    fn unreplied(key: &Self::CtKey) -> Option<*mut CtEntry>;
    /// Adds an assured entry that must not exist yet.
    fn add_assured(key: &Self::CtKey, entry: &CtEntry) -> bool;
    /// Replaces an assured entry that must exist.
    fn replace_assured(key: &Self::CtKey, entry: &CtEntry) -> bool;
    fn store_unreplied(key: &Self::CtKey, entry: &CtEntry) -> bool;
    /// Returns whether the entry existed.
    fn remove_assured(key: &Self::CtKey) -> bool;
    fn remove_unreplied(key: &Self::CtKey);
    fn fragment_key(ifindex: u32, from_workload: bool, packet: &Packet<Self>) -> Self::FragmentKey;
    fn fragment_find(key: &Self::FragmentKey) -> Option<FragmentPorts>;
    fn fragment_store(key: &Self::FragmentKey, ports: &FragmentPorts) -> bool;
}

impl Family for Ip4 {
    const VERSION: u8 = 4;
    type CtKey = CtKey4;
    type FragmentKey = FragmentKey4;

    #[inline(always)]
    fn owned_by(self, endpoint: &Endpoint) -> bool {
        endpoint.owns(self)
    }

    #[inline(always)]
    fn quote(buffer: &mut RejectBuffer) -> &mut Self::Quote {
        &mut buffer.quote4
    }

    #[inline(always)]
    fn identity(self) -> IdentityId {
        // SAFETY: IPCACHE4 is not preallocated, so the value outlives this program's run (RCU).
        if let Some(identity) = unsafe { maps::IPCACHE4.get(self) } {
            return *identity;
        }
        maps::CIDR4
            .get(Key::new(32, self))
            .copied()
            .unwrap_or(IdentityId::UNKNOWN)
    }

    #[inline(always)]
    fn ct_key(ifindex: u32, protocol: u8, local: (Self, Port), peer: (Self, Port)) -> CtKey4 {
        CtKey4 {
            local: local.0,
            peer: peer.0,
            ifindex,
            local_port: local.1,
            peer_port: peer.1,
            protocol,
            reserved: [0; 3],
        }
    }

    #[inline(always)]
    fn assured(key: &CtKey4) -> Option<*mut CtEntry> {
        maps::CT4.get_ptr_mut(key)
    }

    #[inline(always)]
    fn unreplied(key: &CtKey4) -> Option<*mut CtEntry> {
        maps::CT_UNREPLIED4.get_ptr_mut(key)
    }

    #[inline(always)]
    fn add_assured(key: &CtKey4, entry: &CtEntry) -> bool {
        maps::CT4.insert(key, entry, ONLY_NEW).is_ok()
    }

    #[inline(always)]
    fn replace_assured(key: &CtKey4, entry: &CtEntry) -> bool {
        maps::CT4.insert(key, entry, ONLY_EXISTING).is_ok()
    }

    #[inline(always)]
    fn store_unreplied(key: &CtKey4, entry: &CtEntry) -> bool {
        maps::CT_UNREPLIED4.insert(key, entry, 0).is_ok()
    }

    #[inline(always)]
    fn remove_assured(key: &CtKey4) -> bool {
        maps::CT4.remove(key).is_ok()
    }

    #[inline(always)]
    fn remove_unreplied(key: &CtKey4) {
        let _ = maps::CT_UNREPLIED4.remove(key);
    }

    #[inline(always)]
    fn fragment_key(ifindex: u32, from_workload: bool, packet: &Packet<Self>) -> FragmentKey4 {
        FragmentKey4 {
            source: packet.source,
            destination: packet.destination,
            ifindex,
            id: packet.fragment_id,
            protocol: packet.protocol,
            from_workload: u8::from(from_workload),
            reserved: [0; 2],
        }
    }

    #[inline(always)]
    fn fragment_find(key: &FragmentKey4) -> Option<FragmentPorts> {
        // SAFETY: copied at once. A recycled record gives at worst another port pair of the same
        // endpoint and address pair, which conntrack then evaluates like any other.
        unsafe { maps::FRAG4.get(key) }.copied()
    }

    #[inline(always)]
    fn fragment_store(key: &FragmentKey4, ports: &FragmentPorts) -> bool {
        maps::FRAG4.insert(key, ports, 0).is_ok()
    }
}

impl Family for Ip6 {
    const VERSION: u8 = 6;
    type CtKey = CtKey6;
    type FragmentKey = FragmentKey6;

    #[inline(always)]
    fn owned_by(self, endpoint: &Endpoint) -> bool {
        endpoint.owns(self)
    }

    #[inline(always)]
    fn quote(buffer: &mut RejectBuffer) -> &mut Self::Quote {
        &mut buffer.quote6
    }

    #[inline(always)]
    fn identity(self) -> IdentityId {
        // SAFETY: as for IPv4.
        if let Some(identity) = unsafe { maps::IPCACHE6.get(self) } {
            return *identity;
        }
        maps::CIDR6
            .get(Key::new(128, self))
            .copied()
            .unwrap_or(IdentityId::UNKNOWN)
    }

    #[inline(always)]
    fn ct_key(ifindex: u32, protocol: u8, local: (Self, Port), peer: (Self, Port)) -> CtKey6 {
        CtKey6 {
            local: local.0,
            peer: peer.0,
            ifindex,
            local_port: local.1,
            peer_port: peer.1,
            protocol,
            reserved: [0; 7],
        }
    }

    #[inline(always)]
    fn assured(key: &CtKey6) -> Option<*mut CtEntry> {
        maps::CT6.get_ptr_mut(key)
    }

    #[inline(always)]
    fn unreplied(key: &CtKey6) -> Option<*mut CtEntry> {
        maps::CT_UNREPLIED6.get_ptr_mut(key)
    }

    #[inline(always)]
    fn add_assured(key: &CtKey6, entry: &CtEntry) -> bool {
        maps::CT6.insert(key, entry, ONLY_NEW).is_ok()
    }

    #[inline(always)]
    fn replace_assured(key: &CtKey6, entry: &CtEntry) -> bool {
        maps::CT6.insert(key, entry, ONLY_EXISTING).is_ok()
    }

    #[inline(always)]
    fn store_unreplied(key: &CtKey6, entry: &CtEntry) -> bool {
        maps::CT_UNREPLIED6.insert(key, entry, 0).is_ok()
    }

    #[inline(always)]
    fn remove_assured(key: &CtKey6) -> bool {
        maps::CT6.remove(key).is_ok()
    }

    #[inline(always)]
    fn remove_unreplied(key: &CtKey6) {
        let _ = maps::CT_UNREPLIED6.remove(key);
    }

    #[inline(always)]
    fn fragment_key(ifindex: u32, from_workload: bool, packet: &Packet<Self>) -> FragmentKey6 {
        FragmentKey6 {
            source: packet.source,
            destination: packet.destination,
            ifindex,
            id: packet.fragment_id,
            from_workload: u8::from(from_workload),
            reserved: [0; 7],
        }
    }

    #[inline(always)]
    fn fragment_find(key: &FragmentKey6) -> Option<FragmentPorts> {
        // SAFETY: as for IPv4.
        unsafe { maps::FRAG6.get(key) }.copied()
    }

    #[inline(always)]
    fn fragment_store(key: &FragmentKey6, ports: &FragmentPorts) -> bool {
        maps::FRAG6.insert(key, ports, 0).is_ok()
    }
}
