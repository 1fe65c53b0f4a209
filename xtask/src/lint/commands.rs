//! The lint steps that run other programs: rustfmt and clippy.
//!
//! Their output goes directly to the terminal; a failure is an error that names the command. The
//! flags for the kernel programs are those of `aya-build`.

use anyhow::Result;

use super::Finding;
use crate::toolchain::Toolchain;
use crate::{child, workspace};

const EBPF_TARGET: &str = "bpfel-unknown-none";

pub(crate) fn format(toolchain: &Toolchain) -> Result<Vec<Finding>> {
    let mut cargo = workspace::cargo(toolchain)?;
    child::run(cargo.args(["fmt", "--all", "--", "--check"]))?;
    Ok(Vec::new())
}

pub(crate) fn clippy(toolchain: &Toolchain) -> Result<Vec<Finding>> {
    let mut cargo = workspace::cargo(toolchain)?;
    cargo.args([
        "clippy",
        "--workspace",
        "--exclude",
        workspace::EBPF_PACKAGE,
        "--all-targets",
        // Code that no ordinary build has.
        "--features",
        "ringfence/kubernetes,ringfence-kubernetes-tests/cluster",
    ]);
    child::run(cargo.args(["--", "-D", "warnings"]))?;
    // And as it is built without them.
    let mut cargo = workspace::cargo(toolchain)?;
    cargo.args(["clippy", "--package", "ringfence"]);
    child::run(cargo.args(["--", "-D", "warnings"]))?;
    Ok(Vec::new())
}

pub(crate) fn clippy_ebpf(toolchain: &Toolchain) -> Result<Vec<Finding>> {
    let mut cargo = toolchain.command("cargo");
    cargo.current_dir(workspace::root()?);
    toolchain.announce(&mut cargo);
    let architecture = format!("bpf_target_arch=\"{}\"", kernel_architecture());
    let flags = ["-Cdebuginfo=2", "-Clink-arg=--btf", "--cfg", &architecture];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    cargo.args(["clippy", "--release", "--package", workspace::EBPF_PACKAGE]);
    cargo.args([
        "-Z",
        "build-std=core",
        "--target",
        EBPF_TARGET,
        "--",
        "-D",
        "warnings",
    ]);
    child::run(&mut cargo)?;
    Ok(Vec::new())
}

/// The architecture whose register layout the kernel programs are built for.
fn kernel_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "riscv64gc" => "riscv64",
        architecture => architecture,
    }
}
