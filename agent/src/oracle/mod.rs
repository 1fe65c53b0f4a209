//! The reference for the compiler and the kernel programs: a naive evaluator of policies, and
//! random worlds to run it on.
//!
//! Built for tests only: the agent's own, and with the feature `oracle` those of other packages.
//! Invariants: the evaluator shares no code with the compiler; every random run has a seed that
//! repeats it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test that cannot continue should stop where it is"
)]

mod compare;
mod meaning;
mod run;
mod worlds;

pub use compare::{agrees, name};
pub use meaning::{Oracle, Pair, Said};
pub use run::{cases, report};
pub use worlds::{BOOT, NOW, PROTOCOLS, World, history, world};
