//! `cargo xtask lint`: everything that can be checked without running Ringfence.
//!
//! Every step runs and prints one line, even if another step fails; the exit status says whether
//! all passed. The rules on source text work on tokens, not types, so they apply to the text as
//! written and not to what a macro expands to.

mod attributes;
mod commands;
mod imports;
mod licences;
mod paths;
mod purity;
mod sizes;
pub(crate) mod source;
mod spdx;
mod unsafety;
mod verifier_budget;
mod words;

use std::fmt;
use std::process::ExitCode;

use anyhow::Result;

use crate::{mutants, setup, workspace};
use source::SourceFile;

/// A violation of a rule.
#[derive(Debug, PartialEq)]
pub(crate) struct Finding {
    /// A path with a line, or a package.
    pub(crate) place: String,
    /// The violation and its remedy.
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn at(file: &SourceFile, line: usize, message: String) -> Self {
        Self {
            place: format!("{}:{line}", file.path),
            message,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// The subcommand.
pub(crate) fn run() -> Result<ExitCode> {
    let toolchain = setup::ensure()?;
    let root = workspace::root()?;
    let files = source::all(&root)?;
    for note in sizes::notes(&files) {
        println!("note  {note}");
    }
    let passed = [
        report("format", commands::format(&toolchain)),
        report("imports", imports::check(&root, &files)),
        report("sizes", Ok(sizes::check(&files))),
        report("words", words::check(&root)),
        report("attributes", Ok(attributes::check(&files))),
        report("unsafe", Ok(unsafety::check(&files))),
        report("licences", licences::check(&root)),
        report("seeded bugs", mutants::check(&root)),
        report("verifier budget", verifier_budget::check(&root)),
        report("clippy", commands::clippy(&toolchain)),
        report(
            "clippy of the kernel programs",
            commands::clippy_ebpf(&toolchain),
        ),
    ];
    let failed = passed.iter().filter(|passed| !**passed).count();
    println!("{} steps passed, {failed} failed", passed.len() - failed);
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints the findings of a step; returns whether it passed.
fn report(step: &str, outcome: Result<Vec<Finding>>) -> bool {
    match outcome {
        Ok(findings) if findings.is_empty() => {
            println!("ok    {step}");
            true
        }
        Ok(findings) => {
            for finding in &findings {
                println!("      {finding}");
            }
            println!("FAIL  {step}: {} findings", findings.len());
            false
        }
        Err(error) => {
            println!("FAIL  {step}: {error:#}");
            false
        }
    }
}
