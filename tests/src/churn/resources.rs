//! What the agent holds: numbers, map entries, file descriptors and memory.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result};
use ringfence::plan::State;
use ringfence::policy::Space;

/// How much more memory is accepted: the allocator keeps free pages between those in use.
const SLACK_KIB: u64 = 24 << 10;

/// What is held at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Numbers taken, by space. Tables are left out: their numbers are never
    /// given twice.
    pub numbers: BTreeMap<&'static str, usize>,
    /// Entries of the control maps.
    pub entries: BTreeMap<&'static str, usize>,
    /// Live assured conntrack entries.
    pub assured: u64,
    /// Open file descriptors of this process.
    pub descriptors: usize,
    /// Resident memory of this process, in KiB.
    pub rss_kib: u64,
}

impl Resources {
    pub(super) fn read(taken: BTreeMap<Space, usize>, state: &State, assured: u64) -> Result<Self> {
        let numbers = taken
            .into_iter()
            .filter(|(space, _)| *space != Space::Table);
        Ok(Self {
            numbers: numbers
                .map(|(space, count)| (space.name(), count))
                .collect(),
            entries: BTreeMap::from([
                ("rows", state.rows()),
                ("addresses", state.addresses.len()),
                ("prefixes", state.prefixes.len()),
                ("endpoints", state.endpoints.len()),
            ]),
            assured,
            descriptors: std::fs::read_dir("/proc/self/fd")?.count(),
            rss_kib: rss_kib()?,
        })
    }

    /// What is held beyond what was held before; empty if nothing is.
    pub(super) fn beyond(&self, before: &Self) -> Vec<String> {
        let mut more = Vec::new();
        let mut compare = |what: String, now: u64, then: u64| {
            if now > then {
                more.push(format!("{what}: {now}, before {then}"));
            }
        };
        for (kind, now, then) in [
            ("numbers", &self.numbers, &before.numbers),
            ("entries", &self.entries, &before.entries),
        ] {
            for (name, now) in now {
                let then = then.get(name).copied().unwrap_or(0);
                compare(format!("{kind} of {name}"), *now as u64, then as u64);
            }
        }
        compare("assured entries".into(), self.assured, before.assured);
        let descriptors = (self.descriptors as u64, before.descriptors as u64);
        compare("file descriptors".into(), descriptors.0, descriptors.1);
        if self.rss_kib > before.rss_kib + SLACK_KIB {
            more.push(format!(
                "memory: {} KiB, before {} KiB",
                self.rss_kib, before.rss_kib
            ));
        }
        more
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, counts) in [("numbers", &self.numbers), ("entries", &self.entries)] {
            write!(f, "{kind}")?;
            for (name, count) in counts {
                write!(f, " {name} {count}")?;
            }
            write!(f, "; ")?;
        }
        write!(
            f,
            "assured {}, descriptors {}, memory {} KiB",
            self.assured, self.descriptors, self.rss_kib
        )
    }
}

fn rss_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    Ok(kib
        .context("no VmRSS in /proc/self/status")?
        .trim()
        .parse()?)
}
