//! Adds up the result lines of test programs.
//!
//! Only lines in libtest's format `test result: …` count, so a test that prints "5 passed" has no
//! effect. Why a test failed is not examined.

use std::fmt;

/// Totals over the test programs seen so far.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// Adds `line` if it is a result line.
    pub(crate) fn count(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result: ") else {
            return;
        };
        let counts = result.split_once(". ").map_or("", |(_, counts)| counts);
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Number of tests that ran.
    pub(crate) fn ran(&self) -> u64 {
        self.passed + self.failed
    }

    /// At least one test ran and none failed.
    pub(crate) fn succeeded(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    const TAIL: &str = "0 measured; 3 filtered out; finished in 0.01s\n";

    fn tally(lines: &[String]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.count(line);
        }
        tally
    }

    #[test]
    fn adds_up_all_programs() {
        let total = tally(&[
            format!("test result: ok. 5 passed; 0 failed; 0 ignored; {TAIL}"),
            format!("test result: FAILED. 2 passed; 1 failed; 4 ignored; {TAIL}"),
            String::from("test foo ... ok\n"),
        ]);
        assert_eq!(total.to_string(), "7 passed, 1 failed, 4 skipped");
        assert!(!total.succeeded());
    }

    #[test]
    fn skipped_tests_are_shown_only_if_there_are_any() {
        let total = tally(&[format!(
            "test result: ok. 5 passed; 0 failed; 0 ignored; {TAIL}"
        )]);
        assert_eq!(total.to_string(), "5 passed, 0 failed");
        assert!(total.succeeded());
    }

    #[test]
    fn a_run_without_tests_is_not_a_success() {
        let total = tally(&[format!(
            "test result: ok. 0 passed; 0 failed; 0 ignored; {TAIL}"
        )]);
        assert_eq!(total.ran(), 0);
        assert!(!total.succeeded());
    }

    #[test]
    fn the_output_of_a_test_does_not_count() {
        assert_eq!(
            tally(&[String::from("printed: test result: ok. 9 passed\n")]),
            Tally::default()
        );
    }
}
