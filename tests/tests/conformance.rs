//! The conformance cases of this repository, evaluated offline; `cargo xtask conformance` runs them
//! on the wire.

use std::path::Path;

use anyhow::{Result, ensure};
use ringfence_testbed::conformance::{Options, run};

#[test]
fn own_cases_hold_offline() -> Result<()> {
    let options = Options {
        dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance"),
        filter: String::new(),
        offline: true,
        jobs: 2,
    };
    let mut report = Vec::new();
    let passed = run(&options, &mut report)?;
    ensure!(passed, "{}", String::from_utf8_lossy(&report));
    Ok(())
}
