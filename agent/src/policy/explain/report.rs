//! What an explanation says: plain data, as JSON between agent and command line.
//!
//! Invariants: a field once published keeps its meaning. Text that people wrote (files, owners,
//! names of rules) is in here as they wrote it: escape it when shown.

use ringfence_common::mode::{Direction, Verdict};
use serde::{Deserialize, Serialize};

use super::miss::Miss;
use crate::model::ModeName;

/// Why one flow is allowed or denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who opens it.
    pub from: Who,
    /// Whom it is opened to.
    pub to: Who,
    /// `tcp/8080`, or a protocol without ports.
    pub port: String,
    /// The moment it is judged for, RFC 3339.
    pub at: String,
    /// Allowed only if both ends allow.
    #[serde(with = "verdict")]
    pub verdict: Verdict,
    /// The opening end.
    pub egress: Side,
    /// The receiving end.
    pub ingress: Side,
}

/// One end of the flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// `namespace/name` of a workload, a node's name, or `world`.
    pub name: String,
    /// The address that was judged.
    pub address: String,
    /// What it is.
    pub kind: WhoKind,
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhoKind {
    /// A workload.
    Workload,
    /// This node.
    Host,
    /// Another node.
    RemoteNode,
    /// Neither.
    World,
}

/// What one end says, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Which way, seen from the workload.
    #[serde(with = "direction")]
    pub direction: Direction,
    /// Its verdict.
    #[serde(with = "verdict")]
    pub verdict: Verdict,
    /// The deciding rule, `ingress[0]`, or a default's name.
    pub rule: String,
    /// The rule's policy.
    pub policy: Option<String>,
    /// More about the deciding rule.
    pub decider: Option<Decider>,
    /// The policies that select the workload and speak about the direction.
    pub policies: Vec<Speaks>,
    /// Further ones, not listed.
    pub policies_left_out: usize,
    /// The rules in the order in which they are asked.
    pub tried: Vec<Tried>,
    /// Further rules that did not match, not listed because others are nearer.
    pub left_out: usize,
    /// Rules that nobody asks any more, because the decision was made before them.
    pub unasked: usize,
    /// How to get the opposite verdict from this end.
    pub advice: Advice,
    /// What the running agent makes of it; absent when files were asked.
    pub live: Option<Live>,
}

/// The rule that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decider {
    /// `admin 10`, `namespace` or `baseline 5`.
    pub tier: String,
    /// `allow`, `deny` or `reject`.
    pub action: String,
    /// The name its author gave it.
    pub name: Option<String>,
    /// `file:line`.
    pub place: String,
    /// Who owns its policy.
    pub owner: Option<String>,
    /// Why its policy exists.
    pub justification: Option<String>,
    /// The ticket that asked for it.
    pub ticket: Option<String>,
    /// The day by which someone looks at it again.
    pub review_by: Option<String>,
    /// When it ends, RFC 3339.
    pub expires: Option<String>,
}

/// A policy that has a say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaks {
    /// Its full name.
    pub policy: String,
    /// `admin 10`, `namespace` or `baseline 5`.
    pub tier: String,
    /// Whether it isolates the direction.
    pub isolates: bool,
    /// False for the baseline tier after a policy that isolates.
    pub asked: bool,
    /// `file:line`.
    pub place: String,
}

/// A rule that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// `admin 10`, `namespace` or `baseline 5`.
    pub tier: String,
    /// The policy's full name.
    pub policy: String,
    /// `ingress[0]`.
    pub rule: String,
    /// The name its author gave it.
    pub name: Option<String>,
    /// `file:line`.
    pub place: String,
    /// `allow`, `pass`, `reject` or `deny`.
    pub action: String,
    /// What became of it.
    pub standing: Standing,
    /// What did not match, in the order in which it is looked at; empty if it matches.
    pub misses: Vec<Miss>,
}

/// What became of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It does not match.
    Missed,
    /// It matches and decides.
    Decides,
    /// It matches and skips the rest of its tier.
    Passes,
    /// It matches, but a rule that is as early is stronger, or as strong and listed before it.
    Outweighed,
    /// It matches, but an earlier rule of its policy has spoken.
    Spoken,
    /// Nobody asked it.
    Unasked,
}

/// How to get the opposite verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// What to know first.
    pub notes: Vec<String>,
    /// Ways to it, each enough by itself.
    pub ways: Vec<Way>,
}

/// One way to the opposite verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// What to do, all of it.
    pub steps: Vec<String>,
    /// Lines of TOML that the steps speak of.
    pub snippet: Vec<String>,
}

/// What the running agent makes of a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The workload's namespace.
    pub namespace: String,
    /// Its mode.
    pub mode: ModeName,
    /// Whether the workload is fenced on the agent's node.
    pub attached: bool,
}

mod verdict {
    use ringfence_common::mode::Verdict;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &Verdict, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(value.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Verdict, D::Error> {
        let name = String::deserialize(from)?;
        [Verdict::Allow, Verdict::Deny]
            .into_iter()
            .find(|verdict| verdict.name() == name)
            .ok_or_else(|| D::Error::custom("expected allow or deny"))
    }
}

mod direction {
    use ringfence_common::mode::Direction;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &Direction, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(value.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Direction, D::Error> {
        let name = String::deserialize(from)?;
        [Direction::Ingress, Direction::Egress]
            .into_iter()
            .find(|direction| direction.name() == name)
            .ok_or_else(|| D::Error::custom("expected ingress or egress"))
    }
}
