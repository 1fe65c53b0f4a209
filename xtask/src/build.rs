//! `cargo xtask build`: the agent, with the kernel programs embedded by its build script.
//!
//! Standard output contains only the path of the binary. Toolchains are installed by `setup`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::toolchain::{self, Toolchain};
use crate::{child, workspace};

/// The subcommand.
pub(crate) fn run(debug: bool, other_layout: bool, kubernetes: bool) -> Result<ExitCode> {
    let toolchain = toolchain::required()?;
    let profile = if debug { "debug" } else { "release" };
    let features: &[&str] = if kubernetes { &["kubernetes"] } else { &[] };
    let binary = if other_layout {
        crate::other_layout::build(&toolchain)?
    } else {
        agent(&toolchain, profile, features)?
    };
    println!("{}", binary.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the agent as it ships for hosts and returns the absolute path of its binary.
pub(crate) fn release(toolchain: &Toolchain) -> Result<PathBuf> {
    agent(toolchain, "release", &[])
}

fn agent(toolchain: &Toolchain, profile: &str, features: &[&str]) -> Result<PathBuf> {
    let mut cargo = workspace::cargo(toolchain)?;
    cargo.args(["build", "--package", "ringfence", "--bin", "ringfence"]);
    cargo.args(["--features", &features.join(",")]);
    if profile == "release" {
        cargo.arg("--release");
    }
    child::run(&mut cargo)?;
    let binary = workspace::agent_binary(profile)?;
    ensure!(
        binary.is_file(),
        "cargo built no {}; is `build.target` set?",
        binary.display()
    );
    Ok(binary)
}
