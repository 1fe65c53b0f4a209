//! Starts child processes and reports their failures.
//!
//! Every child finds the programs installed by `cargo install`, even if the caller's `PATH` lacks
//! that directory. An error always contains the command line.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// A command whose `PATH` ends with cargo's directory of installed programs.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    if let Ok(path) = env::join_paths(search_path()) {
        command.env("PATH", path);
    }
    command
}

/// Runs `command` with inherited input and output; fails if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    if succeeds(command)? {
        return Ok(());
    }
    bail!("`{}` failed; its output is above", describe(command))
}

/// Runs `command` with inherited input and output; returns whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    let status = command.status().with_context(|| cannot_start(command))?;
    Ok(status.success())
}

/// Replaces this process with `command`, which then receives signals and sets the exit status.
pub(crate) fn replace_by(mut command: Command) -> Result<std::convert::Infallible> {
    let error = command.exec();
    Err(error).with_context(|| cannot_start(&command))
}

/// The standard output of `command`; if it fails, the error contains its standard error.
pub(crate) fn output_of(command: &mut Command) -> Result<String> {
    String::from_utf8(bytes_of(command)?)
        .with_context(|| format!("the output of `{}` is not UTF-8", describe(command)))
}

/// The same, for output that is not text.
pub(crate) fn bytes_of(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}", describe(command), stderr.trim());
    }
    Ok(output.stdout)
}

/// The command line, for messages.
pub(crate) fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|word| word.to_string_lossy()));
    words.join(" ")
}

/// The path at which a child would find `program`, if any.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    search_path()
        .into_iter()
        .map(|dir| dir.join(program))
        .find(|path| is_executable(path))
}

/// Cargo's home directory, whose `bin` contains installed programs.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Some(PathBuf::from(home));
    }
    env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"))
}

fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/sbin:/usr/bin"));
    let mut directories: Vec<PathBuf> = env::split_paths(&path).collect();
    if let Some(installed) = cargo_home().map(|home| home.join("bin"))
        && !directories.contains(&installed)
    {
        directories.push(installed);
    }
    directories
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", describe(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_contain_the_command_and_its_standard_error() {
        let mut failing = command("sh");
        failing.args(["-c", "echo broken >&2; exit 3"]);
        let error = output_of(&mut failing).unwrap_err().to_string();
        assert!(
            error.contains("sh -c") && error.contains("broken"),
            "{error}"
        );
        assert_eq!(output_of(command("echo").arg("fine")).unwrap(), "fine\n");
    }

    #[test]
    fn only_executables_count_as_programs() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-anywhere").is_none());
        assert!(!is_executable(Path::new("/etc/passwd")));
    }
}
