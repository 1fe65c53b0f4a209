//! Builds the kernel programs into `OUT_DIR`, where `include_bytes!` finds the object.

use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-env-changed=RINGFENCE_EBPF_TOOLCHAIN");
    println!("cargo:rerun-if-changed=../common/src");
    let toolchain = std::env::var("RINGFENCE_EBPF_TOOLCHAIN").unwrap_or_else(|_| "nightly".into());
    // The agent and the kernel programs must contain the same seeded bug, or none.
    let features: &[&str] = if std::env::var_os("CARGO_FEATURE_MUTANTS").is_some() {
        &["mutants"]
    } else {
        &[]
    };
    let package = Package {
        name: "ringfence-ebpf",
        root_dir: "../ebpf",
        features,
        ..Package::default()
    };
    build_ebpf([package], Toolchain::Custom(&toolchain))
}
