//! Builds the kernel programs and leaves the object in `OUT_DIR`, for `include_bytes!`.

use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-env-changed=RINGFENCE_EBPF_TOOLCHAIN");
    println!("cargo:rerun-if-changed=../common/src");
    let toolchain = std::env::var("RINGFENCE_EBPF_TOOLCHAIN").unwrap_or_else(|_| "nightly".into());
    // Both sides err alike, or not at all.
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
