//! What the linker is asked for: it is `bpf-linker` that makes machine code of the programs.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // By default the linker leaves clearing and copying of memory to `memset` and `memcpy`, which on
    // this target are loops over single bytes: half of the cost of a packet. Stores inline instead.
    println!("cargo:rustc-link-arg-bins=--disable-expand-memcpy-in-order");
}
