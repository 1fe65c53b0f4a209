//! `ringfence policy …`: commands on policies, mostly on files without an agent.
//!
//! The `source` and `policy` modules parse, lint and evaluate.

mod check;
mod diff;
mod eval;
mod explain;
mod reach;
mod sarif;
mod test;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use jiff::Timestamp;

use crate::model::WallTime;
use crate::server::Client;
use crate::source::{FileSet, Reload, SourceError};

#[derive(Debug, clap::Subcommand)]
pub(super) enum PolicyCommand {
    /// Validate and lint policy files.
    ///
    /// Exits with 0 if there are no findings, 1 if there are findings, 2 if a file is invalid or a
    /// finding has a code given with --deny.
    Check(check::CheckArguments),
    /// Run the tests in policy files, and files of expected flows, against the policies.
    ///
    /// Every [[policy.test]] is evaluated with all the files as one set, over each address family
    /// that both ends have; modes are ignored. Exits with 0 if all pass, 1 if one fails, 2 if a
    /// file is invalid.
    Test(test::TestArguments),
    /// Evaluate queries, one JSON object per line, and print one verdict line for each.
    ///
    /// A query is {"from":"x/a","to":"y/b","port":"tcp/80","family":4}, where `from` and `to` are
    /// workloads or addresses. Both ends are evaluated; modes are ignored. Exits with 2 if a query
    /// is malformed.
    Eval(EvalArguments),
    /// Explain why a flow is allowed or denied, and what would change that.
    ///
    /// Without files, it uses the running agent's policies in force.
    Explain(explain::ExplainArguments),
    /// Show which flows change their verdict between two sets of policies.
    ///
    /// Workloads that policies treat alike share a line. Exits with 0 if nothing changes, 1 if
    /// something does, 2 if a file is invalid. Modes are ignored.
    Diff(diff::DiffArguments),
    /// Show what a workload can reach, and so what an intruder in it could reach.
    ///
    /// Modes are ignored, and so is traffic that applications themselves forward.
    Reach(reach::ReachArguments),
}

#[derive(Debug, Args)]
pub(super) struct EvalArguments {
    /// A policy file or a directory of them.
    #[arg(long, value_name = "PATH")]
    policies: PathBuf,
    /// The inventory.
    #[arg(long, value_name = "FILE")]
    inventory: PathBuf,
    /// The queries as JSON lines; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// Evaluate as of this time, such as 2026-12-01T00:00:00Z, instead of now.
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
}

pub(super) fn run(client: &Client, command: &PolicyCommand) -> Result<ExitCode> {
    match command {
        PolicyCommand::Check(arguments) => check::run(arguments),
        PolicyCommand::Test(arguments) => test::run(arguments),
        PolicyCommand::Eval(arguments) => eval::run(arguments),
        PolicyCommand::Explain(arguments) => explain::run(client, arguments),
        PolicyCommand::Diff(arguments) => diff::run(arguments),
        PolicyCommand::Reach(arguments) => reach::run(arguments),
    }
}

/// The exit code for invalid input.
const INVALID: u8 = 2;

/// Prints the errors of files, one line each; returns the exit code.
fn refuse(errors: &[SourceError]) -> ExitCode {
    // If stderr is closed too, only the exit code reports the errors.
    let mut out = std::io::stderr().lock();
    for error in errors {
        let _ = writeln!(out, "{error}");
    }
    ExitCode::from(INVALID)
}

/// Reads files as the agent would. If they are invalid, prints the errors and returns the exit
/// code.
fn load(inventory: &Path, policies: &[PathBuf]) -> Result<Reload, ExitCode> {
    match FileSet::load_strict(vec![inventory.to_owned()], policies.to_vec()) {
        Ok((_, reload)) => {
            for warning in &reload.warnings {
                // A warning does not prevent the result.
                let _ = writeln!(std::io::stderr(), "warning: {warning}");
            }
            Ok(reload)
        }
        Err(errors) => Err(refuse(&errors)),
    }
}

fn wall_time(time: Timestamp) -> Result<WallTime> {
    let nanoseconds = i64::try_from(time.as_nanosecond());
    let nanoseconds = nanoseconds
        .with_context(|| format!("{time} is out of range: expected a time from 1678 to 2262"))?;
    Ok(WallTime(nanoseconds))
}
