//! The maps on the kernel side. Names, capacities and layouts come from `ringfence_common`.
//!
//! Invariants: control maps are written only by the agent and are not preallocated, so a looked-up
//! value stays valid for the run of the program. Values of conntrack and of LRU maps may be
//! recycled during the run, so a verdict in conntrack changes only by replacing the whole entry.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use ringfence_common::{
    conntrack::{CtEntry, CtKey4, CtKey6},
    deny_aggregate::{DenyCount, DenyKey},
    endpoint::Endpoint,
    event::FlowEvent,
    fragment::{FragmentKey4, FragmentKey6, FragmentPorts},
    ids::{ClassId, IdentityId, NamespaceSlot},
    maps::{
        CIDR_CAPACITY, CONNTRACK_CAPACITY, DENIES_CAPACITY, ENDPOINTS_CAPACITY, EPOCHS,
        EVENTS_BYTES, FRAGMENT_CAPACITY, IDENTITIES, IPCACHE_CAPACITY, NAMESPACES, POLICY_CAPACITY,
        RULES, RuleHit, UNREPLIED_CAPACITY,
    },
    net::{Ip4, Ip6},
    policy::{PolicyKey, PolicyRow, PolicyTable},
    quota::Usage,
    reject::{REJECTS_CAPACITY, RejectKey, RejectLimit},
    stats::STATS as COUNTERS,
};

use crate::{
    policy::PolicyLookup,
    policy_cache::{CachedDecision, SLOTS},
    reject::RejectBuffer,
};

#[map]
pub static ENDPOINTS: HashMap<u32, Endpoint> =
    HashMap::with_max_entries(ENDPOINTS_CAPACITY, BPF_F_NO_PREALLOC);
#[map]
static NAMESPACE_MODE: Array<u32> = Array::with_max_entries(NAMESPACES, 0);
#[map]
pub static IPCACHE4: HashMap<Ip4, IdentityId> =
    HashMap::with_max_entries(IPCACHE_CAPACITY, BPF_F_NO_PREALLOC);
#[map]
pub static IPCACHE6: HashMap<Ip6, IdentityId> =
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
#[map]
pub static CT4: HashMap<CtKey4, CtEntry> =
    HashMap::with_max_entries(CONNTRACK_CAPACITY, BPF_F_NO_PREALLOC);
#[map]
pub static CT6: HashMap<CtKey6, CtEntry> =
    HashMap::with_max_entries(CONNTRACK_CAPACITY, BPF_F_NO_PREALLOC);
#[map]
pub static CT_UNREPLIED4: LruHashMap<CtKey4, CtEntry> =
    LruHashMap::with_max_entries(UNREPLIED_CAPACITY, 0);
#[map]
pub static CT_UNREPLIED6: LruHashMap<CtKey6, CtEntry> =
    LruHashMap::with_max_entries(UNREPLIED_CAPACITY, 0);
/// Each endpoint's account of conntrack entries.
#[map]
pub static CT_USAGE: HashMap<u32, Usage> =
    HashMap::with_max_entries(ENDPOINTS_CAPACITY, BPF_F_NO_PREALLOC);
/// By how much `CT_USAGE` exceeded the actual number of entries at the agent's last usage sweep.
#[map]
pub static CT_USAGE_SWEEP: HashMap<u32, u64> =
    HashMap::with_max_entries(ENDPOINTS_CAPACITY, BPF_F_NO_PREALLOC);
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
pub static REJECT_LIMITS: LruHashMap<u32, RejectLimit> =
    LruHashMap::with_max_entries(ENDPOINTS_CAPACITY, 0);
#[map]
pub static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// The mode byte of a namespace; 0, which reads as `enforce`, if the slot does not exist.
#[inline(always)]
pub fn namespace_mode(slot: NamespaceSlot) -> u8 {
    NAMESPACE_MODE.get(slot.0).map_or(0, |mode| *mode as u8)
}

/// The epoch of an address's slot.
#[inline(always)]
pub fn epoch(slot: u32) -> u32 {
    IDENTITY_EPOCH.get(slot).map_or(0, |epoch| *epoch)
}

/// The class of an identity; [`ClassId::ANY`] if it has none.
#[inline(always)]
pub fn class(identity: IdentityId) -> ClassId {
    CLASSES.get(identity.0).map_or(ClassId::ANY, |class| *class)
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
