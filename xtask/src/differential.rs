//! `cargo xtask differential`: random frames under random policies, through the kernel programs.
//!
//! The test is also part of `cargo xtask test`; here it runs alone, for any number of packets. Its
//! output is shown while it runs, the total comes last.

use std::process::ExitCode;

use anyhow::Result;

use crate::report::Report;
use crate::{setup, test, workspace};

/// The environment variable with the number of packets; `tests/tests/kernel/differential.rs` reads
/// it.
const PACKETS: &str = "RINGFENCE_DIFFERENTIAL_PACKETS";
const TEST: &str = "programs_and_model_agree_on_random_frames";

/// The subcommand.
pub(crate) fn run(packets: Option<u64>) -> Result<ExitCode> {
    test::require_root("the kernel programs")?;
    let toolchain = setup::ensure()?;
    let mut cargo = workspace::cargo(&toolchain)?;
    cargo.args(["test", "--quiet", "--package", "ringfence-testbed"]);
    cargo.args(["--test", "kernel", "--", "--nocapture", TEST]);
    cargo.envs(packets.map(|packets| (PACKETS, packets.to_string())));
    Report::run_tests(cargo)
}
