//! Hostile frames of every family against the real agent: what policy denies does not arrive.
//!
//! There is a test for each family; together they send ten thousand frames in each of three
//! networks, which the tests share while any of them runs. `RINGFENCE_ATTACK_SEED` repeats a run.

#![allow(
    clippy::indexing_slicing,
    reason = "a test that cannot continue should stop"
)]

mod drops;
mod families;
mod kernel_drops;
mod netfilter;
mod path_mtu;
mod refragmented;
mod rejects;
mod routed;
mod shared;
mod timeouts;
