//! The tools for fuzzing: `cargo-fuzz`, a C++ compiler, and the instrumented build.
//!
//! Instrumentation is an unstable option, which a stable toolchain accepts with `RUSTC_BOOTSTRAP`:
//! no nightly is needed. If a toolchain lacks the address sanitiser, the targets are built without
//! it; their properties are checked anyway.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::apt::Apt;
use crate::toolchain::Toolchain;
use crate::{child, workspace};

const CARGO_FUZZ: &str = "cargo-fuzz";
const CARGO_FUZZ_VERSION: &str = "0.13.2";
/// The agent is large and the machine may be small: less optimisation than in the release build.
const PROFILE: [(&str, &str); 2] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
];

/// All targets, built.
pub(super) struct Build {
    /// The directory of everything that fuzzing writes.
    pub(super) directory: PathBuf,
    /// The directory of the programs.
    pub(super) programs: PathBuf,
}

impl Build {
    pub(super) fn new(toolchain: &Toolchain, package: &Path) -> Result<Self> {
        ensure_installed()?;
        let directory = workspace::target_directory()?.join("fuzz");
        let sanitizer = if has_address_sanitizer()? {
            "address"
        } else {
            println!("sanitizer: not in the toolchain; building without");
            "none"
        };
        let host = child::output_of(child::command("rustc").args(["--print", "host-tuple"]))?;
        let mut cargo = workspace::cargo(toolchain)?;
        cargo.args(["fuzz", "build", "--features", "targets"]);
        cargo.args(["--sanitizer", sanitizer, "--target", host.trim()]);
        cargo.arg("--fuzz-dir").arg(package);
        cargo.arg("--target-dir").arg(&directory);
        cargo.env("RUSTC_BOOTSTRAP", "1").envs(PROFILE);
        child::run(&mut cargo)?;
        let programs = directory.join(host.trim()).join("release");
        Ok(Self {
            directory,
            programs,
        })
    }
}

fn ensure_installed() -> Result<()> {
    if child::find_program("c++").is_none() {
        Apt::new(false).ensure(&["g++"])?;
        println!("c++: installed package g++");
    }
    if let Some(path) = child::find_program(CARGO_FUZZ) {
        println!("{CARGO_FUZZ}: found {}", path.display());
        return Ok(());
    }
    let mut install = child::command("cargo");
    install.current_dir(workspace::root()?);
    install.args(["install", CARGO_FUZZ, "--locked"]);
    child::run(install.args(["--version", CARGO_FUZZ_VERSION]))?;
    println!("{CARGO_FUZZ}: installed {CARGO_FUZZ_VERSION}");
    Ok(())
}

/// Whether the sanitiser's runtime is in the directory of the standard library.
fn has_address_sanitizer() -> Result<bool> {
    let printed = child::output_of(child::command("rustc").args(["--print", "target-libdir"]))?;
    let libraries =
        fs::read_dir(printed.trim()).with_context(|| format!("cannot read {}", printed.trim()))?;
    Ok(libraries
        .filter_map(Result::ok)
        .any(|entry| is_address_sanitizer(&entry.file_name().to_string_lossy())))
}

fn is_address_sanitizer(file_name: &str) -> bool {
    file_name.starts_with("librustc") && file_name.ends_with("_rt.asan.a")
}

#[cfg(test)]
mod tests {
    use super::is_address_sanitizer;

    #[test]
    fn the_address_sanitizer_is_distinguished_from_others() {
        assert!(is_address_sanitizer("librustc-stable_rt.asan.a"));
        assert!(!is_address_sanitizer("librustc-stable_rt.tsan.a"));
        assert!(!is_address_sanitizer("libstd-1.rlib"));
    }
}
