//! One run of a target: how it is started, and how its output is read.
//!
//! An input that takes more than [`TIMEOUT_SECONDS`] or [`MAX_MEMORY_MIB`] counts as a crash. The
//! target's output goes to a file; a crash shows the end of it, the input, and how to repeat it.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::tools::Build;
use crate::child;

/// Seconds that one input may take.
const TIMEOUT_SECONDS: u32 = 10;
/// MiB that the process may take, the sanitiser's share included.
const MAX_MEMORY_MIB: u32 = 2048;
/// Bytes of the longest input: longer ones are slower and reach no new code.
const MAX_INPUT_BYTES: u32 = 16 * 1024;
/// Lines of output that are shown for a crash.
const CRASH_LINES: usize = 25;

pub(super) struct Trial {
    name: String,
    command: Command,
    log: PathBuf,
}

impl Trial {
    pub(super) fn new(name: &str, package: &Path, build: &Build, seconds: u32) -> Result<Self> {
        let kept = build.directory.join("corpus").join(name);
        let crashes = build.directory.join("crashes").join(name);
        for directory in [&kept, &crashes] {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        let mut command = Command::new(build.programs.join(name));
        // The first directory is written to, the others are only read.
        command.arg(&kept).args(seeds(name, package));
        let dictionary = package.join("dictionaries").join(format!("{name}.dict"));
        if dictionary.is_file() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        command.arg(format!("-artifact_prefix={}/", crashes.display()));
        command.args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={TIMEOUT_SECONDS}"),
            format!("-rss_limit_mb={MAX_MEMORY_MIB}"),
            format!("-max_len={MAX_INPUT_BYTES}"),
            // Each function name would take a second to look up.
            String::from("-print_funcs=0"),
            String::from("-print_final_stats=1"),
        ]);
        Ok(Self {
            name: name.to_owned(),
            command,
            log: build.directory.join(format!("{name}.log")),
        })
    }

    pub(super) fn run(mut self) -> Result<Outcome> {
        let log = &self.log;
        let unwritable = || format!("cannot write {}", log.display());
        let output = File::create(log).with_context(unwritable)?;
        self.command.stdin(Stdio::null());
        self.command
            .stdout(output.try_clone().with_context(unwritable)?);
        self.command.stderr(output);
        let described = child::describe(&self.command);
        let status = self.command.status();
        let status = status.with_context(|| format!("cannot start `{described}`"))?;
        let output_text =
            fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
        let output_text = String::from_utf8_lossy(&output_text);
        let program = self.command.get_program().to_string_lossy();
        Ok(Outcome {
            executions: executions(&output_text),
            crashed: !status.success(),
            report: if status.success() {
                String::new()
            } else {
                report(&output_text, &program)
            },
            name: self.name,
        })
    }
}

/// Directories of a target's first inputs: its seeds, and the repository's examples.
fn seeds(name: &str, package: &Path) -> Vec<PathBuf> {
    let own = package.join("seeds").join(name);
    let examples = package.join("../../policies");
    let reads_files = name.starts_with("policy") || name == "inventory";
    let places = [own, examples];
    let fits = |(index, place): &(usize, PathBuf)| place.is_dir() && (*index == 0 || reads_files);
    let fitting = places.into_iter().enumerate().filter(fits);
    fitting.map(|(_, place)| place).collect()
}

pub(super) struct Outcome {
    name: String,
    pub(super) executions: u64,
    pub(super) crashed: bool,
    report: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.crashed { "CRASH" } else { "ok   " };
        let (name, executions) = (&self.name, self.executions);
        write!(out, "{word} {name}: {executions} executions{}", self.report)
    }
}

/// The report of a crash.
fn report(output_text: &str, program: &str) -> String {
    let lines: Vec<&str> = output_text.lines().collect();
    let first = lines.iter().position(|line| {
        line.contains("panicked at") || line.contains("ERROR: ") || line.contains("ALARM: ")
    });
    let from = first.unwrap_or_else(|| lines.len().saturating_sub(CRASH_LINES));
    let mut report: String = lines
        .iter()
        .skip(from)
        .take(CRASH_LINES)
        .flat_map(|line| ["\n      ", line])
        .collect();
    match input(output_text) {
        Some(path) => report.push_str(&format!(
            "\n      input: {path}\n      to repeat: {program} {path}"
        )),
        None => report.push_str("\n      no input was written: it failed before the first one"),
    }
    report
}

/// The file in `artifact_prefix='…'; Test unit written to PATH`.
fn input(output_text: &str) -> Option<&str> {
    let (_, path) = output_text.split_once("Test unit written to ")?;
    path.lines().next()
}

/// The number in `stat::number_of_executed_units: N`, or the last that progress showed as `#N`.
fn executions(output_text: &str) -> u64 {
    let total = output_text
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let progress = || {
        let mut lines = output_text.lines().rev();
        lines.find_map(|line| line.strip_prefix('#')?.split_whitespace().next())
    };
    let number = total.map(str::trim).or_else(progress);
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_read_with_and_without_statistics() {
        assert_eq!(
            executions("#2 INITED\nstat::number_of_executed_units: 77\n"),
            77
        );
        assert_eq!(
            executions("#2\tINITED cov: 1\n#512\tpulse  cov: 2\nx\n"),
            512
        );
        assert_eq!(executions("nothing"), 0);
    }

    #[test]
    fn a_crash_names_its_input_and_how_to_repeat_it() {
        let output_text = "#1\tREAD\nthread panicked at tests/fuzz/src/x.rs:1:1:\nbroken\n\
                    artifact_prefix='/t/'; Test unit written to /t/crash-1\nBase64: eA==\n";
        let report = report(output_text, "/t/x");
        assert!(
            report.contains("broken") && !report.contains("READ"),
            "{report}"
        );
        assert!(report.ends_with("to repeat: /t/x /t/crash-1"), "{report}");
    }
}
