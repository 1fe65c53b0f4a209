//! `cargo xtask`: the commands that build, test, show, measure and check Ringfence.
//!
//! Each subcommand has its own module; this file only parses arguments and dispatches.
//! It does not decide how anything is built or checked.

mod apt;
mod attack;
mod bench;
mod build;
mod child;
mod conformance;
mod demo;
mod differential;
mod flood;
mod fuzz;
mod lint;
mod mutants;
mod oracle;
mod report;
mod setup;
mod test;
mod toolchain;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Ringfence's build, test, demo and lint commands"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install the eBPF toolchain and the system packages the tests need
    Setup {
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Build the agent with its kernel programs and print the path of the binary
    Build {
        /// Build without optimisation (the kernel programs are optimised all the same)
        #[arg(long)]
        debug: bool,
    },
    /// Run every test, on a release build of the agent; needs root
    Test {
        /// Passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Show Ringfence at work on this machine; needs root
    Demo {
        /// Passed on to the demo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Measure Ringfence on this machine; needs root
    Bench {
        /// Passed on to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a folder of conformance cases, on the wire (needs root) or offline
    Conformance {
        /// Passed on to the runner: DIR [--filter NAME] [--offline] [--jobs N]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Flood a node from one endpoint and see what it costs the others; needs root
    Flood {
        /// Passed on to the flood: [--seconds N] [--rate N]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Attack the fence with hostile frames on the wire; needs root
    Attack {
        /// Passed on to the attack: [--frames N] [--seed S] [--family NAME]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Compare random policy sets with the oracle, on the host and in the kernel; needs root
    Oracle {
        /// How many policy sets the host compares, and the kernel six for each hundred
        #[arg(long)]
        cases: Option<u32>,
    },
    /// Show random frames to the kernel programs and compare what they do; needs root
    Differential {
        /// How many packets, instead of 100,000
        #[arg(long)]
        packets: Option<u64>,
    },
    /// Run the policy tests against each seeded bug, which one of them must catch; needs root
    Mutants {
        /// Only bugs whose name contains this
        #[arg(long)]
        filter: Option<String>,
    },
    /// Look for inputs that break a promise of the parsers, the control API or the flow log
    Fuzz {
        /// How long each target runs
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Only targets whose name contains this
        #[arg(long)]
        target: Option<String>,
    },
    /// Check format, clippy, imports, sizes, attributes, unsafe code and licences
    Lint,
}

fn main() -> ExitCode {
    perform().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn perform() -> Result<ExitCode> {
    match Arguments::parse().task {
        Task::Setup { dry_run } => setup::run(dry_run),
        Task::Build { debug } => build::run(debug),
        Task::Test { arguments } => test::run(&keep_separator(arguments)),
        Task::Demo { arguments } => demo::run(&keep_separator(arguments)),
        Task::Bench { arguments } => bench::run(&keep_separator(arguments)),
        Task::Conformance { arguments } => conformance::run(&keep_separator(arguments)),
        Task::Flood { arguments } => flood::run(&keep_separator(arguments)),
        Task::Attack { arguments } => attack::run(&keep_separator(arguments)),
        Task::Oracle { cases } => oracle::run(cases),
        Task::Differential { packets } => differential::run(packets),
        Task::Mutants { filter } => mutants::run(filter.as_deref()),
        Task::Fuzz { seconds, target } => fuzz::run(seconds, target.as_deref()),
        Task::Lint => lint::run(),
    }
}

/// Puts back a leading `--`, which clap takes for its own and the child needs:
/// `cargo xtask test -- --nocapture`.
fn keep_separator(parsed: Vec<OsString>) -> Vec<OsString> {
    let given: Vec<OsString> = std::env::args_os().skip(2).collect();
    if given.len() > parsed.len() {
        given
    } else {
        parsed
    }
}
