//! The Rust toolchain that builds the kernel programs.
//!
//! It is searched for each time, so no record can be outdated: the one named by
//! `RINGFENCE_EBPF_TOOLCHAIN`, else a rustup nightly, else Debian's packages linked as `debian`,
//! else (without rustup) the system's. `announce` passes the choice to the agent's build script.
//! Toolchains are installed by `setup`.

use std::cmp::Reverse;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};

use crate::child;

/// The environment variable with the toolchain for `agent/build.rs`, whose default is [`NIGHTLY`].
pub(crate) const VARIABLE: &str = "RINGFENCE_EBPF_TOOLCHAIN";
/// The default toolchain of the agent's build script.
pub(crate) const NIGHTLY: &str = "nightly";
/// The name under which `setup` links Debian's toolchain.
pub(crate) const DEBIAN: &str = "debian";

/// An installed toolchain; `name` is `None` for the system's own when there is no rustup.
#[derive(Debug, PartialEq)]
pub(crate) struct Toolchain {
    pub(crate) name: Option<String>,
    pub(crate) version: Version,
    pub(crate) sysroot: PathBuf,
}

/// The output of `rustc -vV`.
#[derive(Debug, PartialEq)]
pub(crate) struct Version {
    pub(crate) summary: String,
    pub(crate) llvm_major: u32,
    /// Whether unstable options work without `RUSTC_BOOTSTRAP`.
    pub(crate) nightly: bool,
}

impl Toolchain {
    /// A command that runs `program` of this toolchain.
    pub(crate) fn command(&self, program: &str) -> Command {
        program_of(self.name.as_deref(), program)
    }

    /// Sets what the agent's build script and cargo need in order to use this toolchain.
    pub(crate) fn announce(&self, command: &mut Command) {
        if let Some(name) = self.name.as_deref().filter(|name| *name != NIGHTLY) {
            command.env(VARIABLE, name);
        }
        if !self.version.nightly {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
    }

    /// The rustup components that building and linting need and that are not installed.
    pub(crate) fn missing_components(&self) -> Vec<&'static str> {
        let needed = [
            ("rust-src", "lib/rustlib/src/rust/library/core/src/lib.rs"),
            ("clippy", "bin/cargo-clippy"),
            ("rustfmt", "bin/rustfmt"),
        ];
        let absent = needed
            .iter()
            .filter(|(_, file)| !self.sysroot.join(file).exists());
        absent.map(|(component, _)| *component).collect()
    }

    /// Whether the sources of `core` are installed, which building the kernel programs needs.
    pub(crate) fn has_sources(&self) -> bool {
        !self.missing_components().contains(&"rust-src")
    }

    /// Name and version, for messages.
    pub(crate) fn describe(&self) -> String {
        let name = self.name.as_deref().unwrap_or("system");
        format!(
            "{name}: {}, LLVM {}",
            self.version.summary, self.version.llvm_major
        )
    }
}

/// The toolchain to build with.
pub(crate) fn required() -> Result<Toolchain> {
    find()?.filter(Toolchain::has_sources).ok_or_else(|| {
        anyhow!("no toolchain with sources for the kernel programs; run `cargo xtask setup`")
    })
}

/// The best installed toolchain, which may lack components.
pub(crate) fn find() -> Result<Option<Toolchain>> {
    if let Ok(name) = env::var(VARIABLE) {
        let chosen = inspect(Some(&name));
        return chosen
            .map(Some)
            .with_context(|| format!("{VARIABLE} names `{name}`"));
    }
    if child::find_program("rustup").is_none() {
        return Ok(inspect(None).ok().filter(Toolchain::has_sources));
    }
    let mut first = None;
    for name in candidates(&child::output_of(
        child::command("rustup").args(["toolchain", "list"]),
    )?) {
        let Ok(toolchain) = inspect(Some(&name)) else {
            continue;
        };
        if toolchain.has_sources() {
            return Ok(Some(toolchain));
        }
        first = first.or(Some(toolchain));
    }
    Ok(first)
}

/// Reads version and sysroot of the toolchain `name` (`None`: the system's).
pub(crate) fn inspect(name: Option<&str>) -> Result<Toolchain> {
    let version = child::output_of(program_of(name, "rustc").arg("-vV"))?;
    let sysroot = child::output_of(program_of(name, "rustc").args(["--print", "sysroot"]))?;
    Ok(Toolchain {
        name: name.map(String::from),
        version: parse_version(&version)?,
        sysroot: Path::new(sysroot.trim()).to_path_buf(),
    })
}

fn program_of(toolchain: Option<&str>, program: &str) -> Command {
    let Some(toolchain) = toolchain else {
        return child::command(program);
    };
    let mut command = child::command("rustup");
    command.args(["run", toolchain, program]);
    command
}

/// From `rustup toolchain list`: the nightly channel, then dated nightlies from the newest, then
/// Debian's.
fn candidates(list: &str) -> Vec<String> {
    let names = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let (mut nightlies, rest): (Vec<&str>, Vec<&str>) =
        names.partition(|name| *name == NIGHTLY || name.starts_with("nightly-"));
    nightlies.sort_by_key(|name| (is_dated(name), Reverse(*name)));
    let nightlies = nightlies
        .into_iter()
        .map(|name| if is_dated(name) { name } else { NIGHTLY });
    nightlies
        .chain(rest.into_iter().filter(|name| *name == DEBIAN))
        .map(String::from)
        .collect()
}

fn is_dated(nightly: &str) -> bool {
    nightly
        .strip_prefix("nightly-")
        .is_some_and(|rest| rest.starts_with(char::is_numeric))
}

fn parse_version(text: &str) -> Result<Version> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let release = field("release:").context("`rustc -vV` names no release")?;
    let llvm = field("LLVM version:").context("`rustc -vV` names no LLVM version")?;
    let major = llvm.split('.').next().and_then(|major| major.parse().ok());
    Ok(Version {
        summary: text.lines().next().unwrap_or(release).to_owned(),
        llvm_major: major.with_context(|| format!("cannot read the LLVM version `{llvm}`"))?,
        nightly: release.contains("nightly") || release.contains("dev"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_the_nightly_channel_then_dated_nightlies_then_debian() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default)\n\
                    nightly-2025-11-02-x86_64-unknown-linux-gnu\n\
                    nightly-2026-05-19-x86_64-unknown-linux-gnu\n\
                    nightly-x86_64-unknown-linux-gnu\ndebian\n";
        let dated = "nightly-2026-05-19-x86_64-unknown-linux-gnu";
        let older = "nightly-2025-11-02-x86_64-unknown-linux-gnu";
        assert_eq!(candidates(list), [NIGHTLY, dated, older, DEBIAN]);
        assert!(candidates("stable-x86_64-unknown-linux-gnu (default)\n").is_empty());
    }

    #[test]
    fn the_version_has_llvm_and_channel() {
        let nightly = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\n\
                       release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        let version = parse_version(nightly).unwrap();
        assert_eq!((version.llvm_major, version.nightly), (22, true));
        let stable = parse_version("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1\n").unwrap();
        assert!(!stable.nightly);
        assert!(parse_version("rustc 1.96.0\nrelease: 1.96.0\n").is_err());
    }

    #[test]
    fn only_a_stable_toolchain_gets_rustc_bootstrap() {
        let mut toolchain = Toolchain {
            name: Some(String::from(DEBIAN)),
            version: Version {
                summary: String::new(),
                llvm_major: 22,
                nightly: false,
            },
            sysroot: PathBuf::new(),
        };
        let settings = |toolchain: &Toolchain| {
            let mut command = Command::new("cargo");
            toolchain.announce(&mut command);
            command
                .get_envs()
                .filter_map(|(key, _)| key.to_str().map(String::from))
                .collect()
        };
        let announced: Vec<String> = settings(&toolchain);
        assert_eq!(announced, [VARIABLE, "RUSTC_BOOTSTRAP"]);
        toolchain.name = Some(String::from(NIGHTLY));
        toolchain.version.nightly = true;
        assert!(settings(&toolchain).is_empty());
    }
}
