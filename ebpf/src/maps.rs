//! The maps as the kernel sees them; names, capacities and layouts are `ringfence_common`'s.
//!
//! Invariants: control maps are written by the agent alone and never preallocated, so a value found
//! in them stays valid for the run of the program; values of conntrack and of LRU maps may be
//! recycled under our feet, hence verdicts in conntrack change by whole replacement only.

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
/// What each endpoint holds of conntrack.
#[map]
pub static CT_USAGE: HashMap<u32, Usage> =
    HashMap::with_max_entries(ENDPOINTS_CAPACITY, BPF_F_NO_PREALLOC);
/// By how much `CT_USAGE` exceeded the truth at the agent's last sweep.
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
/// Where cold paths build what would not fit their 512 bytes of stack. One per CPU is enough: TC
/// programs run with bottom halves disabled and never nest.
#[map]
pub static SCRATCH: PerCpuArray<FlowEvent> = PerCpuArray::with_max_entries(1, 0);
/// Likewise, for a conntrack entry on its way into the map.
#[map]
static SCRATCH_ENTRY: PerCpuArray<CtEntry> = PerCpuArray::with_max_entries(1, 0);
/// Likewise, for a question to policy.
#[map]
static SCRATCH_LOOKUP: PerCpuArray<PolicyLookup> = PerCpuArray::with_max_entries(1, 0);
/// Likewise, for an answer to a rejected packet.
#[map]
static SCRATCH_REJECT: PerCpuArray<RejectBuffer> = PerCpuArray::with_max_entries(1, 0);
/// Answers of policy, by what was asked.
#[map]
static POLICY_CACHE: PerCpuArray<CachedDecision> = PerCpuArray::with_max_entries(SLOTS, 0);
/// Answers on their way from one hook to the other, and when they were sent.
#[map]
pub static REJECTS: LruHashMap<RejectKey, u64> = LruHashMap::with_max_entries(REJECTS_CAPACITY, 0);
/// When the last one was sent, whoever's it was.
#[map]
pub static LAST_REJECT: Array<u64> = Array::with_max_entries(1, 0);
/// What is left of each endpoint's answers.
#[map]
pub static REJECT_LIMITS: LruHashMap<u32, RejectLimit> =
    LruHashMap::with_max_entries(ENDPOINTS_CAPACITY, 0);
#[map]
pub static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// The mode byte of a namespace; 0, which reads as `enforce`, when the slot does not exist.
#[inline(always)]
pub fn namespace_mode(slot: NamespaceSlot) -> u8 {
    NAMESPACE_MODE.get(slot.0).map_or(0, |mode| *mode as u8)
}

/// The epoch of an address's slot.
#[inline(always)]
pub fn epoch(slot: u32) -> u32 {
    IDENTITY_EPOCH.get(slot).map_or(0, |epoch| *epoch)
}

/// The class of an identity; [`ClassId::ANY`] when it has none.
#[inline(always)]
pub fn class(identity: IdentityId) -> ClassId {
    CLASSES.get(identity.0).map_or(ClassId::ANY, |class| *class)
}

/// This CPU's conntrack entry to fill.
#[inline(always)]
pub fn scratch_entry() -> Option<&'static mut CtEntry> {
    let slot = SCRATCH_ENTRY.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot of a preallocated per-CPU array; programs do not nest, and each asks
    // once per packet.
    Some(unsafe { &mut *slot })
}

/// This CPU's question to policy.
#[inline(always)]
pub fn policy_lookup() -> Option<&'static mut PolicyLookup> {
    let slot = SCRATCH_LOOKUP.get_ptr_mut(0)?;
    // SAFETY: as for `scratch_entry`, except that it is asked for by one function after another:
    // each lets go of its reference before it calls or returns.
    Some(unsafe { &mut *slot })
}

/// One of this CPU's cached answers of policy.
#[inline(always)]
pub fn cached_decision(slot: u32) -> Option<&'static mut CachedDecision> {
    let cached = POLICY_CACHE.get_ptr_mut(slot)?;
    // SAFETY: as for `policy_lookup`; a slot of zeroes is a question in direction 0, which there is not.
    Some(unsafe { &mut *cached })
}

/// This CPU's answer to write.
#[inline(always)]
pub fn reject_buffer() -> Option<&'static mut RejectBuffer> {
    let slot = SCRATCH_REJECT.get_ptr_mut(0)?;
    // SAFETY: as for `scratch_entry`: asked for once per packet and hook.
    Some(unsafe { &mut *slot })
}

/// The kernel's `POLICY` map as `ringfence_common` asks it.
pub struct Policy;

impl PolicyTable for Policy {
    #[inline(always)]
    fn row(&self, key: &PolicyKey) -> Option<PolicyRow> {
        POLICY.get(Key::new(PolicyKey::FULL_BITS, *key)).copied()
    }
}
