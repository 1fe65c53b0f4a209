//! The command line: arguments, commands and their output.
//!
//! Invariants: `--help` documents every command; every listing takes `-o json`; untrusted text is
//! escaped before it reaches a terminal; the exit code is 0 for success, 1 for failure (`status`: also
//! while something is not in force or a source has an error) and 2 for bad usage or invalid input. Policy is evaluated by the agent or by the `policy` module, never
//! here.

mod agent;
mod arguments;
mod duration;
mod flow_line;
mod flows;
mod listing;
mod listings;
mod mode;
mod output;
mod policy;
mod probe;
mod status;
mod table;
mod tracing_setup;

use std::process::ExitCode;

use anyhow::{Context, Result};

pub use arguments::Cli;

use arguments::Subcommand;

use crate::app::AppError;
use crate::server::Client;

/// The user's input is invalid; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidInput(pub String);

/// Runs a command.
///
/// # Errors
/// Why it failed; [`exit_code`] gives the exit code.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let client = Client::new(&cli.socket);
    let done = |()| ExitCode::SUCCESS;
    match cli.command {
        Subcommand::Agent(arguments) => agent::run(&arguments),
        Subcommand::Cleanup(arguments) => agent::cleanup(&arguments),
        Subcommand::MountBpffs => agent::mount_bpffs(),
        #[cfg(feature = "kubernetes")]
        Subcommand::AwaitCleanup(arguments) => block_on(agent::await_cleanup(arguments)),
        Subcommand::Policy { command } => policy::run(&client, &command),
        Subcommand::Status(arguments) => block_on(status::run(&client, &arguments)),
        Subcommand::Probe { question } => block_on(probe::run(&client, question)),
        Subcommand::Endpoints(arguments) => {
            block_on(listings::endpoints(&client, &arguments)).map(done)
        }
        Subcommand::Identities(arguments) => {
            block_on(listings::identities(&client, &arguments)).map(done)
        }
        Subcommand::Policies(arguments) => {
            block_on(listings::policies(&client, &arguments)).map(done)
        }
        Subcommand::Rules(arguments) => block_on(listings::rules(&client, &arguments)).map(done),
        Subcommand::Flows(arguments) => block_on(flows::run(&client, &arguments)).map(done),
        Subcommand::Mode { command } => block_on(mode::run(&client, &command)).map(done),
    }
}

/// The exit code of a failed command; 0 if it only failed because the reader of its output closed
/// the pipe.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if is_broken_pipe(error) {
        return 0;
    }
    if let Some(error) = error.downcast_ref::<AppError>() {
        return error.exit_code();
    }
    if error.is::<InvalidInput>() { 2 } else { 1 }
}

/// The error message of a failed command, safe for a terminal.
#[must_use]
pub fn message(error: &anyhow::Error) -> String {
    let text = format!("error: {error:#}");
    let lines: Vec<_> = text.lines().map(table::escape).collect();
    lines.join("\n")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_line_feeds_and_escape_everything_else() {
        let error = anyhow::anyhow!("a\u{1b}[2J\nb").context("reading");
        assert_eq!(message(&error), "error: reading: a\\u{1b}[2J\nb");
    }

    #[test]
    fn exit_codes() {
        assert_eq!(exit_code(&anyhow::anyhow!("no")), 1);
        assert_eq!(exit_code(&InvalidInput("no".into()).into()), 2);
        let wrapped = anyhow::Error::from(InvalidInput("no".into())).context("reading");
        assert_eq!(exit_code(&wrapped), 2);
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(exit_code(&pipe.into()), 0);
    }
}
