//! The kernel programs, run on single frames by the kernel itself (`BPF_PROG_TEST_RUN`).
//!
//! Every negative is run twice: in `enforce` the frame must be dropped for exactly one reason, and
//! in `observe` the very same frame must pass and be counted as what would have been dropped.
//! Frames are made by hand; their checksums do not matter here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop where it is"
)]

mod agreement;
mod announcements;
mod changes;
mod conntrack;
mod ct_usage;
mod denials;
mod differential;
mod errors;
mod fence;
mod fragments;
mod frames;
mod implicit_allow;
mod loaded;
mod malformed;
mod object;
mod policy;
mod policy_cache;
mod reject;
mod schedules;
mod source;
mod telemetry;
mod writes;
