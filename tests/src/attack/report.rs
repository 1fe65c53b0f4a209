//! Counts arrivals and reports them: a row for each family, and the frames with wrong results.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use ringfence_common::reject::REJECTS_PER_SECOND;

use super::case::Expect;
use super::case::Rejected;
use super::network::counters::Rejects;
use super::pcap;
use super::run::FrameResult;

/// How many failures are kept for the report.
const REMEMBERED: usize = 20;

/// Reject packets, where policy is enforced.
#[derive(Clone, Debug, Default)]
pub struct RejectTally {
    /// Frames whose senders get one, up to the limit.
    pub rejected: u64,
    /// Those that arrived at the sender.
    pub arrived: u64,
    /// Of these, the ones that are not what the rejected frame permits, larger ones among them.
    pub wrong: u64,
    /// What the fence counted, also for frames that were sent again.
    pub counted: Rejects,
    /// The most that the limit permits in the time that the frames took.
    pub most: u64,
}

impl RejectTally {
    fn count(&mut self, result: &FrameResult) {
        self.rejected += u64::from(result.sent.rejected == Rejected::Yes);
        self.arrived += u64::from(result.reject_packet.is_some());
        self.wrong += u64::from(result.reject_fault().is_some());
    }

    /// Adds what the fence counted in this time. The limit holds for every second from the first reject
    /// packet on, so a part of a second may be one of two.
    pub fn limit(&mut self, time: Duration, counted: Rejects) {
        self.counted = counted;
        self.most = (time.as_secs() + 2) * REJECTS_PER_SECOND;
    }

    const fn is_good(&self) -> bool {
        self.wrong == 0 && self.counted.sent <= self.most
    }
}

impl fmt::Display for RejectTally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rejected,
            arrived,
            wrong,
            counted,
            most,
        } = self;
        write!(
            f,
            "  {arrived} reject packets about {rejected} frames that a rule rejects: {wrong} wrong or larger \
             than permitted; {} sent of at most {most}, {} over the limit, {} not sent",
            counted.sent, counted.limited, counted.failed
        )
    }
}

/// Totals over all frames.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Frames sent in each network.
    pub sent: u64,
    /// Frames that arrived without a fence.
    pub control: u64,
    /// Frames that policy denies, among those that the control delivered.
    pub denied: u64,
    /// Of these, the ones that arrived past a fence that enforces.
    pub denied_delivered: u64,
    /// Frames that policy permits, among those that the control delivered.
    pub permitted: u64,
    /// Of these, the ones that arrived.
    pub permitted_delivered: u64,
    /// Frames that arrived past a fence that observes, among those that the control delivered.
    pub observed: u64,
    /// Reject packets.
    pub rejects: RejectTally,
    /// Some frames with a wrong result.
    pub failures: Vec<FrameResult>,
}

impl Tally {
    /// Counts one frame. A frame that the control does not deliver proves nothing.
    pub fn count(&mut self, result: &FrameResult) {
        let arrived = result.arrived;
        self.sent += 1;
        self.rejects.count(result);
        let misplaced = result.leaked() || result.lost() || result.lost_while_observed();
        let wrong = misplaced || result.reject_fault().is_some();
        if wrong && self.failures.len() < REMEMBERED {
            self.failures.push(result.clone());
        }
        if result.leaked() {
            self.denied_delivered += 1;
        }
        if !arrived.control {
            return;
        }
        self.control += 1;
        self.observed += u64::from(arrived.observe);
        if result.sent.expect == Expect::Permitted {
            self.permitted += 1;
            self.permitted_delivered += u64::from(arrived.enforce);
        } else {
            self.denied += 1;
        }
    }

    /// Adds another tally's totals.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.control += other.control;
        self.denied += other.denied;
        self.denied_delivered += other.denied_delivered;
        self.permitted += other.permitted;
        self.permitted_delivered += other.permitted_delivered;
        self.observed += other.observed;
        self.failures.extend(other.failures.iter().cloned());
        self.failures.truncate(REMEMBERED);
    }

    /// Whether no denied frame arrived, no permitted or observed frame was lost, and the control
    /// delivered nearly all frames, and all reject packets were as they may be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.denied_delivered == 0
            && self.permitted_delivered == self.permitted
            && self.observed == self.control
            && self.control * 10 >= self.sent * 9
            && self.rejects.is_good()
    }

    /// A family's row.
    #[must_use]
    pub fn row(&self, name: &str) -> String {
        format!(
            "{name:<22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            self.sent,
            self.control,
            self.denied,
            self.denied_delivered,
            self.permitted,
            self.permitted_delivered,
            self.observed,
        )
    }

    /// The column headers.
    #[must_use]
    pub fn head() -> String {
        format!(
            "{:<22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "family",
            "sent",
            "control",
            "denied",
            "delivered",
            "permitted",
            "delivered",
            "observed"
        )
    }

    /// The failures as text, with their bytes.
    #[must_use]
    pub fn failures_text(&self) -> String {
        let mut text = String::new();
        for result in &self.failures {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", Failure(result));
        }
        text
    }

    /// Writes the failures to a capture file named after their family.
    pub fn save(&self, directory: &Path, family: &str) -> Result<()> {
        if self.failures.is_empty() {
            return Ok(());
        }
        let path = directory.join(format!("attack-{family}.pcap"));
        pcap::write(
            &path,
            self.failures
                .iter()
                .map(|result| result.sent.bytes.as_slice()),
        )
    }
}

struct Failure<'a>(&'a FrameResult);

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FrameResult {
            member,
            mutated,
            sent,
            arrived,
            losses,
            ..
        } = self.0;
        let changed = if *mutated { ", mutated" } else { "" };
        write!(
            f,
            "{:?} '{member}'{changed}: {:?}, {arrived:?}",
            sent.direction, sent.expect
        )?;
        if let Some(offload) = sent.offload {
            write!(f, ", {offload:?}")?;
        }
        losses.iter().try_for_each(|loss| write!(f, "\n  {loss}"))?;
        if let Some(fault) = self.0.reject_fault() {
            write!(f, "\n  {fault}")?;
        }
        f.write_str("\n  ")?;
        sent.bytes
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
