//! What tests want seen although their output is captured: a line each, in a file of this run.
//!
//! The file is ours alone and goes with the value. Tests append to it; `agent/src/oracle/run.rs` is
//! who does.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{self, Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::{child, workspace};

/// Names the file to the tests.
const VARIABLE: &str = "RINGFENCE_TEST_REPORT";

/// A report that is not there until a test writes it.
pub(crate) struct Report {
    path: PathBuf,
}

impl Report {
    pub(crate) fn new() -> Result<Self> {
        let name = format!("ringfence-report-{}", process::id());
        let path = workspace::target_directory()?.join(name);
        // Another process may have had our number and no time to clean up.
        _ = fs::remove_file(&path);
        Ok(Self { path })
    }

    /// Tells the tests that `command` runs where to write.
    pub(crate) fn announce(&self, command: &mut Command) {
        command.env(VARIABLE, &self.path);
    }

    /// Runs tests, prints what they wrote, and says whether they passed.
    pub(crate) fn of(mut tests: Command) -> Result<ExitCode> {
        let report = Self::new()?;
        report.announce(&mut tests);
        let passed = child::succeeds(&mut tests)?;
        report.print()?;
        Ok(if passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Prints what they wrote, in the order of the alphabet.
    pub(crate) fn print(&self) -> Result<()> {
        for line in self.lines()? {
            println!("{line}");
        }
        Ok(())
    }

    fn lines(&self) -> Result<Vec<String>> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => {
                let path = self.path.display();
                return Err(error).with_context(|| format!("cannot read {path}"));
            }
        };
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        lines.sort_unstable();
        Ok(lines)
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_goes_with_the_report() {
        let report = Report::new().unwrap();
        assert!(report.lines().unwrap().is_empty(), "nobody wrote");
        fs::create_dir_all(report.path.parent().unwrap()).unwrap();
        fs::write(&report.path, "kernel: 2\ncompiled: 1\n").unwrap();
        assert_eq!(report.lines().unwrap(), ["compiled: 1", "kernel: 2"]);
        let path = report.path.clone();
        drop(report);
        assert!(!path.exists());
    }
}
