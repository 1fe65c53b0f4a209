//! Ringfence's kernel programs: parse, look up, decide with `ringfence_common`, act.
//!
//! Five programs: `from_workload` and `to_workload`, one per direction and shared by all
//! endpoints; a stand-in for each of them; and `clocks`, which shows the agent the programs' clocks.
//! Pass is `TC_ACT_UNSPEC`, so that later programs still run; drop is `TC_ACT_SHOT`.
#![no_std]
#![no_main]
#![allow(
    internal_features,
    reason = "the target has no atomic types; the intrinsic is the only addition that other CPUs see whole"
)]
#![feature(core_intrinsics, asm_experimental_arch)]
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a program, not a library: modules document themselves"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "the classifier macro hands the context over by value"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "fields of __sk_buff are u32 whatever they hold"
)]
#![allow(
    unsafe_code,
    reason = "kernel memory and helpers are only reachable through raw pointers; every block says why it holds"
)]

mod clock;
mod conntrack;
mod context;
mod ct_evaluate;
mod ct_new;
mod ct_store;
mod ct_unreplied;
mod ct_usage;
mod current_packet;
mod dhcp;
mod discovery;
mod established;
mod events;
mod family;
mod global_functions;
mod implicit_allow;
mod maps;
mod pipeline;
mod policy;
mod policy_cache;
mod reject;
mod skb;
mod stand_in;

use aya_ebpf::{
    macros::{classifier, map},
    maps::Array,
    programs::TcContext,
};

/// Packets leaving a workload: TC ingress of its host-side interface.
#[classifier]
pub fn from_workload(ctx: TcContext) -> i32 {
    pipeline::run::<true>(&ctx)
}

/// Packets to a workload: TC egress of its host-side interface.
#[classifier]
pub fn to_workload(ctx: TcContext) -> i32 {
    pipeline::run::<false>(&ctx)
}

/// `from_workload`, while that moves to the head of a hook.
#[classifier]
pub fn stand_in_from(ctx: TcContext) -> i32 {
    stand_in::call::<true>(&ctx, 0)
}

/// `to_workload`, while that moves to the head of a hook.
#[classifier]
pub fn stand_in_to(ctx: TcContext) -> i32 {
    stand_in::call::<false>(&ctx, 1)
}

#[map]
static CLOCK: Array<u64> = Array::with_max_entries(2, 0);

/// Writes both clocks to `CLOCK`, the boot clock first. A process in a time namespace sees a
/// different clock than the programs, so the agent reads this map before it writes a time.
#[classifier]
pub fn clocks(_ctx: TcContext) -> i32 {
    let written = CLOCK
        .set(0, clock::boot(), 0)
        .and_then(|()| CLOCK.set(1, clock::ticks(), 0));
    i32::from(written.is_err())
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Some helpers are available only to GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
