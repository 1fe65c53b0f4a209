//! A program that only calls another one.
//!
//! The kernel refuses a program twice at one hook (`bpf_mprog_attach`: EEXIST), so a fence cannot be
//! attached at the head before its place further back is given up. Its stand-in can, and is replaced by
//! the fence itself a moment later. Invariant: a packet for which there is nothing to call is denied, with
//! a reason and a counter, so `observe` lets it pass.

use aya_ebpf::{macros::map, maps::ProgramArray, programs::TcContext};

use crate::pipeline;

#[map]
static STAND_IN_FOR: ProgramArray = ProgramArray::with_max_entries(2, 0);

/// Calls a program of the array; it decides about the packet.
#[inline(always)]
pub fn call<const FROM: bool>(ctx: &TcContext, index: u32) -> i32 {
    // SAFETY: no value of this program needs to be dropped, should the called one end it.
    unsafe { STAND_IN_FOR.tail_call(ctx, index) };
    pipeline::deny_uncalled::<FROM>(ctx)
}
