//! One target at work: how it is started, and what its output says.
//!
//! An input that takes more than [`SLOWEST`] seconds or [`MOST_MEMORY`] MiB counts as a crash. What
//! the target says goes to a file; a crash shows the end of it, the input, and how to repeat it.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::tools::Build;
use crate::child;

/// Seconds that one input may take.
const SLOWEST: u32 = 10;
/// MiB that the process may take, the sanitiser's share included.
const MOST_MEMORY: u32 = 2048;
/// Bytes of the longest input: longer ones cost speed and reach nothing new.
const LONGEST: u32 = 16 * 1024;
/// Lines of a crash's output that are shown.
const SHOWN: usize = 25;

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
        // The first directory is written to, the others are read.
        command.arg(&kept).args(seeds(name, package));
        let dictionary = package.join("dictionaries").join(format!("{name}.dict"));
        if dictionary.is_file() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        command.arg(format!("-artifact_prefix={}/", crashes.display()));
        command.args([
            format!("-max_total_time={seconds}"),
            format!("-timeout={SLOWEST}"),
            format!("-rss_limit_mb={MOST_MEMORY}"),
            format!("-max_len={LONGEST}"),
            // Names of functions are looked up one by one, in a second each.
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
        let said = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
        let said = String::from_utf8_lossy(&said);
        let program = self.command.get_program().to_string_lossy();
        Ok(Outcome {
            executions: executions(&said),
            crashed: !status.success(),
            story: if status.success() {
                String::new()
            } else {
                story(&said, &program)
            },
            name: self.name,
        })
    }
}

/// Where a target's first inputs are: what the repository has as examples, rather than copies.
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
    story: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.crashed { "CRASH" } else { "ok   " };
        let (name, executions) = (&self.name, self.executions);
        write!(out, "{word} {name}: {executions} executions{}", self.story)
    }
}

/// What there is to tell about a crash.
fn story(said: &str, program: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    let first = lines.iter().position(|line| {
        line.contains("panicked at") || line.contains("ERROR: ") || line.contains("ALARM: ")
    });
    let from = first.unwrap_or_else(|| lines.len().saturating_sub(SHOWN));
    let mut story: String = lines
        .iter()
        .skip(from)
        .take(SHOWN)
        .flat_map(|line| ["\n      ", line])
        .collect();
    match input(said) {
        Some(path) => story.push_str(&format!(
            "\n      input: {path}\n      to repeat: {program} {path}"
        )),
        None => story.push_str("\n      no input was written: it failed before the first one"),
    }
    story
}

/// The file in `artifact_prefix='…'; Test unit written to PATH`.
fn input(said: &str) -> Option<&str> {
    let (_, path) = said.split_once("Test unit written to ")?;
    path.lines().next()
}

/// The number in `stat::number_of_executed_units: N`, or the last that progress showed as `#N`.
fn executions(said: &str) -> u64 {
    let total = said
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let progress = || {
        let mut lines = said.lines().rev();
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
        let said = "#1\tREAD\nthread panicked at tests/fuzz/src/x.rs:1:1:\nbroken\n\
                    artifact_prefix='/t/'; Test unit written to /t/crash-1\nBase64: eA==\n";
        let story = story(said, "/t/x");
        assert!(
            story.contains("broken") && !story.contains("READ"),
            "{story}"
        );
        assert!(story.ends_with("to repeat: /t/x /t/crash-1"), "{story}");
    }
}
