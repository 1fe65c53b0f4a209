//! Tests of the kernel programs on single frames, by `BPF_PROG_TEST_RUN`.
//!
//! Every denied frame is run twice: in `enforce` it must be dropped for exactly one reason, and in
//! `observe` the same frame must pass and be counted under the same reason. Frames are written by
//! hand; the programs do not check checksums.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed precondition fails the test"
)]

mod agreement;
mod announcements;
mod bridge;
mod changes;
mod conntrack;
mod ct_claims;
mod ct_usage;
mod denials;
mod dhcp;
mod differential;
mod discovery;
mod errors;
mod established;
mod fence;
mod fragments;
mod frames;
mod held;
mod implicit_allow;
mod linux_discovery;
mod loaded;
mod malformed;
mod migration;
mod object;
mod odd_networks;
mod originator;
mod peers;
mod poisoned;
mod policy;
mod policy_cache;
mod recycled;
mod reject;
mod reject_fuzz;
mod restart;
mod row_keys;
mod schedules;
mod source;
mod stand_in;
mod telemetry;
mod timeouts;
mod translated;
mod writes;
