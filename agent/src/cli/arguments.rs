//! All commands and options, with their help texts.
//!
//! Invariant: whatever can be checked in a single argument is checked here, so that bad usage exits
//! with 2 before anything happens. The other modules run the commands, one module per group.

use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};

use super::agent::{AgentArguments, CleanupArguments};
use super::duration::Duration;
use super::flows::FlowArguments;
use super::mode::ModeCommand;
use super::policy::PolicyCommand;
use super::probe::Question;

/// The default control socket.
const SOCKET: &str = "/run/ringfence/ringfence.sock";

/// Micro-segmentation agent: default-deny between identified workloads, enforced in the kernel.
///
/// `ringfence agent` runs the daemon on a node. The other commands query the running agent, except
/// `policy`, which mostly works on files, and `cleanup`, which requires that the agent is stopped.
///
/// Workloads are written as namespace/name, ports as tcp/8080. Exit codes: 0 success, 1 failure,
/// 2 bad usage, invalid input, or another agent in the way.
#[derive(Debug, Parser)]
#[command(
    name = "ringfence",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// The agent's control socket.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value_os_t = socket_default(),
        hide_default_value = true,
        long_help = "The agent's control socket [env: RINGFENCE_SOCKET] [default: \
                     /run/ringfence/ringfence.sock]"
    )]
    pub(super) socket: PathBuf,
    #[command(subcommand)]
    pub(super) command: Subcommand,
}

fn socket_default() -> PathBuf {
    std::env::var_os("RINGFENCE_SOCKET").map_or_else(|| PathBuf::from(SOCKET), PathBuf::from)
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Run the daemon.
    ///
    /// Attaches to the interfaces of the inventory's workloads, applies policies, watches the files
    /// for changes, and rereads them on SIGHUP. On SIGTERM it exits and leaves enforcement running;
    /// see `cleanup`. The log goes to stderr, filtered by RINGFENCE_LOG (default: info).
    Agent(AgentArguments),
    /// Show the agent's state.
    Status(Listing),
    /// Ask the agent whether it lives or is ready, as an exec probe of a pod.
    Probe {
        /// What to ask.
        question: Question,
    },
    /// List the workloads of this node.
    Endpoints(Listing),
    /// List identities: sets of peers that policy cannot tell apart.
    Identities(Listing),
    /// List the policies in force.
    Policies(Listing),
    /// List the rules in force and their hits.
    Rules(RuleArguments),
    /// Show flows with their verdicts.
    Flows(FlowArguments),
    /// Show or change the modes of namespaces.
    Mode {
        #[command(subcommand)]
        command: ModeCommand,
    },
    /// Check, evaluate and explain policies.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Detach all programs and remove all maps; this ends enforcement.
    ///
    /// Stop the agent first; while one runs, this fails with exit code 2 unless it may wait.
    Cleanup(CleanupArguments),
    /// Mount bpffs on /sys/fs/bpf, if it is not there; needs CAP_SYS_ADMIN.
    MountBpffs,
    /// Wait until pods of a cluster have run `cleanup` on every node, and name the nodes that are missing.
    #[cfg(feature = "kubernetes")]
    AwaitCleanup(super::agent::AwaitArguments),
}

/// The output format of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct Listing {
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

#[derive(Debug, Args)]
pub(super) struct RuleArguments {
    /// Only rules of policies without a verdict for this long, such as 30d.
    #[arg(long, value_name = "DURATION")]
    pub(super) unused: Option<Duration>,
    #[command(flatten)]
    pub(super) listing: Listing,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_documented_command_parses() {
        for line in [
            "agent --config f",
            "agent --config f --wait-for-lock",
            "cleanup --config f",
            "cleanup --config f --wait-for-lock --hold",
            "probe live",
            "probe ready",
            "status -o json",
            "endpoints",
            "identities --socket /tmp/s",
            "policies -o table",
            "rules --unused 30d",
            "flows -f --last 5 --since 5m -n shop --verdict would-deny -o json",
            "flows --workload shop/a",
            "mode get",
            "mode get shop -o json",
            "mode set shop enforce",
            "policy check a.toml b.toml",
            "policy check a.toml --inventory i --deny any-peer --allow no-ports -o sarif",
            "policy test a.toml b.toml --inventory i --flows f.jsonl --flows f.toml -o json",
            "policy explain --from a/b --to 10.0.0.1 --port tcp/80 --family 6 --all -o json",
            "policy explain --from a/b --to c/d --port http --policies p q --inventory f",
            "policy diff old new --inventory f --inventory-new g -o json",
            "policy reach --from a/b --transitive --port tcp --policies p --inventory f -o dot",
            "policy eval --policies d --inventory f --queries q.jsonl --now 2026-01-01T00:00:00Z",
        ] {
            let words = std::iter::once("ringfence").chain(line.split(' '));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn bad_usage_is_refused() {
        for (line, kind) in [
            ("agent", ErrorKind::MissingRequiredArgument),
            ("cleanup --config f --for-ever", ErrorKind::UnknownArgument),
            ("rules --unused soon", ErrorKind::ValueValidation),
            ("flows --verdict dropped", ErrorKind::ValueValidation),
            ("flows -n Shop", ErrorKind::ValueValidation),
            ("mode set shop open", ErrorKind::ValueValidation),
            ("policy check", ErrorKind::MissingRequiredArgument),
            ("policy check a --deny any", ErrorKind::InvalidValue),
            ("policy test a", ErrorKind::MissingRequiredArgument),
            (
                "policy explain --from a/b --to c/d --port http --policies p",
                ErrorKind::MissingRequiredArgument,
            ),
            ("status -o xml", ErrorKind::InvalidValue),
            ("probe dead", ErrorKind::InvalidValue),
            ("nonsense", ErrorKind::InvalidSubcommand),
        ] {
            let words = std::iter::once("ringfence").chain(line.split(' '));
            assert_eq!(
                Cli::try_parse_from(words).unwrap_err().kind(),
                kind,
                "{line}"
            );
        }
    }
}
