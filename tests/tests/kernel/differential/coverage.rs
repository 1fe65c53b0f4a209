//! Coverage: how many frames had which outcome, to show that every outcome was reached.

use std::collections::BTreeMap;
use std::fmt;

use ringfence_common::{drop_reason::DropReason, mode::Mode};

use super::expectation::Expected;
use crate::fence::Outcome;

/// Reasons that only full tables and long bursts give, for which a sequence is too short, and that of
/// a stand-in.
const UNREACHABLE: [DropReason; 5] = [
    DropReason::NoProgram,
    DropReason::DiscoveryRate,
    DropReason::ConntrackFull,
    DropReason::ReplyForgotten,
    DropReason::FragmentTableFull,
];
/// Steps of the pipeline that must have let frames pass in a run.
const PASSES: [&str; 26] = [
    "ARP to the workload",
    "ARP for an own address",
    "DHCP",
    "ICMP error about a flow",
    "original direction",
    "evaluated again, original direction",
    "evaluated again, reply direction",
    "by itself, against a denied originator",
    "takes the flow over",
    "new flow",
    "reply direction",
    "picked up mid-flow",
    "from the host",
    "from the host, mid-flow, no entry",
    "from the host, mid-flow, as a reply",
    "from the host, picked up mid-flow",
    "solicitation to a group",
    "solicitation to a neighbour",
    "advertisement",
    "router discovery",
    "redirect",
    "listener query",
    "listener report",
    "opened again",
    "from an own address",
    "to itself, by an address of the node",
];

/// Frames by outcome, in `enforce`, `observe` and `lockdown`.
#[derive(Default)]
pub(super) struct Coverage {
    outcomes: BTreeMap<String, [u64; 3]>,
    /// Worlds that were left early because the machine was too slow to compare them.
    pub(super) left_early: u64,
}

impl Coverage {
    pub(super) fn add(&mut self, mode: Mode, expected: Expected, outcome: Outcome) {
        let name = match (expected, outcome) {
            (Expected::Pass(why), _) => format!("pass: {why}"),
            (Expected::Reject { .. }, Outcome::Rejected) => {
                "reject: policy, reject packet sent".into()
            }
            (Expected::Reject { .. }, _) => "reject: policy, no reject packet".into(),
            (Expected::Deny([reason]), _) => format!("deny: {}", reason.name()),
            (Expected::Deny(reasons), _) => {
                format!("deny: {}, or another fault", reasons[0].name())
            }
        };
        let column = match mode {
            Mode::Enforce => 0,
            Mode::Observe => 1,
            Mode::Lockdown => 2,
        };
        self.outcomes.entry(name).or_default()[column] += 1;
    }

    /// Adds the frames of another fence.
    pub(super) fn merge(&mut self, other: Self) {
        for (name, counts) in other.outcomes {
            let sum = self.outcomes.entry(name).or_default();
            for (sum, count) in sum.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        self.left_early += other.left_early;
    }

    /// The outcomes that must be covered and that fewer than `least` frames had in `enforce`.
    pub(super) fn missed(&self, least: u64) -> Vec<String> {
        let reasons = DropReason::ALL.iter().filter(|reason| {
            // Lockdown does not occur in `enforce`; it is checked below.
            !UNREACHABLE.contains(reason) && **reason != DropReason::Lockdown
        });
        let denials = reasons.map(|reason| format!("deny: {}", reason.name()));
        let passes = PASSES.iter().map(|why| format!("pass: {why}"));
        let mut missed: Vec<String> = denials
            .chain(passes)
            .filter(|name| {
                self.outcomes
                    .get(name)
                    .is_none_or(|counts| counts[0] < least)
            })
            .collect();
        let locked = "deny: lockdown";
        if self
            .outcomes
            .get(locked)
            .is_none_or(|counts| counts[2] < least)
        {
            missed.push(locked.into());
        }
        missed
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (title, modes) = ("outcome", ["enforce", "observe", "lockdown"]);
        write!(f, "{title:<44}")?;
        for mode in modes {
            write!(f, "{mode:>10}")?;
        }
        for (name, counts) in &self.outcomes {
            write!(f, "\n{name:<44}")?;
            for number in counts {
                write!(f, "{number:>10}")?;
            }
        }
        write!(
            f,
            "\nworlds left early on a slow machine: {}",
            self.left_early
        )
    }
}
