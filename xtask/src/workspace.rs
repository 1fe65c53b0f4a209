//! Paths of the checkout and its build products.
//!
//! The target directory is the one that cargo reports, so `CARGO_TARGET_DIR` and configuration
//! files are respected. This module builds nothing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::child;
use crate::toolchain::Toolchain;

/// The crate that is built only for the BPF target.
pub(crate) const EBPF_PACKAGE: &str = "ringfence-ebpf";

/// The root of the checkout.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest =
        env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| String::from(env!("CARGO_MANIFEST_DIR")));
    let root = Path::new(&manifest).parent();
    Ok(root
        .context("the xtask package is not in a workspace")?
        .to_path_buf())
}

/// `cargo` at the root of the checkout, with the environment that makes the agent's build use
/// `toolchain` for the kernel programs.
pub(crate) fn cargo(toolchain: &Toolchain) -> Result<Command> {
    let mut command = child::command("cargo");
    command.current_dir(root()?);
    toolchain.announce(&mut command);
    Ok(command)
}

/// The output of `cargo metadata`, with all dependencies if `dependencies`.
pub(crate) fn metadata(dependencies: bool) -> Result<Value> {
    let mut command = child::command("cargo");
    command
        .current_dir(root()?)
        .args(["metadata", "--format-version", "1"]);
    if !dependencies {
        command.arg("--no-deps");
    }
    let json = child::output_of(&mut command)?;
    serde_json::from_str(&json).context("`cargo metadata` printed malformed JSON")
}

/// Cargo's target directory.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let metadata = metadata(false)?;
    let target = metadata
        .get("target_directory")
        .and_then(Value::as_str)
        .context("`cargo metadata` names no target directory")?;
    Ok(PathBuf::from(target))
}

/// The absolute path of the agent's binary as built in `profile` (`debug` or `release`).
pub(crate) fn agent_binary(profile: &str) -> Result<PathBuf> {
    Ok(target_directory()?.join(profile).join("ringfence"))
}
