//! What Ringfence promises for any input, one function for each place where input comes in.
//!
//! Each takes arbitrary bytes and panics if a promise is broken. `targets/` hands them to libFuzzer
//! (`cargo xtask fuzz`), and an ordinary test runs them on every seed. Nothing here knows what
//! runs it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a broken promise is a panic: that is what the fuzzer looks for"
)]

mod control;
mod example;
mod flow;
mod inventory;
mod message;
mod policy;

pub use control::control;
pub use flow::flow;
pub use inventory::inventory;
pub use policy::{policy_toml, policy_yaml};

#[cfg(test)]
mod tests;
