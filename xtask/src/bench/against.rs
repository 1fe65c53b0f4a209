//! `cargo xtask bench --against REV`: builds the agent of another revision, and names both builds.
//!
//! The revision is checked out in a git work tree below the target directory and built there, in a target
//! directory of its own. Its agent is kept by commit and compilers, so a second run builds nothing. The
//! checkout and its build products are not changed. The benchmark does the measurement.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::toolchain::Toolchain;
use crate::{child, setup, workspace};

const OPTION: &str = "--against";

/// The arguments of the benchmark, with the agent and the names of both builds if they ask for a
/// comparison.
pub(super) fn prepare(arguments: &[OsString]) -> Result<Vec<OsString>> {
    let mut arguments = arguments.to_vec();
    let Some(revision) = revision(&arguments)? else {
        return Ok(arguments);
    };
    let (commit, head) = (commit(&revision)?, commit("HEAD")?);
    let changed = !git(&["status", "--porcelain"])?.is_empty();
    let agent = if commit == head && !changed {
        eprintln!("{revision} is what is checked out: a plain control");
        workspace::agent_binary("release")?
    } else {
        Store::open()?.agent(&commit, &setup::ensure()?)?
    };
    let this = if changed {
        format!("{} with uncommitted changes", short(&head))
    } else {
        short(&head).to_owned()
    };
    for (option, value) in [
        ("--against-agent", agent.into_os_string()),
        ("--against-name", short(&commit).into()),
        ("--this-name", this.into()),
    ] {
        arguments.extend([OsString::from(option), value]);
    }
    Ok(arguments)
}

/// The value of the option.
fn revision(arguments: &[OsString]) -> Result<Option<String>> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if text == OPTION {
            let value = arguments.next().map(|value| value.to_string_lossy());
            let value = value.with_context(|| format!("{OPTION} needs a revision, e.g. HEAD~1"))?;
            return Ok(Some(value.into_owned()));
        }
        if let Some(value) = text.strip_prefix(OPTION).and_then(|v| v.strip_prefix('=')) {
            return Ok(Some(value.to_owned()));
        }
    }
    Ok(None)
}

/// The full hash of a revision.
fn commit(revision: &str) -> Result<String> {
    let wanted = format!("{revision}^{{commit}}");
    let hash = git(&[
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        &wanted,
    ]);
    let hash = hash.with_context(|| format!("{revision} is not a commit of this repository"))?;
    Ok(hash.trim().to_owned())
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// The output of a git command, run in the checkout.
fn git(arguments: &[&str]) -> Result<String> {
    let mut command = child::command("git");
    child::output_of(command.current_dir(workspace::root()?).args(arguments))
}

/// Agents of other revisions, below the target directory.
struct Store {
    directory: PathBuf,
    /// One process at a time checks out and builds.
    _lock: File,
}

impl Store {
    fn open() -> Result<Self> {
        let directory = workspace::target_directory()?.join("against");
        let opened = fs::create_dir_all(&directory).and_then(|()| {
            let lock = File::create(directory.join("lock"))?;
            lock.lock()?;
            Ok(lock)
        });
        let lock = opened.with_context(|| format!("locking {}", directory.display()))?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }

    /// The agent of a commit; built unless these compilers built it before.
    fn agent(&self, commit: &str, toolchain: &Toolchain) -> Result<PathBuf> {
        let kept = self.directory.join(commit);
        let (agent, built_by) = (kept.join("ringfence"), kept.join("compilers"));
        let compilers = compilers(toolchain)?;
        if agent.is_file() && fs::read_to_string(&built_by).is_ok_and(|by| by == compilers) {
            return Ok(agent);
        }
        let built = self.build(commit, toolchain);
        let built = built.with_context(|| format!("building the agent of {}", short(commit)))?;
        let keep = || -> std::io::Result<()> {
            fs::create_dir_all(&kept)?;
            // Renamed to its final name once it is complete.
            let part = kept.join("part");
            fs::copy(&built, &part)?;
            fs::rename(&part, &agent)?;
            fs::write(&built_by, &compilers)
        };
        keep().with_context(|| format!("keeping the agent in {}", kept.display()))?;
        Ok(agent)
    }

    fn build(&self, commit: &str, toolchain: &Toolchain) -> Result<PathBuf> {
        let (tree, target) = (self.directory.join("tree"), self.directory.join("target"));
        eprintln!(
            "building the agent of {} in {}",
            short(commit),
            tree.display()
        );
        check_out(&tree, commit)?;
        let mut cargo = child::command("cargo");
        cargo.current_dir(&tree).env("CARGO_TARGET_DIR", &target);
        toolchain.announce(&mut cargo);
        cargo.args(["build", "--release", "--locked"]);
        child::run(cargo.args(["--package", "ringfence", "--bin", "ringfence"]))?;
        let binary = target.join("release/ringfence");
        ensure!(
            binary.is_file(),
            "cargo built no {}; is `build.target` set?",
            binary.display()
        );
        Ok(binary)
    }
}

/// Checks a commit out in the work tree; creates the tree if it does not exist (any more).
fn check_out(tree: &Path, commit: &str) -> Result<()> {
    let git = |words: &[&OsStr]| -> Result<()> {
        let mut command: Command = child::command("git");
        child::run(command.current_dir(workspace::root()?).args(words))
    };
    let word = OsStr::new;
    if tree.join(".git").exists() {
        let words = ["checkout", "--quiet", "--force", "--detach", commit].map(word);
        return git(&[[word("-C"), tree.as_os_str()].as_slice(), &words].concat());
    }
    git(&["worktree", "prune"].map(word))?;
    let words = ["worktree", "add", "--quiet", "--force", "--detach"].map(word);
    git(&[words.as_slice(), &[tree.as_os_str(), word(commit)]].concat())
}

/// The compilers that build an agent.
fn compilers(toolchain: &Toolchain) -> Result<String> {
    let mut rustc = child::command("rustc");
    let host = child::output_of(rustc.current_dir(workspace::root()?).arg("-V"))?;
    Ok(format!("{host}{}\n", toolchain.describe()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(arguments: &[&str]) -> Option<String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        revision(&arguments).unwrap()
    }

    #[test]
    fn the_revision_is_found_as_the_benchmark_finds_it() {
        assert_eq!(found(&["--against", "HEAD~1"]).as_deref(), Some("HEAD~1"));
        let with_others = ["--quick", "--against=v1", "--metrics", "new"];
        assert_eq!(found(&with_others).as_deref(), Some("v1"));
        assert_eq!(found(&["--check"]), None);
        assert!(revision(&[OsString::from("--against")]).is_err());
    }

    #[test]
    fn commits_are_abbreviated_to_seven_digits() {
        assert_eq!(short("c4d115e223438473b1cdeb464a9b5c4709eb3f14"), "c4d115e");
        assert_eq!(short("c4d"), "c4d");
    }
}
