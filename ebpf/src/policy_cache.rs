//! Policy decisions that this CPU made within the current tick: bursts of new flows repeat the same
//! lookup.
//!
//! Invariants: a decision is used only for exactly the same lookup and only until the tick ends.
//! Decisions that change with time and failed lookups are not cached. A table's rows for a class
//! are written before anything refers to them, do not change, and are removed a grace period after
//! the last reference, which is much longer than a tick. So a decision of this tick equals what the
//! trie would return.

use ringfence_common::{
    ids::RuleSlot,
    mode::Verdict,
    policy::{Decision, FOREVER, PolicyKey},
};

use crate::maps;

/// Slots per CPU, a power of two.
pub const SLOTS: u32 = 64;

/// A lookup key and its decision, 32 bytes.
#[repr(C)]
pub struct CachedDecision {
    /// Tick-clock time of the lookup.
    now: u64,
    key: PolicyKey,
    rule: RuleSlot,
    /// A [`Verdict`].
    verdict: u8,
    /// 1 if the rule rejects.
    reject: u8,
    reserved: [u8; 6],
}

/// The slot of a key.
#[inline(always)]
fn slot(key: &PolicyKey) -> Option<&'static mut CachedDecision> {
    let [table, class, flow] = key.words();
    let mixed = table ^ class.rotate_left(16) ^ flow.rotate_left(8);
    // Fibonacci hashing: the top bits of the product depend on all bits of the word.
    maps::cached_decision(mixed.wrapping_mul(0x9e37_79b1) >> (32 - SLOTS.trailing_zeros()))
}

/// The decision that this CPU made for this key within the tick.
#[inline(always)]
pub fn get(key: &PolicyKey, now: u64) -> Option<Decision> {
    let cached = slot(key)?;
    let ([table, class, flow], kept) = (key.words(), cached.key.words());
    let table = table ^ kept[0];
    let flow = class ^ kept[1] | flow ^ kept[2];
    let old = cached.now ^ now;
    // A single comparison, because the verifier follows each branch.
    let differs = old | u64::from(table | flow);
    (differs == 0).then(|| Decision {
        verdict: Verdict::from_raw(cached.verdict),
        rule: cached.rule,
        recheck: FOREVER,
        reject: cached.reject != 0,
    })
}

/// Caches a decision, unless it changes with time.
#[inline(always)]
pub fn put(key: &PolicyKey, now: u64, decision: &Decision) {
    let changes = decision.recheck != FOREVER;
    if changes {
        return;
    }
    if let Some(cached) = slot(key) {
        *cached = CachedDecision {
            now,
            key: *key,
            rule: decision.rule,
            verdict: decision.verdict as u8,
            reject: u8::from(decision.reject),
            reserved: [0; 6],
        };
    }
}
