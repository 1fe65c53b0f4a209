//! What differs between IPv4 and IPv6: keys and maps.
//!
//! Invariant: no decisions are made here, only lookups and updates.

use aya_ebpf::{
    bindings::{BPF_EXIST, BPF_NOEXIST},
    maps::lpm_trie::Key,
};
use ringfence_common::{
    conntrack::{
        CtEntry, CtKey4, CtKey6, PlacedKey, SealedKey,
        unreplied::{CtSet4, CtSet6, CtWay4, CtWay6, WAYS, WayWord, set_of},
    },
    endpoint::{Endpoint, Owns},
    fragment::{FragmentKey4, FragmentKey6, FragmentPorts},
    ids::IdentityId,
    ipcache::{IpcacheEntry, IpcacheKey},
    net::{Ip4, Ip6, Port},
    packet::{
        Packet, Parse, dhcp::Dhcp, neighbour::Redirects, own_source::OwnSource, reject::Reject,
    },
};

use crate::{
    ct_unreplied::UNREPLIED_SETS, current_packet::CurrentPacket, global_functions, maps,
    reject::RejectBuffer,
};

const ONLY_NEW: u64 = BPF_NOEXIST as u64;
const ONLY_EXISTING: u64 = BPF_EXIST as u64;

/// An IP version and its maps.
pub trait Family: Parse + Redirects + Dhcp + OwnSource + Reject + IpcacheKey + 'static {
    /// 4 or 6.
    const VERSION: u8;
    type CtKey: PlacedKey + Copy + 'static;
    /// A set of the unreplied table.
    type CtSet;
    type FragmentKey: SealedKey;

    fn owned_by(self, endpoint: &Endpoint) -> bool;
    /// The quote buffer of a reject packet.
    fn quote(buffer: &mut RejectBuffer) -> &mut Self::Quote;
    /// The value of the exact address, as it is at one moment.
    fn ipcache(self) -> Option<IpcacheEntry>;
    /// The identity of the longest prefix.
    fn prefix_identity(self) -> Option<IdentityId>;
    fn ct_key(ifindex: u32, protocol: u8, local: (Self, Port), peer: (Self, Port)) -> Self::CtKey;
    /// Looks up an assured entry; null if there is none.
    fn assured(key: &Self::CtKey) -> *mut CtEntry;
    /// Adds an assured entry that must not exist yet.
    fn add_assured(key: &Self::CtKey, entry: &CtEntry) -> bool;
    /// Replaces an assured entry that must exist.
    fn replace_assured(key: &Self::CtKey, entry: &CtEntry) -> bool;
    /// Returns whether the entry existed.
    fn remove_assured(key: &Self::CtKey) -> bool;
    /// A set of the unreplied table.
    fn set_at(set: u32) -> Option<*mut Self::CtSet>;
    /// The set for a place hash.
    #[inline(always)]
    fn unreplied_set(place: u64) -> Option<*mut Self::CtSet> {
        Self::set_at(set_of(place, UNREPLIED_SETS.load()))
    }
    /// The word of a way, below [`WAYS`].
    fn way_word(set: *mut Self::CtSet, way: u32) -> *mut WayWord;
    /// The key of a way, below [`WAYS`].
    fn way_key(set: *mut Self::CtSet, way: u32) -> *mut Self::CtKey;
    /// The entry of a way, below [`WAYS`].
    fn way_entry(set: *mut Self::CtSet, way: u32) -> *mut CtEntry;
    /// Whether a way's key is this one.
    fn is_way_key(set: *mut Self::CtSet, way: u32, key: &Self::CtKey) -> bool;
    fn fragment_key(ifindex: u32, from_workload: bool, packet: &Packet<Self>) -> Self::FragmentKey;
    /// A copy of a record, to be checked against the key.
    fn fragment_find(key: &Self::FragmentKey) -> Option<FragmentPorts>;
    fn fragment_store(key: &Self::FragmentKey, ports: &FragmentPorts) -> bool;

    /// Exact address first, then longest prefix; [`IdentityId::UNKNOWN`] if there is neither.
    fn identity(self) -> IdentityId;
    /// Where this CPU keeps the key of its packet's flow.
    fn scratch_key() -> Option<&'static mut Self::CtKey>;
    /// Where this CPU keeps its packet.
    fn scratch_packet() -> Option<&'static mut CurrentPacket<Self>>;
    /// [`crate::conntrack::track_current`] as a global function.
    fn track() -> u32;
    /// [`crate::conntrack::report_denied_flow`] as one.
    fn report_denied(which: u32, action: u32) -> u32;
    /// [`crate::ct_evaluate::create_flow`] as one.
    fn create_flow(contested: u32) -> u32;
    /// [`crate::ct_evaluate::reevaluate_flow`] as one.
    fn reevaluate_flow(epoch: u32) -> u32;
    /// [`crate::ct_evaluate::reply_flow`] as one.
    fn reply_flow(fresh: u32) -> u32;
    /// [`crate::conntrack::update_reversed`] as one.
    fn update_reversed(unreported: u32) -> u32;
    /// [`crate::ct_unreplied::find`] as a global function.
    fn find_unreplied() -> u32;
    /// [`crate::ct_unreplied::renew`] as one.
    fn renew_unreplied(number: u32, protocol: u32, state: u32, expires: u64) -> u32;
    /// [`crate::ct_store::store_entry`] as one.
    fn store(which: u32, number: u32, protocol: u32, now: u64) -> u32;
    /// [`crate::ct_store::relocate_entry`] as one.
    fn relocate(number: u32, protocol: u32, now: u64) -> u32;
    /// [`crate::ct_store::remove_entry`] as one.
    fn remove(number: u32) -> u32;
}

/// A way's index, for the verifier.
#[inline(always)]
fn masked(way: u32) -> usize {
    way as usize & (WAYS - 1)
}

/// Reads a value of eight bytes with one load.
#[inline(always)]
fn ipcache_value(value: *const IpcacheEntry) -> IpcacheEntry {
    // SAFETY: the pointer comes from a lookup in this run; the value is eight bytes with the
    // alignment of eight, as in the map.
    let raw = unsafe { core::ptr::read_volatile(value.cast::<u64>()) };
    zerocopy::transmute!(raw)
}

impl Family for Ip4 {
    const VERSION: u8 = 4;
    type CtKey = CtKey4;
    type CtSet = CtSet4;
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
        IdentityId(global_functions::identity4(self.0))
    }

    #[inline(always)]
    fn scratch_key() -> Option<&'static mut CtKey4> {
        maps::scratch_key4()
    }

    #[inline(always)]
    fn scratch_packet() -> Option<&'static mut CurrentPacket<Self>> {
        maps::scratch_packet4()
    }

    #[inline(always)]
    fn track() -> u32 {
        global_functions::ct4_track()
    }

    #[inline(always)]
    fn report_denied(which: u32, action: u32) -> u32 {
        global_functions::ct4_report(which, action)
    }

    #[inline(always)]
    fn create_flow(contested: u32) -> u32 {
        global_functions::ct4_create(contested)
    }

    #[inline(always)]
    fn reevaluate_flow(epoch: u32) -> u32 {
        global_functions::ct4_reevaluate(epoch)
    }

    #[inline(always)]
    fn reply_flow(fresh: u32) -> u32 {
        global_functions::ct4_reply(fresh)
    }

    #[inline(always)]
    fn update_reversed(unreported: u32) -> u32 {
        global_functions::ct4_update(unreported)
    }

    #[inline(always)]
    fn find_unreplied() -> u32 {
        global_functions::ct4_find()
    }

    #[inline(always)]
    fn renew_unreplied(number: u32, protocol: u32, state: u32, expires: u64) -> u32 {
        global_functions::ct4_renew(number, protocol, state, expires)
    }

    #[inline(always)]
    fn store(which: u32, number: u32, protocol: u32, now: u64) -> u32 {
        global_functions::ct4_store(which, number, protocol, now)
    }

    #[inline(always)]
    fn relocate(number: u32, protocol: u32, now: u64) -> u32 {
        global_functions::ct4_relocate(number, protocol, now)
    }

    #[inline(always)]
    fn remove(number: u32) -> u32 {
        global_functions::ct4_remove(number)
    }

    #[inline(always)]
    fn ipcache(self) -> Option<IpcacheEntry> {
        maps::IPCACHE4.get_ptr(self).map(ipcache_value)
    }

    #[inline(always)]
    fn prefix_identity(self) -> Option<IdentityId> {
        maps::CIDR4.get(Key::new(32, self)).copied()
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
    fn assured(key: &CtKey4) -> *mut CtEntry {
        maps::CT4.get_ptr_mut(key).unwrap_or(core::ptr::null_mut())
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
    fn remove_assured(key: &CtKey4) -> bool {
        maps::CT4.remove(key).is_ok()
    }

    #[inline(always)]
    fn set_at(set: u32) -> Option<*mut CtSet4> {
        maps::CT_UNREPLIED4.get_ptr_mut(set)
    }

    #[inline(always)]
    fn way_word(set: *mut CtSet4, way: u32) -> *mut WayWord {
        // SAFETY: the set is a whole map value, and the way is masked to be one of its.
        unsafe { (&raw mut (*set).words).cast::<WayWord>().add(masked(way)) }
    }

    #[inline(always)]
    fn way_key(set: *mut CtSet4, way: u32) -> *mut CtKey4 {
        // SAFETY: as in `way_word`.
        unsafe { &raw mut (*(&raw mut (*set).ways).cast::<CtWay4>().add(masked(way))).key }
    }

    #[inline(always)]
    fn way_entry(set: *mut CtSet4, way: u32) -> *mut CtEntry {
        // SAFETY: as in `way_word`.
        unsafe { &raw mut (*(&raw mut (*set).ways).cast::<CtWay4>().add(masked(way))).entry }
    }

    #[inline(always)]
    fn is_way_key(set: *mut CtSet4, way: u32, key: &CtKey4) -> bool {
        // SAFETY: as in `way_word`. Read once: another CPU may write the way.
        let held = unsafe { core::ptr::read_volatile(Self::way_key(set, way).cast::<[u32; 5]>()) };
        let [a, b, c, d, e] = held;
        let [g, h, i, j, k]: [u32; 5] = zerocopy::transmute!(*key);
        // A single comparison, because the verifier follows each branch.
        (a ^ g) | (b ^ h) | (c ^ i) | (d ^ j) | (e ^ k) == 0
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
        // SAFETY: copied; the caller checks the copy.
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
    type CtSet = CtSet6;
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
        IdentityId(global_functions::identity6(self.first, self.last))
    }

    #[inline(always)]
    fn scratch_key() -> Option<&'static mut CtKey6> {
        maps::scratch_key6()
    }

    #[inline(always)]
    fn scratch_packet() -> Option<&'static mut CurrentPacket<Self>> {
        maps::scratch_packet6()
    }

    #[inline(always)]
    fn track() -> u32 {
        global_functions::ct6_track()
    }

    #[inline(always)]
    fn report_denied(which: u32, action: u32) -> u32 {
        global_functions::ct6_report(which, action)
    }

    #[inline(always)]
    fn create_flow(contested: u32) -> u32 {
        global_functions::ct6_create(contested)
    }

    #[inline(always)]
    fn reevaluate_flow(epoch: u32) -> u32 {
        global_functions::ct6_reevaluate(epoch)
    }

    #[inline(always)]
    fn reply_flow(fresh: u32) -> u32 {
        global_functions::ct6_reply(fresh)
    }

    #[inline(always)]
    fn update_reversed(unreported: u32) -> u32 {
        global_functions::ct6_update(unreported)
    }

    #[inline(always)]
    fn find_unreplied() -> u32 {
        global_functions::ct6_find()
    }

    #[inline(always)]
    fn renew_unreplied(number: u32, protocol: u32, state: u32, expires: u64) -> u32 {
        global_functions::ct6_renew(number, protocol, state, expires)
    }

    #[inline(always)]
    fn store(which: u32, number: u32, protocol: u32, now: u64) -> u32 {
        global_functions::ct6_store(which, number, protocol, now)
    }

    #[inline(always)]
    fn relocate(number: u32, protocol: u32, now: u64) -> u32 {
        global_functions::ct6_relocate(number, protocol, now)
    }

    #[inline(always)]
    fn remove(number: u32) -> u32 {
        global_functions::ct6_remove(number)
    }

    #[inline(always)]
    fn ipcache(self) -> Option<IpcacheEntry> {
        maps::IPCACHE6.get_ptr(self).map(ipcache_value)
    }

    #[inline(always)]
    fn prefix_identity(self) -> Option<IdentityId> {
        maps::CIDR6.get(Key::new(128, self)).copied()
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
    fn assured(key: &CtKey6) -> *mut CtEntry {
        maps::CT6.get_ptr_mut(key).unwrap_or(core::ptr::null_mut())
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
    fn remove_assured(key: &CtKey6) -> bool {
        maps::CT6.remove(key).is_ok()
    }

    #[inline(always)]
    fn set_at(set: u32) -> Option<*mut CtSet6> {
        maps::CT_UNREPLIED6.get_ptr_mut(set)
    }

    #[inline(always)]
    fn way_word(set: *mut CtSet6, way: u32) -> *mut WayWord {
        // SAFETY: the set is a whole map value, and the way is masked to be one of its.
        unsafe { (&raw mut (*set).words).cast::<WayWord>().add(masked(way)) }
    }

    #[inline(always)]
    fn way_key(set: *mut CtSet6, way: u32) -> *mut CtKey6 {
        // SAFETY: as in `way_word`.
        unsafe { &raw mut (*(&raw mut (*set).ways).cast::<CtWay6>().add(masked(way))).key }
    }

    #[inline(always)]
    fn way_entry(set: *mut CtSet6, way: u32) -> *mut CtEntry {
        // SAFETY: as in `way_word`.
        unsafe { &raw mut (*(&raw mut (*set).ways).cast::<CtWay6>().add(masked(way))).entry }
    }

    #[inline(always)]
    fn is_way_key(set: *mut CtSet6, way: u32, key: &CtKey6) -> bool {
        // SAFETY: as in `way_word`. Read once: another CPU may write the way.
        let held = unsafe { core::ptr::read_volatile(Self::way_key(set, way).cast::<[u64; 6]>()) };
        let [a, b, c, d, e, f] = held;
        let [g, h, i, j, k, l]: [u64; 6] = zerocopy::transmute!(*key);
        // A single comparison, because the verifier follows each branch.
        (a ^ g) | (b ^ h) | (c ^ i) | (d ^ j) | (e ^ k) | (f ^ l) == 0
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
