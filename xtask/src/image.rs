//! `cargo xtask image`: the agent as a container image, in an archive that container runtimes import.
//!
//! The image has one program, linked statically, and nothing else: no shell, no libraries, no package manager.
//! Invariants: nothing but a compiler is needed, no container runtime and no registry; two builds of one checkout
//! give the same bytes; an image that is larger than [`LIMIT`] is an error. It is pushed nowhere.

mod oci;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::toolchain::Toolchain;
use crate::{child, setup, workspace};
use oci::Image;

/// Programs that a static build needs, each with its package: C sources are compiled for musl.
pub(crate) const PROGRAMS: [(&str, &str); 1] = [("musl-gcc", "musl-tools")];
/// The most bytes of an image, uncompressed.
const LIMIT: usize = 25_000_000;
/// The name of the image before the colon, as the chart has it.
const REPOSITORY: &str = "ringfence.dev/ringfence";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to write it [default: ringfence-image.tar in the target directory]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The subcommand. Standard output contains only the path of the archive.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let toolchain = setup::ensure_image(&target()?)?;
    let agent = agent(&toolchain)?;
    let program = fs::read(&agent).with_context(|| format!("cannot read {}", agent.display()))?;
    let version = env!("CARGO_PKG_VERSION");
    let image = Image {
        reference: format!("{REPOSITORY}:{version}"),
        version,
        architecture: architecture()?,
        program: &program,
    };
    let archive = image.archive()?;
    ensure!(
        archive.len() <= LIMIT,
        "the image has {} bytes, more than {LIMIT}: see what made the agent larger",
        archive.len()
    );
    let output = match &arguments.output {
        Some(path) => std::path::absolute(path)?,
        None => workspace::target_directory()?.join("ringfence-image.tar"),
    };
    write_whole(&output, &archive)?;
    eprintln!("{}: {} bytes", image.reference, archive.len());
    println!("{}", output.display());
    Ok(ExitCode::SUCCESS)
}

/// The target whose C library is linked statically.
fn target() -> Result<String> {
    match std::env::consts::ARCH {
        arch @ ("x86_64" | "aarch64") => Ok(format!("{arch}-unknown-linux-musl")),
        other => bail!("images for {other} were never tried"),
    }
}

/// The name that images use for this machine's architecture.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("images for {other} were never tried"),
    }
}

/// Builds the agent with the client of the API, linked statically.
fn agent(toolchain: &Toolchain) -> Result<PathBuf> {
    let target = target()?;
    // Symbols are a seventh of the program.
    let mut flags = vec!["-Cstrip=symbols".to_owned()];
    // Where the checkout and the sources of dependencies are is no part of the program.
    let places = [
        (child::cargo_home(), "/cargo"),
        (Some(workspace::root()?), "/ringfence"),
    ];
    for (place, name) in places {
        let place = place.context("no home directory of cargo")?;
        flags.push(format!("--remap-path-prefix={}={name}", place.display()));
    }
    let flags = serde_json::to_string(&flags)?;
    let mut cargo = workspace::cargo(toolchain)?;
    cargo
        .args(["--config", &format!("target.{target}.rustflags={flags}")])
        .args(["build", "--release", "--target", &target])
        .args(["--package", "ringfence", "--bin", "ringfence"])
        .args(["--features", "kubernetes"]);
    child::run(&mut cargo)?;
    let built = workspace::target_directory()?.join(target);
    let binary = built.join("release/ringfence");
    ensure!(binary.is_file(), "cargo built no {}", binary.display());
    Ok(binary)
}

/// A reader of the file sees either the old content or the new.
fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, content)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
