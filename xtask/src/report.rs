//! Summary lines of tests, which are shown although the tests' output is captured.
//!
//! Tests append lines to a file that belongs to this process and is removed with the value;
//! `agent/src/oracle/run.rs` writes them.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{self, Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::{child, workspace};

/// The environment variable with the path of the file.
pub(crate) const VARIABLE: &str = "RINGFENCE_TEST_REPORT";

/// A report file, which the first test that writes to it creates.
pub(crate) struct Report {
    path: PathBuf,
}

impl Report {
    pub(crate) fn new() -> Result<Self> {
        let name = format!("ringfence-report-{}", process::id());
        let path = workspace::target_directory()?.join(name);
        // An earlier process with this id may have been killed before it cleaned up.
        _ = fs::remove_file(&path);
        Ok(Self { path })
    }

    /// Passes the path of the file to the tests that `command` runs.
    pub(crate) fn announce(&self, command: &mut Command) {
        command.env(VARIABLE, &self.path);
    }

    /// Runs tests and prints what they wrote; the exit code says whether they passed.
    pub(crate) fn run_tests(mut tests: Command) -> Result<ExitCode> {
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

    /// Prints what the tests wrote, sorted.
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
    fn lines_are_read_and_the_file_is_removed_with_the_report() {
        let report = Report::new().unwrap();
        assert!(report.lines().unwrap().is_empty(), "nothing was written");
        fs::create_dir_all(report.path.parent().unwrap()).unwrap();
        fs::write(&report.path, "kernel: 2\ncompiled: 1\n").unwrap();
        assert_eq!(report.lines().unwrap(), ["compiled: 1", "kernel: 2"]);
        let path = report.path.clone();
        drop(report);
        assert!(!path.exists());
    }
}
