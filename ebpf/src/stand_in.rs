//! A program that only calls another one.
//!
//! The kernel refuses a program twice at one hook (`bpf_mprog_attach`: EEXIST), so a fence cannot be
//! attached at the head before its place further back is given up. Its stand-in can, and is replaced by
//! the fence itself a moment later. Invariant: a packet for which there is nothing to call is dropped.

use aya_ebpf::{bindings::TC_ACT_SHOT, macros::map, maps::ProgramArray, programs::TcContext};

#[map]
static STAND_IN_FOR: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// Calls a program of the array; it decides about the packet.
#[inline(always)]
pub fn call(ctx: &TcContext, index: u32) -> i32 {
    // SAFETY: the program ends here, whether the call is made or not, and nothing is to be dropped.
    unsafe { STAND_IN_FOR.tail_call(ctx, index) };
    TC_ACT_SHOT
}
