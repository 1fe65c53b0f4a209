//! The two clocks of the packet path.
//!
//! Invariants: durations (entry timeouts, report intervals) use [`ticks`]; points in time written
//! by people (rule validity) use [`boot`]. The two are never compared. `ticks` is a load; `boot` is
//! a helper call and was the most expensive call of an established packet, so it is read only where
//! it is needed.

use core::ptr::read_volatile;

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns},
};
use ringfence_common::conntrack::{
    Timeout, Timeouts,
    timeouts::{MASK, nanoseconds},
};

/// Set at load time: nanoseconds per kernel tick (jiffy).
#[unsafe(no_mangle)]
static TICK: Global<u64> = Global::new(4_000_000);

/// Nanoseconds by the kernel's tick counter. The resolution is one tick, 1 to 10 ms. The counter
/// stops during suspend, as the timeouts of nf_conntrack do. Since Linux 5.6 the verifier inlines
/// the helper call as a load.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: the helper takes no argument and reads a counter.
    let jiffies = unsafe { bpf_jiffies64() };
    jiffies.wrapping_mul(TICK.load())
}

/// Nanoseconds since boot, including suspend.
#[inline(always)]
pub fn boot() -> u64 {
    // SAFETY: the helper takes no argument and reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Set at load time: the timeouts of conntrack entries.
#[unsafe(no_mangle)]
static TIMEOUTS: Timeouts = Timeout::DEFAULTS;

/// A timeout in nanoseconds.
#[inline(always)]
pub fn timeout(timeout: Timeout) -> u64 {
    // SAFETY: an element of a static; volatile, because the loader changes it.
    let seconds = unsafe {
        read_volatile(
            (&raw const TIMEOUTS)
                .cast::<u32>()
                .add(timeout as usize & MASK),
        )
    };
    nanoseconds(seconds)
}
