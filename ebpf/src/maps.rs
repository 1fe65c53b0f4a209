//! The maps on the kernel side. Names, capacities and layouts come from `ringfence_common`.
//!
//! What a looked-up value is good for, by kind of map:
//! - Arrays: the memory always belongs to the same index. A value of up to eight bytes is read with
//!   one load; a record of `ENDPOINTS` does not change while a program may refer to it.
//! - LPM tries: a node is freed after an RCU grace period (`kfree_rcu`; Linux 6.14:
//!   `bpf_mem_cache_free_rcu`, commit 3d8dc43eb2a3) and never rewritten, so a value stays what it was
//!   for the run of the program.
//! - Hashes without preallocation and LRU hashes: the memory may be given to another key at once
//!   (`bpf_mem_alloc`, commit fba1a1c6c912; LRU lists since 4.10). Values are copied, and a copy is
//!   used only if it proves its key, or if nothing depends on whose it is.
//! - A search of a hash can miss a key that is replaced meanwhile: the new element is put at the head of the bucket's
//!   list before the old one is taken off (`htab_map_update_elem`, commit 0f8e4bd8a1fc), so a search that is past the
//!   head sees neither. A key that a decision depends on is absent if two searches miss it. A fragment
//!   record is searched once: a fragment without one is dropped.
//!
//! Invariant: no decision reads a looked-up value twice.

use core::arch::asm;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use ringfence_common::{
    conntrack::{
        CtEntry, CtKey4, CtKey6,
        description::Description,
        unreplied::{CtSet4, CtSet6},
    },
    deny_aggregate::{DenyCount, DenyKey},
    endpoint::{Endpoint, MAX_IP6, POSITIONS, PROBES, RECORDS, RecordSlot, position},
    event::FlowEvent,
    fragment::{FragmentKey4, FragmentKey6, FragmentPorts},
    ids::{ClassId, EndpointNumber, IdentityId, NamespaceSlot},
    ipcache::IpcacheEntry,
    maps::{
        CIDR_CAPACITY, CONNTRACK_CAPACITY, DENIES_CAPACITY, ENDPOINTS_CAPACITY, EPOCHS,
        EVENTS_BYTES, FRAGMENT_CAPACITY, IDENTITIES, IPCACHE_CAPACITY, NAMESPACES, POLICY_CAPACITY,
        RULES, RuleHit, UNREPLIED_SETS,
    },
    net::{Ip4, Ip6},
    packet::{
        dhcp::DhcpRequest,
        neighbour::{SOLICITORS_CAPACITY, Solicitor},
    },
    policy::{PolicyKey, PolicyRow, PolicyTable},
    quota::{Excess, Share, Usage},
    reject::{REJECTS_CAPACITY, RejectKey, RejectLimit},
    stats::STATS as COUNTERS,
};

use crate::{
    ct_unreplied::Candidates,
    current_packet::CurrentPacket,
    policy::PolicyLookup,
    policy_cache::{CachedDecision, SLOTS},
    reject::RejectBuffer,
};

#[map]
pub static DISCOVERY_LIMITS: Array<u64> = Array::with_max_entries(ENDPOINTS_CAPACITY + 1, 0);
#[map]
pub static DHCP_REQUESTS: Array<DhcpRequest> = Array::with_max_entries(ENDPOINTS_CAPACITY + 1, 0);
#[map]
pub static SOLICITORS: LruHashMap<Solicitor, u64> =
    LruHashMap::with_max_entries(SOLICITORS_CAPACITY, 0);
#[map]
pub static OWN_ADDRESSES6: HashMap<Ip6, u32> =
    HashMap::with_max_entries(ENDPOINTS_CAPACITY * MAX_IP6 as u32, BPF_F_NO_PREALLOC);
#[map]
static ENDPOINT_SLOTS: Array<u32> = Array::with_max_entries(POSITIONS, 0);
#[map]
static ENDPOINTS: Array<Endpoint> = Array::with_max_entries((ENDPOINTS_CAPACITY + 1) * RECORDS, 0);
#[map]
static NAMESPACE_MODE: Array<u32> = Array::with_max_entries(NAMESPACES, 0);
#[map]
pub static IPCACHE4: HashMap<Ip4, IpcacheEntry> =
    HashMap::with_max_entries(IPCACHE_CAPACITY, BPF_F_NO_PREALLOC);
#[map]
pub static IPCACHE6: HashMap<Ip6, IpcacheEntry> =
    HashMap::with_max_entries(IPCACHE_CAPACITY, BPF_F_NO_PREALLOC);
#[map]
pub static CIDR4: LpmTrie<Ip4, IdentityId> =
    LpmTrie::with_max_entries(CIDR_CAPACITY, BPF_F_NO_PREALLOC);
#[map]
pub static CIDR6: LpmTrie<Ip6, IdentityId> =
    LpmTrie::with_max_entries(CIDR_CAPACITY, BPF_F_NO_PREALLOC);
#[map]
static CLASSES: Array<ClassId> = Array::with_max_entries(IDENTITIES, 0);
#[map]
static POLICY: LpmTrie<PolicyKey, PolicyRow> =
    LpmTrie::with_max_entries(POLICY_CAPACITY, BPF_F_NO_PREALLOC);
#[map]
static IDENTITY_EPOCH: Array<u32> = Array::with_max_entries(EPOCHS, 0);
/// How often an address of the slot got another owner.
#[map]
static OWNERS: Array<u32> = Array::with_max_entries(EPOCHS, 0);
#[map]
pub static CT4: HashMap<CtKey4, CtEntry> =
    HashMap::with_max_entries(CONNTRACK_CAPACITY, BPF_F_NO_PREALLOC);
#[map]
pub static CT6: HashMap<CtKey6, CtEntry> =
    HashMap::with_max_entries(CONNTRACK_CAPACITY, BPF_F_NO_PREALLOC);
#[map]
pub static CT_UNREPLIED4: Array<CtSet4> = Array::with_max_entries(UNREPLIED_SETS, 0);
#[map]
pub static CT_UNREPLIED6: Array<CtSet6> = Array::with_max_entries(UNREPLIED_SETS, 0);
/// The secret that places flows in sets.
#[map]
static CT_SEED: Array<[u64; 2]> = Array::with_max_entries(1, 0);
#[map]
static CT_SHARE: Array<Share> = Array::with_max_entries(1, 0);
/// Each endpoint's account of conntrack entries; endpoint number 0 counts for all.
#[map]
static CT_USAGE: Array<Usage> = Array::with_max_entries(ENDPOINTS_CAPACITY + 1, 0);
/// By how much `CT_USAGE` exceeded the actual number of entries at the agent's last usage sweep.
#[map]
static CT_USAGE_SWEEP: Array<Excess> = Array::with_max_entries(ENDPOINTS_CAPACITY + 1, 0);
/// Read by agents with another layout.
#[map]
static CT_DESCRIPTION: Array<Description> = Array::with_max_entries(1, 0);
/// Pick-up windows that the agent has opened.
#[map]
static PICKUP: HashMap<u32, u32> = HashMap::with_max_entries(ENDPOINTS_CAPACITY, BPF_F_NO_PREALLOC);
#[map]
pub static FRAG4: LruHashMap<FragmentKey4, FragmentPorts> =
    LruHashMap::with_max_entries(FRAGMENT_CAPACITY, 0);
#[map]
pub static FRAG6: LruHashMap<FragmentKey6, FragmentPorts> =
    LruHashMap::with_max_entries(FRAGMENT_CAPACITY, 0);
#[map]
pub static RULE_HITS: PerCpuArray<RuleHit> = PerCpuArray::with_max_entries(RULES, 0);
#[map]
pub static DENIES: LruHashMap<DenyKey, DenyCount> =
    LruHashMap::with_max_entries(DENIES_CAPACITY, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);
/// Scratch space of cold paths for what does not fit the 512-byte stack. One slot per CPU is
/// enough: TC programs run with bottom halves disabled and do not nest.
#[map]
pub static SCRATCH: PerCpuArray<FlowEvent> = PerCpuArray::with_max_entries(1, 0);
/// What every packet uses.
#[map]
static SCRATCH_PACKET: PerCpuArray<PacketScratch> = PerCpuArray::with_max_entries(1, 0);
/// Scratch space for the choice of a way.
#[map]
static SCRATCH_CANDIDATES: PerCpuArray<Candidates> = PerCpuArray::with_max_entries(1, 0);
/// Scratch space for a conntrack entry to be stored.
#[map]
static SCRATCH_ENTRY: PerCpuArray<CtEntry> = PerCpuArray::with_max_entries(1, 0);
/// Scratch space for a policy lookup.
#[map]
static SCRATCH_LOOKUP: PerCpuArray<PolicyLookup> = PerCpuArray::with_max_entries(1, 0);
/// Scratch space for a reject packet.
#[map]
static SCRATCH_REJECT: PerCpuArray<RejectBuffer> = PerCpuArray::with_max_entries(1, 0);
/// Recent policy decisions by lookup key.
#[map]
static POLICY_CACHE: PerCpuArray<CachedDecision> = PerCpuArray::with_max_entries(SLOTS, 0);
/// Reject packets in flight from one hook to the other, with their send time.
#[map]
pub static REJECTS: LruHashMap<RejectKey, u64> = LruHashMap::with_max_entries(REJECTS_CAPACITY, 0);
/// When the last reject packet was sent, for any endpoint.
#[map]
pub static LAST_REJECT: Array<u64> = Array::with_max_entries(1, 0);
/// Rate limit of each endpoint's reject packets.
#[map]
pub static REJECT_LIMITS: Array<RejectLimit> = Array::with_max_entries(ENDPOINTS_CAPACITY + 1, 0);
/// The agent's mark of table numbers; no program reads it.
#[map]
static TABLE_NUMBERS: Array<u64> = Array::with_max_entries(1, 0);
/// The agent's fingerprint of the pinned programs; no program reads it.
#[map]
static LOADED_PROGRAMS: Array<[u8; 32]> = Array::with_max_entries(1, 0);
#[map]
pub static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// One load of four bytes: the compiler must not read the value again.
#[inline(always)]
fn load(value: Option<&u32>) -> u32 {
    // SAFETY: a reference to a map value is valid and aligned.
    value.map_or(0, |value| unsafe { core::ptr::read_volatile(value) })
}

/// A record by its slot.
#[inline(always)]
pub fn endpoint_record(slot: RecordSlot) -> Option<&'static Endpoint> {
    ENDPOINTS.get(slot.0)
}

/// The record in force of an interface, with its slot.
#[inline(always)]
pub fn endpoint(ifindex: u32) -> Option<(RecordSlot, &'static Endpoint)> {
    let first = RecordSlot(load(ENDPOINT_SLOTS.get(position(ifindex, 0))));
    if let Some(record) = ENDPOINTS.get(first.0)
        && record.ifindex == ifindex
    {
        return Some((first, record));
    }
    // Rare: another interface has this position.
    let slot = RecordSlot(probe(ifindex));
    let record = ENDPOINTS.get(slot.0)?;
    (record.ifindex == ifindex).then_some((slot, record))
}

/// The slot of an interface that is not in its first position, or 0. Exported (global), so that the
/// verifier checks it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn probe(ifindex: u32) -> u32 {
    for probe in 1..PROBES {
        let slot = load(ENDPOINT_SLOTS.get(position(ifindex, probe)));
        if slot != 0
            && let Some(record) = ENDPOINTS.get(slot)
            && record.ifindex == ifindex
        {
            return slot;
        }
    }
    0
}

/// The mode byte of a namespace; 0, which reads as `enforce`, if the slot does not exist.
#[inline(always)]
pub fn namespace_mode(slot: NamespaceSlot) -> u8 {
    load(NAMESPACE_MODE.get(slot.0)) as u8
}

/// The epoch of an address's slot.
#[inline(always)]
pub fn epoch(slot: u32) -> u32 {
    load(IDENTITY_EPOCH.get(slot))
}

/// The owner number of an address's slot.
#[inline(always)]
pub fn owner(slot: u32) -> u32 {
    load(OWNERS.get(slot))
}

/// The class of an identity; [`ClassId::ANY`] if it has none.
#[inline(always)]
pub fn class(identity: IdentityId) -> ClassId {
    ClassId(load(CLASSES.get(identity.0).map(|class| &class.0)))
}

/// The secret that places flows in sets.
#[inline(always)]
pub fn ct_seed() -> [u64; 2] {
    CT_SEED.get(0).map_or([0; 2], |seed| *seed)
}

/// What one endpoint may use of conntrack.
#[inline(always)]
pub fn ct_share() -> Share {
    CT_SHARE.get(0).map_or_else(Share::default, |share| *share)
}

/// An endpoint's account. Other CPUs change it: read with one load, change by atomic addition.
#[inline(always)]
pub fn ct_usage(number: EndpointNumber) -> Option<*mut Usage> {
    CT_USAGE.get_ptr_mut(number.0)
}

/// What the agent's last sweep found about an endpoint's account.
#[inline(always)]
pub fn ct_usage_excess(number: EndpointNumber) -> Excess {
    CT_USAGE_SWEEP
        .get(number.0)
        .map_or_else(Excess::default, |excess| *excess)
}

/// What every packet uses, in few cache lines: each per-CPU map costs one of its own for its pointer.
#[repr(C)]
struct PacketScratch {
    found: CtEntry,
    key4: CtKey4,
    reserved: u32,
    packet4: CurrentPacket<Ip4>,
    key6: CtKey6,
    packet6: CurrentPacket<Ip6>,
}

/// This CPU's packet scratch space.
///
/// The compiler may add a field's offset before it compares the pointer with null, which verifiers up to
/// Linux 6.1 refuse (`pointer arithmetic on map_value_or_null prohibited`). An assembly block, which is
/// executed only after the comparison, keeps it from that. It has an instruction, because the kernel
/// refuses line information of none.
#[inline(always)]
#[allow(
    clippy::pointers_in_nomem_asm_block,
    reason = "the block copies the pointer and does not follow it"
)]
fn packet_scratch() -> Option<*mut PacketScratch> {
    let mut slot = SCRATCH_PACKET.get_ptr_mut(0)?;
    // SAFETY: the value stays what it is.
    unsafe { asm!("{0} = {0}", inout(reg) slot, options(nomem, nostack, preserves_flags)) };
    Some(slot)
}

/// This CPU's sealed copy of the packet's conntrack entry.
#[inline(always)]
pub fn scratch_found() -> Option<&'static mut CtEntry> {
    let slot = packet_scratch()?;
    // SAFETY: as for `scratch_entry`, except that an ICMP error and its quoted packet take it in turn.
    // Each field has its own references.
    Some(unsafe { &mut (*slot).found })
}

/// This CPU's conntrack key of IPv4.
#[inline(always)]
pub fn scratch_key4() -> Option<&'static mut CtKey4> {
    let slot = packet_scratch()?;
    // SAFETY: as for `scratch_found`.
    Some(unsafe { &mut (*slot).key4 })
}

/// This CPU's conntrack key of IPv6.
#[inline(always)]
pub fn scratch_key6() -> Option<&'static mut CtKey6> {
    let slot = packet_scratch()?;
    // SAFETY: as for `scratch_found`.
    Some(unsafe { &mut (*slot).key6 })
}

/// This CPU's packet of IPv4.
#[inline(always)]
pub fn scratch_packet4() -> Option<&'static mut CurrentPacket<Ip4>> {
    let slot = packet_scratch()?;
    // SAFETY: as for `scratch_found`.
    Some(unsafe { &mut (*slot).packet4 })
}

/// This CPU's packet of IPv6.
#[inline(always)]
pub fn scratch_packet6() -> Option<&'static mut CurrentPacket<Ip6>> {
    let slot = packet_scratch()?;
    // SAFETY: as for `scratch_found`.
    Some(unsafe { &mut (*slot).packet6 })
}

/// This CPU's candidates for a way.
#[inline(always)]
pub fn scratch_candidates() -> Option<&'static mut Candidates> {
    let slot = SCRATCH_CANDIDATES.get_ptr_mut(0)?;
    // SAFETY: as for `scratch_entry`.
    Some(unsafe { &mut *slot })
}

/// This CPU's scratch conntrack entry.
#[inline(always)]
pub fn scratch_entry() -> Option<&'static mut CtEntry> {
    let slot = SCRATCH_ENTRY.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot of a preallocated per-CPU array. Programs do not nest, and each takes
    // it once per packet.
    Some(unsafe { &mut *slot })
}

/// This CPU's scratch policy lookup.
#[inline(always)]
pub fn policy_lookup() -> Option<&'static mut PolicyLookup> {
    let slot = SCRATCH_LOOKUP.get_ptr_mut(0)?;
    // SAFETY: as for `scratch_entry`, except that several functions take it in turn; each ends its
    // reference before it calls another one or returns.
    Some(unsafe { &mut *slot })
}

/// One of this CPU's cached policy decisions.
#[inline(always)]
pub fn cached_decision(slot: u32) -> Option<&'static mut CachedDecision> {
    let cached = POLICY_CACHE.get_ptr_mut(slot)?;
    // SAFETY: as for `policy_lookup`. A zeroed slot is a lookup with direction 0, which does not
    // exist.
    Some(unsafe { &mut *cached })
}

/// This CPU's scratch reject packet.
#[inline(always)]
pub fn reject_buffer() -> Option<&'static mut RejectBuffer> {
    let slot = SCRATCH_REJECT.get_ptr_mut(0)?;
    // SAFETY: as for `scratch_entry`: taken once per packet and hook.
    Some(unsafe { &mut *slot })
}

/// The kernel's `POLICY` map behind the lookup trait of `ringfence_common`.
pub struct Policy;

impl PolicyTable for Policy {
    #[inline(always)]
    fn row(&self, key: &PolicyKey) -> Option<PolicyRow> {
        POLICY.get(Key::new(PolicyKey::FULL_BITS, *key)).copied()
    }
}
