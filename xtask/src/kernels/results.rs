//! What test programs in a guest printed: which tests passed, which failed, and why.
//!
//! The format is libtest's, of one program after the other, each after a line `suite NAME`. A line
//! that only a test's own output could have counts only inside the report of failures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::refusal;

/// The line before the output of a test program, without the program's name.
pub(super) const SUITE: &str = "suite ";
/// How long a reason may be.
const REASON_LENGTH: usize = 400;
/// How many tests with the same reason are named.
const NAMED: usize = 4;

/// The results so far; what is written to it is read line by line.
#[derive(Default)]
pub(super) struct Results {
    /// Before each line of progress, if progress is printed.
    prefix: Option<String>,
    line: Vec<u8>,
    suite: String,
    /// By suite: how many passed, and how many were ignored.
    passed: BTreeMap<String, u32>,
    ignored: u32,
    /// Every test with a result.
    ran: Vec<String>,
    failed: Vec<String>,
    /// The test whose output is being reported, and what it printed.
    reasons: BTreeMap<String, String>,
    reported: Option<String>,
    attached: Option<String>,
    /// What tests did otherwise than on this machine, in their own words.
    notes: Vec<String>,
}

impl Results {
    /// Prints each result as it arrives, after a prefix.
    pub(super) fn printing(prefix: String) -> Self {
        Self {
            prefix: Some(prefix),
            ..Self::default()
        }
    }

    /// How fences are attached, as the test of the agent reported it.
    pub(super) fn attached(&self) -> &str {
        self.attached.as_deref().unwrap_or("?")
    }

    /// Whether tests ran, also in each of `suites`, and all of them passed.
    pub(super) fn succeeded(&self, suites: &[&str]) -> bool {
        let mut suites = suites.iter();
        let all_passed = self.failed.is_empty() && !self.passed.is_empty();
        all_passed && suites.all(|suite| self.passed.contains_key(*suite))
    }

    /// The tests that passed or failed, each after the name of its suite and `::`.
    pub(super) fn ran(&self) -> &[String] {
        &self.ran
    }

    /// `kernel 12 passed, fence 3 passed, 1 failed`.
    pub(super) fn summary(&self) -> String {
        let passed = self.passed.iter();
        let mut parts: Vec<String> = passed
            .map(|(suite, count)| format!("{suite} {count} passed"))
            .collect();
        if parts.is_empty() {
            parts.push("0 passed".to_owned());
        }
        if self.ignored > 0 {
            parts.push(format!("{} ignored", self.ignored));
        }
        parts.push(format!("{} failed", self.failed.len()));
        parts.join(", ")
    }

    /// What tests did otherwise than on this machine.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The failed tests, those with the same reason together.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut by_reason: Vec<(String, Vec<&str>)> = Vec::new();
        for test in &self.failed {
            let output = self.reasons.get(test).map_or("", String::as_str);
            let reason = reason(output);
            match by_reason.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, tests)) => tests.push(test),
                None => by_reason.push((reason, vec![test])),
            }
        }
        by_reason
            .iter()
            .map(|(reason, tests)| described(reason, tests))
            .collect()
    }

    fn read(&mut self, line: &str) {
        if let Some(suite) = line.strip_prefix(SUITE) {
            suite.clone_into(&mut self.suite);
            self.reported = None;
        } else if let Some(test) = line.strip_prefix("---- ").and_then(of_failure) {
            self.reported = Some(self.named(test));
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.reported = None;
        } else if let Some(test) = &self.reported {
            let output = self.reasons.entry(test.clone()).or_default();
            output.push_str(line);
            output.push('\n');
        } else if let Some((_, kind)) = line.split_once(": attached by ") {
            self.attached = Some(kind.to_owned());
        } else if line.starts_with("sizes: ") {
            self.notes.push(line.to_owned());
        } else if let Some(result) = line.strip_prefix("test ") {
            self.result(result);
        }
    }

    fn result(&mut self, result: &str) {
        let Some((test, outcome)) = result.split_once(" ... ") else {
            return;
        };
        let test = self.named(test);
        match outcome.split(',').next() {
            Some("ok") => *self.passed.entry(self.suite.clone()).or_default() += 1,
            Some("FAILED") => self.failed.push(test.clone()),
            Some("ignored") => self.ignored += 1,
            _ => return,
        }
        if !outcome.starts_with("ignored") {
            self.ran.push(test.clone());
        }
        if let Some(prefix) = &self.prefix {
            println!("{prefix}{test} ... {outcome}");
        }
    }

    fn named(&self, test: &str) -> String {
        format!("{}::{}", self.suite, test.trim())
    }
}

impl Write for Results {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.read(&String::from_utf8_lossy(&line));
            } else {
                self.line.push(byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn of_failure(line: &str) -> Option<&str> {
    line.strip_suffix(" stdout ----")
}

/// Why a test failed, of all that it printed: the message of its panic, or the error it returned.
fn reason(output: &str) -> String {
    let lines = output.lines().map(str::trim);
    let mut lines =
        lines.skip_while(|line| !line.contains("panicked at") && !line.starts_with("Error: "));
    let first = lines.next().unwrap_or_default();
    let message = match first.strip_prefix("Error: ") {
        Some(error) => vec![error],
        None => Vec::new(),
    };
    let rest = lines
        .take_while(|line| !line.starts_with("note: ") && !line.starts_with("stack backtrace:"));
    let rest = rest.filter(|line| !line.is_empty());
    let message: Vec<&str> = message.into_iter().chain(rest).collect();
    let message = message.join(" ");
    refusal::in_text(&message).unwrap_or_else(|| shortened(&message))
}

/// Both ends of a long text: an error of the kernel says most at its end.
fn shortened(text: &str) -> String {
    let length = text.chars().count();
    if length <= REASON_LENGTH {
        return text.to_owned();
    }
    let half = REASON_LENGTH / 2;
    let start: String = text.chars().take(half).collect();
    let end: String = text.chars().skip(length - half).collect();
    format!("{start} … {end}")
}

fn described(reason: &str, tests: &[&str]) -> String {
    let mut text = String::new();
    for test in tests.iter().take(NAMED) {
        // Writing to a String cannot fail.
        _ = writeln!(text, "  FAILED {test}");
    }
    if tests.len() > NAMED {
        _ = writeln!(
            text,
            "  FAILED {} more tests in the same way",
            tests.len() - NAMED
        );
    }
    let reason = if reason.is_empty() {
        "no reason was printed"
    } else {
        reason
    };
    text + "         " + reason
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
suite kernel

running 3 tests
test conntrack::one ... ok
test conntrack::two ... FAILED
test object::three has been running for over 60 seconds
test object::three ... ok
test object::four ... ignored, not here

failures:

---- conntrack::two stdout ----
test of::another ... ok

thread 'conntrack::two' (7) panicked at tests/kernel/loaded.rs:99:5:
the verifier refused:
  R1 is wrong
note: run with `RUST_BACKTRACE=1`


failures:
    conntrack::two

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s
suite fence
test any_kernel::five ... FAILED
failures:

---- any_kernel::five stdout ----
Error: probing

Caused by:
    nothing came
failures:
    any_kernel::five
kernel 6.1.0-57-amd64: attached by clsact
sizes: instructions verified on 6.1
";

    fn results(text: &str) -> Results {
        let mut results = Results::default();
        for chunk in text.as_bytes().chunks(7) {
            results.write_all(chunk).unwrap();
        }
        results
    }

    #[test]
    fn results_are_counted_by_suite_and_failures_have_their_reason() {
        let results = results(OUTPUT);
        assert_eq!(results.summary(), "kernel 2 passed, 1 ignored, 2 failed");
        assert_eq!(results.attached(), "clsact");
        let expected = [
            "  FAILED kernel::conntrack::two\n         the verifier refused: R1 is wrong",
            "  FAILED fence::any_kernel::five\n         probing Caused by: nothing came",
        ];
        assert_eq!(results.failures(), expected);
        assert_eq!(results.notes(), ["sizes: instructions verified on 6.1"]);
        assert!(!results.succeeded(&["kernel"]));
    }

    #[test]
    fn a_suite_without_results_is_no_success() {
        let text = "suite kernel\ntest a::b ... ok\nsuite fence\n";
        assert!(results(text).succeeded(&["kernel"]));
        assert!(!results(text).succeeded(&["kernel", "fence"]));
        assert!(!results("").succeeded(&[]));
        assert_eq!(results("").attached(), "?");
    }

    #[test]
    fn tests_that_failed_in_the_same_way_are_one_entry() {
        let mut text = "suite kernel\n".to_owned();
        for number in 0..6 {
            text += &format!("test a::t{number} ... FAILED\n");
        }
        for number in 0..6 {
            text += &format!("---- a::t{number} stdout ----\nthread 'x' panicked at y:\nrefused\n");
        }
        let failures = results(&text).failures();
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].lines().count(), 6, "{failures:?}");
        assert!(failures[0].contains("2 more tests"), "{failures:?}");
    }

    #[test]
    fn a_long_reason_keeps_both_ends() {
        let long = format!("begin {} end", "x".repeat(1000));
        let short = shortened(&long);
        assert!(short.starts_with("begin ") && short.ends_with(" end"));
        assert_eq!(short.chars().count(), REASON_LENGTH + 3);
    }
}
