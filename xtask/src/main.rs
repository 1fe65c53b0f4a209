//! `cargo xtask`: the commands that build, test, demonstrate, benchmark and check Ringfence.
//!
//! Each subcommand has its own module; this file only parses arguments and dispatches.
//! It does not decide how anything is built or checked.

mod apt;
mod attack;
mod bench;
mod build;
mod chaos;
mod child;
mod churn;
mod cluster;
mod conformance;
mod demo;
mod differential;
mod flood;
mod fuzz;
mod guest;
mod image;
mod interrupt;
mod kernels;
mod lint;
mod mutants;
mod oracle;
mod other_layout;
mod race;
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
    /// Find or install the eBPF toolchain and the system packages that the tests need
    Setup {
        /// Only print what would be done
        #[arg(long)]
        dry_run: bool,
        /// Also what `guest` and `kernels` need, which install it themselves otherwise
        #[arg(long)]
        guest: bool,
    },
    /// Build the agent with its kernel programs and print the path of the binary
    Build {
        /// Build without optimisation (the kernel programs are always optimised)
        #[arg(long)]
        debug: bool,
        /// Build an agent of another ABI version, for the tests of upgrade and downgrade
        #[arg(long, conflicts_with = "debug")]
        other_layout: bool,
        /// Build in the client of the Kubernetes API
        #[arg(long, conflicts_with = "other_layout")]
        kubernetes: bool,
    },
    /// Build a container image of the agent, linked statically, and print the path of its archive
    Image(image::Arguments),
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
    /// Run a directory of conformance cases, on the wire (needs root) or offline
    Conformance {
        /// Passed on to the runner: DIR [--filter NAME] [--offline] [--jobs N]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Flood a node from some endpoints and measure the effect on others; needs root
    Flood {
        /// Passed on to the flood: [--family NAME] [--seconds N] [--rate N]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Rewrite records under packets, which must get no wrong verdict; needs root
    Race {
        /// Passed on to the race: [--packets N] [--seed S] [--storm NAME]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Let workloads, namespaces and policies come and go; needs root
    Churn {
        /// Passed on to the churn: [--lives N] [--edits N] [--namespaces N] [--settling SECONDS]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Bring real Kubernetes clusters up and down on this machine; needs root
    #[command(disable_help_flag = true)]
    Cluster {
        /// Passed on: up, down, status, list, kubectl, exec, logs or check
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Kill the agent, replace it, or break what is around it, under traffic; needs root
    Chaos {
        /// Passed on: kills [--kills N] [--seed S], upgrades [--changes N], or faults [--fault NAME]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Send hostile frames to the fence on the wire; needs root
    Attack {
        /// Passed on to the attack: [--frames N] [--seed S] [--family NAME]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Compare random policy sets with the oracle, on the host and in the kernel; needs root
    Oracle {
        /// Number of policy sets compared on the host; the kernel compares six per hundred
        #[arg(long)]
        cases: Option<u32>,
    },
    /// Compare the kernel programs with an independent model on random frames; needs root
    Differential {
        /// Number of packets, by default 100,000
        #[arg(long)]
        packets: Option<u64>,
    },
    /// Run the tests against each seeded bug of tests/mutants, which a test must detect; needs root
    Mutants {
        /// Only bugs whose name contains this
        #[arg(long)]
        filter: Option<String>,
    },
    /// Fuzz the parsers, the control API and the flow log
    Fuzz {
        /// Seconds per target
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Only targets whose name contains this
        #[arg(long)]
        target: Option<String>,
    },
    /// Run a program on a Debian kernel in an emulated machine
    Guest(guest::Arguments),
    /// Run tests on each of Debian's kernels in an emulated machine
    Kernels(kernels::Arguments),
    /// Check format, clippy, imports, sizes, words, attributes, unsafe code, licences and seeded bugs
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
        Task::Setup { dry_run, guest } => setup::run(dry_run, guest),
        Task::Build {
            debug,
            other_layout,
            kubernetes,
        } => build::run(debug, other_layout, kubernetes),
        Task::Image(arguments) => image::run(&arguments),
        Task::Test { arguments } => test::run(&keep_separator(arguments)),
        Task::Demo { arguments } => demo::run(&keep_separator(arguments)),
        Task::Bench { arguments } => bench::run(&keep_separator(arguments)),
        Task::Conformance { arguments } => conformance::run(&keep_separator(arguments)),
        Task::Flood { arguments } => flood::run(&keep_separator(arguments)),
        Task::Race { arguments } => race::run(&keep_separator(arguments)),
        Task::Churn { arguments } => churn::run(&keep_separator(arguments)),
        Task::Cluster { arguments } => cluster::run(&keep_separator(arguments)),
        Task::Chaos { arguments } => chaos::run(&keep_separator(arguments)),
        Task::Attack { arguments } => attack::run(&keep_separator(arguments)),
        Task::Oracle { cases } => oracle::run(cases),
        Task::Differential { packets } => differential::run(packets),
        Task::Mutants { filter } => mutants::run(filter.as_deref()),
        Task::Fuzz { seconds, target } => fuzz::run(seconds, target.as_deref()),
        Task::Guest(arguments) => guest::run(arguments),
        Task::Kernels(arguments) => kernels::run(&arguments),
        Task::Lint => lint::run(),
    }
}

/// Restores a leading `--`, which clap consumes and the child needs:
/// `cargo xtask test -- --nocapture`.
fn keep_separator(parsed: Vec<OsString>) -> Vec<OsString> {
    let given: Vec<OsString> = std::env::args_os().skip(2).collect();
    if given.len() > parsed.len() {
        given
    } else {
        parsed
    }
}
