//! Counting what arrived, and telling it: a row for each family, and the frames that went wrong.

use std::fmt::{self, Write as _};
use std::path::Path;

use anyhow::Result;

use super::pcap;
use super::play::Played;
use super::shot::Expect;

/// How many offenders are remembered for the report.
const REMEMBERED: usize = 20;

/// Totals over played frames.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Frames sent, in each arena.
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
    /// Some frames that arrived and must not, or did not and must.
    pub offenders: Vec<Played>,
}

impl Tally {
    /// Counts one frame. What even the control does not deliver proves nothing.
    pub fn count(&mut self, played: &Played) {
        let arrived = played.arrived;
        self.sent += 1;
        let wrong = played.leaked() || played.lost() || (arrived.control && !arrived.observe);
        if wrong && self.offenders.len() < REMEMBERED {
            self.offenders.push(played.clone());
        }
        if played.leaked() {
            self.denied_delivered += 1;
        }
        if !arrived.control {
            return;
        }
        self.control += 1;
        self.observed += u64::from(arrived.observe);
        if played.shot.expect == Expect::Permitted {
            self.permitted += 1;
            self.permitted_delivered += u64::from(arrived.enforce);
        } else {
            self.denied += 1;
        }
    }

    /// Adds the totals of another.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.control += other.control;
        self.denied += other.denied;
        self.denied_delivered += other.denied_delivered;
        self.permitted += other.permitted;
        self.permitted_delivered += other.permitted_delivered;
        self.observed += other.observed;
        self.offenders.extend(other.offenders.iter().cloned());
        self.offenders.truncate(REMEMBERED);
    }

    /// No denied frame arrived; of permitted and of observed ones hardly any was lost; the control
    /// delivered nearly all.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let nearly = |part: u64, whole: u64| (whole - part) * 10_000 <= whole;
        self.denied_delivered == 0
            && nearly(self.permitted_delivered, self.permitted)
            && nearly(self.observed, self.control)
            && self.control * 10 >= self.sent * 9
    }

    /// The row of a family.
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

    /// What the columns of rows are.
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

    /// The frames that went wrong, in words and bytes.
    #[must_use]
    pub fn offences(&self) -> String {
        let mut text = String::new();
        for played in &self.offenders {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}", Offence(played));
        }
        text
    }

    /// Writes the frames that went wrong as a capture file named after their family.
    pub fn save(&self, directory: &Path, family: &str) -> Result<()> {
        if self.offenders.is_empty() {
            return Ok(());
        }
        let path = directory.join(format!("attack-{family}.pcap"));
        pcap::write(
            &path,
            self.offenders
                .iter()
                .map(|played| played.shot.frame.as_slice()),
        )
    }
}

struct Offence<'a>(&'a Played);

impl fmt::Display for Offence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Played {
            member,
            mutated,
            shot,
            arrived,
        } = self.0;
        let changed = if *mutated { ", changed at random" } else { "" };
        write!(
            f,
            "{:?} '{member}'{changed}: {:?}, {arrived:?}",
            shot.lane, shot.expect
        )?;
        if let Some(offload) = shot.offload {
            write!(f, ", {offload:?}")?;
        }
        f.write_str("\n  ")?;
        shot.frame
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
