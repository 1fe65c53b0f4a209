//! The two clocks of the packet path.
//!
//! Invariants: durations (how long an entry lives, how often something is told) go by [`ticks`], and
//! moments that people wrote go by [`boot`]. The two are never compared. Ticks cost a load, the boot
//! clock a call that was the dearest of an established packet's, so it is read only where it matters.

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns},
};

/// Set at load time: nanoseconds per tick of the kernel's.
#[unsafe(no_mangle)]
static TICK: Global<u64> = Global::new(4_000_000);

/// Nanoseconds by the kernel's tick counter: as fine as a tick, 1 to 10 ms, and still while the
/// machine sleeps, like the timeouts of the kernel's own conntrack. The verifier makes a load of the
/// call since Linux 5.6.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: the helper takes no argument and reads a counter.
    let jiffies = unsafe { bpf_jiffies64() };
    jiffies.wrapping_mul(TICK.load())
}

/// Nanoseconds since the machine started, sleep included.
#[inline(always)]
pub fn boot() -> u64 {
    // SAFETY: the helper takes no argument and reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}
