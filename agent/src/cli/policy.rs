//! `ringfence policy …`: work on policy files, without an agent.
//!
//! Wiring only: parsing, linting and judging are done by the library.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;

#[derive(Debug, clap::Subcommand)]
pub(super) enum PolicyCommand {
    /// Validate and lint policy files.
    ///
    /// Exits with 0 if they are clean, 1 if there are findings, 2 if a file is invalid.
    Check(CheckArguments),
    /// Judge queries, one JSON object per line, and print one verdict line for each.
    ///
    /// A query is {"from":"x/a","to":"y/b","port":"tcp/80","family":4}, where `from` and `to` are
    /// workloads or addresses. Both ends are judged; modes are ignored. Exits with 2 if a query
    /// is malformed.
    Eval(EvalArguments),
}

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// Policy files or directories of them.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct EvalArguments {
    /// A policy file or a directory of them.
    #[arg(long, value_name = "PATH")]
    policies: PathBuf,
    /// The inventory.
    #[arg(long, value_name = "FILE")]
    inventory: PathBuf,
    /// The queries, JSON lines; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// Judge as of this time, such as 2026-12-01T00:00:00Z, instead of now.
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
}

pub(super) fn run(command: &PolicyCommand) -> Result<ExitCode> {
    match command {
        PolicyCommand::Check(arguments) => check(arguments),
        PolicyCommand::Eval(arguments) => eval(arguments),
    }
}

fn check(arguments: &CheckArguments) -> Result<ExitCode> {
    bail!("cannot check {} file(s) yet", arguments.files.len())
}

fn eval(arguments: &EvalArguments) -> Result<ExitCode> {
    let EvalArguments {
        policies,
        inventory,
        queries,
        now,
    } = arguments;
    bail!(
        "cannot judge {} with {} and {} as of {now:?} yet",
        queries.display(),
        policies.display(),
        inventory.display()
    )
}
