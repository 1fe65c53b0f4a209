//! Builds the kernel programs into `OUT_DIR`, where `include_bytes!` finds the object, and names the
//! loader's versions.

use anyhow::Context as _;
use aya_build::{Package, Toolchain, build_ebpf};

const LOCK: &str = "../Cargo.lock";

/// The crates that turn the object into what the kernel loads, with their versions.
fn loader() -> anyhow::Result<String> {
    let lock = std::fs::read_to_string(LOCK).context("reading Cargo.lock")?;
    let mut versions = Vec::new();
    for name in ["aya", "aya-obj"] {
        let (_, package) = lock
            .split_once(&format!("name = \"{name}\"\nversion = \""))
            .with_context(|| format!("no {name} in Cargo.lock"))?;
        let version = package.split('"').next().unwrap_or_default();
        versions.push(format!("{name} {version}"));
    }
    Ok(versions.join(", "))
}

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-env-changed=RINGFENCE_EBPF_TOOLCHAIN");
    println!("cargo:rerun-if-changed=../common/src");
    println!("cargo:rerun-if-changed={LOCK}");
    println!("cargo:rustc-env=RINGFENCE_LOADER={}", loader()?);
    let toolchain = std::env::var("RINGFENCE_EBPF_TOOLCHAIN").unwrap_or_else(|_| "nightly".into());
    let package = Package {
        name: "ringfence-ebpf",
        root_dir: "../ebpf",
        ..Package::default()
    };
    build_ebpf([package], Toolchain::Custom(&toolchain))
}
