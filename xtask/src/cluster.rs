//! `cargo xtask cluster`: real Kubernetes clusters on this machine.
//!
//! What a cluster is, and all of its commands, are in the crate `ringfence-cluster`, which also
//! tests use; it replaces this process. The agent is not built for it.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::{child, setup, test, workspace};

/// Programs that only clusters need, each with its package.
pub(crate) const PROGRAMS: [(&str, &str); 2] = [("runc", "runc"), ("cc", "gcc")];
/// The oldest Go that builds Kubernetes.
const GO: (u32, u32) = (1, 26);

/// The subcommand.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let asks_for_help = |argument: &OsString| argument == "--help" || argument == "-h";
    if !arguments.iter().any(asks_for_help) && !arguments.is_empty() {
        test::require_root("clusters")?;
        if arguments.first().is_some_and(|command| builds(command)) {
            setup::ensure_cluster()?;
        }
    }
    let mut cargo = child::command("cargo");
    cargo
        .current_dir(workspace::root()?)
        .args(["run", "--quiet", "--package", "ringfence-cluster", "--"])
        .args(arguments);
    match child::replace_by(cargo)? {}
}

/// Whether a command builds programs of a cluster. The others work with what a cluster was started from, also
/// where nothing can be installed any more.
fn builds(command: &OsStr) -> bool {
    ["up", "check", "helm"].iter().any(|it| command == *it)
}

/// The version of the installed Go, which must be new enough. No Debian release has such a one, so
/// it is not installed.
pub(crate) fn go() -> Result<String> {
    let remedy = format!(
        "install Go {}.{} or later from https://go.dev/dl",
        GO.0, GO.1
    );
    ensure!(child::find_program("go").is_some(), "no Go here: {remedy}");
    let version = child::output_of(child::command("go").arg("version"))?;
    let parsed = parse_go_version(&version);
    ensure!(
        parsed.is_some_and(|found| found >= GO),
        "`{}` is too old for Kubernetes: {remedy}",
        version.trim()
    );
    Ok(version.trim().to_owned())
}

/// Major and minor of a line like `go version go1.26.8 linux/amd64`.
fn parse_go_version(line: &str) -> Option<(u32, u32)> {
    let version = line.split_whitespace().nth(2)?.strip_prefix("go")?;
    let mut parts = version.split(['.', 'r', 'b']);
    let mut next = || parts.next()?.parse().ok();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::{builds, parse_go_version};

    #[test]
    fn a_cluster_is_ended_without_go() {
        let building = [
            "up", "down", "status", "list", "logs", "kubectl", "exec", "check", "helm",
        ];
        let building = building.into_iter().filter(|it| builds(it.as_ref()));
        assert_eq!(building.collect::<Vec<_>>(), ["up", "check", "helm"]);
    }

    #[test]
    fn versions_of_go_are_compared_as_numbers() {
        let parsed = |version: &str| parse_go_version(&format!("go version {version} linux/amd64"));
        assert_eq!(parsed("go1.26.8"), Some((1, 26)));
        assert_eq!(parsed("go1.9"), Some((1, 9)));
        assert_eq!(parsed("go1.27rc1"), Some((1, 27)));
        assert_eq!(parsed("devel"), None);
        assert!(parsed("go1.9") < parsed("go1.26.8"));
    }
}
