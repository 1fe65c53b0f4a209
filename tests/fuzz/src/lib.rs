//! Properties that must hold for any input, with one function for each place where input is read.
//!
//! Each function takes arbitrary bytes and panics if a property is violated. `targets/` passes them
//! to libFuzzer (`cargo xtask fuzz`), and an ordinary test runs them on every seed.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a violated property is a panic: that is what the fuzzer looks for"
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
