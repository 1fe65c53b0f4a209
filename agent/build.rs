//! Builds the kernel programs into `OUT_DIR`, where `include_bytes!` finds the object.

use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-env-changed=RINGFENCE_EBPF_TOOLCHAIN");
    println!("cargo:rerun-if-changed=../common/src");
    let toolchain = std::env::var("RINGFENCE_EBPF_TOOLCHAIN").unwrap_or_else(|_| "nightly".into());
    let package = Package {
        name: "ringfence-ebpf",
        root_dir: "../ebpf",
        ..Package::default()
    };
    build_ebpf([package], Toolchain::Custom(&toolchain))
}
