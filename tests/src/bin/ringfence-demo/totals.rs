//! The totals of the demo.

use std::fmt;

use crate::clients::Requests;
use crate::print::line;

/// The totals.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    requests: u64,
    failed: u64,
    attempted: usize,
    succeeded: usize,
}

impl Totals {
    /// Whether no legitimate request failed and no intrusion succeeded.
    pub(crate) fn as_claimed(&self) -> bool {
        self.requests > 0 && self.failed == 0 && self.attempted > 0 && self.succeeded == 0
    }

    /// Adds the requests of stopped clients.
    pub(crate) fn count(&mut self, requests: &Requests) {
        self.requests += requests.answered + requests.failed;
        self.failed += requests.failed;
        if let Some(failure) = &requests.first_failure {
            line(&format!("FAILED: {failure}"));
        }
    }

    /// Adds intrusions under enforcement.
    pub(crate) fn attempted(&mut self, made: usize, succeeded: usize) {
        self.attempted += made;
        self.succeeded += succeeded;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "demo: {} legitimate requests, {} failed; {} intrusions attempted, {} succeeded",
            self.requests, self.failed, self.attempted, self.succeeded
        )
    }
}
