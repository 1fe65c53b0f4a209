//! How many frames had which outcome, so that one sees that everything was reached.

use std::collections::BTreeMap;
use std::fmt;

use ringfence_common::{drop_reason::DropReason, mode::Mode};

use super::expectation::Expected;
use crate::fence::Fate;

/// Reasons that full tables and spent quotas alone give: an episode is too short for them.
const UNREACHABLE: [DropReason; 3] = [
    DropReason::ConntrackFull,
    DropReason::FlowLimit,
    DropReason::FragmentTableFull,
];
/// Ways to pass that a run must have seen.
const PASSES: [&str; 15] = [
    "ARP arrives",
    "ARP in the own name",
    "DHCP",
    "ICMP error about a flow",
    "a flow goes on",
    "a new flow",
    "a reply",
    "an older connection",
    "from the own node",
    "from the own node, and opens nothing",
    "from the own node, as an answer",
    "from the own node, older",
    "neighbour discovery",
    "opened again",
    "to the own address",
];

/// Frames by outcome; of each, how many in `enforce`, `observe` and `lockdown`.
#[derive(Default)]
pub(super) struct Tally {
    outcomes: BTreeMap<String, [u64; 3]>,
}

impl Tally {
    pub(super) fn add(&mut self, mode: Mode, expected: Expected, fate: Fate) {
        let name = match (expected, fate) {
            (Expected::Pass(why), _) => format!("pass: {why}"),
            (Expected::Reject { .. }, Fate::Rejected) => "deny: policy, answered".into(),
            (Expected::Reject { .. }, _) => "deny: policy, by a rule that rejects".into(),
            (Expected::Refuse([reason]), _) => format!("deny: {}", reason.name()),
            (Expected::Refuse(reasons), _) => {
                format!("deny: {}, or what else is wrong", reasons[0].name())
            }
        };
        let column = match mode {
            Mode::Enforce => 0,
            Mode::Observe => 1,
            Mode::Lockdown => 2,
        };
        self.outcomes.entry(name).or_default()[column] += 1;
    }

    /// What fewer than `least` frames came to in `enforce`, of all that must be seen.
    pub(super) fn missed(&self, least: u64) -> Vec<String> {
        let reasons = DropReason::ALL.iter().filter(|reason| {
            // Locked down is what enforcing is not.
            !UNREACHABLE.contains(reason) && **reason != DropReason::Lockdown
        });
        let denials = reasons.map(|reason| format!("deny: {}", reason.name()));
        let passes = PASSES.iter().map(|why| format!("pass: {why}"));
        let mut missed: Vec<String> = denials
            .chain(passes)
            .filter(|name| self.outcomes.get(name).is_none_or(|of| of[0] < least))
            .collect();
        let locked = "deny: lockdown";
        if self.outcomes.get(locked).is_none_or(|of| of[2] < least) {
            missed.push(locked.into());
        }
        missed
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, modes) = ("outcome", ["enforce", "observe", "lockdown"]);
        write!(f, "{what:<44}")?;
        for mode in modes {
            write!(f, "{mode:>10}")?;
        }
        for (name, of) in &self.outcomes {
            write!(f, "\n{name:<44}")?;
            for number in of {
                write!(f, "{number:>10}")?;
            }
        }
        Ok(())
    }
}
