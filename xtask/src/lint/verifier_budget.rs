//! The verifier budget: how many instructions the kernel verifies for each program.
//!
//! `ebpf/sizes.toml` has what was measured; `cargo xtask test` compares it with the kernel. Here it is
//! printed and compared with the budget.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::Finding;

/// The record, relative to the workspace.
const RECORD: &str = "ebpf/sizes.toml";
/// The most instructions for one program.
const BUDGET: u32 = 300_000;

#[derive(Deserialize)]
struct Record {
    kernel: String,
    programs: BTreeMap<String, Sizes>,
}

#[derive(Deserialize)]
struct Sizes {
    verified: u32,
}

/// Prints the record, and finds programs beyond the budget.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let text = std::fs::read_to_string(root.join(RECORD)).context(RECORD)?;
    let record: Record = toml::from_str(&text).context(RECORD)?;
    for (program, sizes) in &record.programs {
        println!(
            "note  {program}: {} of {BUDGET} instructions verified on {}",
            sizes.verified, record.kernel
        );
    }
    Ok(beyond(&record))
}

fn beyond(record: &Record) -> Vec<Finding> {
    let over = record.programs.iter();
    let over = over.filter(|(_, sizes)| sizes.verified > BUDGET);
    over.map(|(program, sizes)| {
        let message = format!(
            "{program} takes {} instructions to verify: at most {BUDGET}",
            sizes.verified
        );
        Finding {
            place: RECORD.to_owned(),
            message,
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_beyond_the_budget_is_found() {
        let record = |verified| {
            let text =
                format!("kernel = \"6.18\"\n[programs.from_workload]\nverified = {verified}");
            toml::from_str::<Record>(&text).unwrap()
        };
        assert!(beyond(&record(BUDGET)).is_empty());
        assert_eq!(beyond(&record(BUDGET + 1)).len(), 1);
    }
}
