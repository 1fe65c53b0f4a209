//! The content of an explanation: plain data, exchanged as JSON between agent and command line.
//!
//! Invariants: a published field keeps its meaning. Text written by people (files, owners, names of
//! rules) is stored unchanged: escape it for display.

use ringfence_common::mode::{Direction, Verdict};
use serde::{Deserialize, Serialize};

use super::miss::Miss;
use crate::model::ModeName;

/// Why one flow is allowed or denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The originator.
    pub from: Who,
    /// The responder.
    pub to: Who,
    /// `tcp/8080`, or a protocol without ports.
    pub port: String,
    /// The time of the evaluation, RFC 3339.
    pub at: String,
    /// Allowed only if both ends allow.
    #[serde(with = "verdict")]
    pub verdict: Verdict,
    /// The originator's end.
    pub egress: Side,
    /// The responder's end. Of a Service, that of a backend: one that denies, if there is one.
    pub ingress: Side,
    /// The backends, if the responder is a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Backends>,
}

/// What may be behind the port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backends {
    /// Those that are treated alike are listed once.
    pub listed: Vec<BackendStanding>,
    /// The number of all.
    pub count: usize,
}

/// A backend of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStanding {
    /// What has its address.
    pub who: Who,
    /// Its port, `tcp/8080`.
    pub port: String,
    /// The verdict of the originator's end.
    #[serde(with = "verdict")]
    pub egress: Verdict,
    /// The rule or default that decided it, with its policy.
    pub egress_by: String,
    /// The verdict of its own end.
    #[serde(with = "verdict")]
    pub ingress: Verdict,
    /// The rule or default that decided it, with its policy.
    pub ingress_by: String,
    /// How many backends are treated alike, with this one.
    pub alike: usize,
}

/// One end of the flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// `namespace/name` of a workload or a Service, a node's name, `world`, `cluster`, or what a special range is called.
    pub name: String,
    /// The evaluated address.
    pub address: String,
    /// The owner type of the address.
    pub kind: WhoKind,
}

/// The owner type of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhoKind {
    /// A workload.
    Workload,
    /// This node.
    Host,
    /// Another node.
    RemoteNode,
    /// Neither, outside the cluster.
    World,
    /// Neither, in a special range.
    Special,
    /// Neither, in a range of the cluster.
    Cluster,
    /// A Service.
    Service,
    /// Several claim the address, and it has no owner.
    Unknown,
}

/// The verdict of one end, with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The direction as seen from the workload.
    #[serde(with = "direction")]
    pub direction: Direction,
    /// Its verdict.
    #[serde(with = "verdict")]
    pub verdict: Verdict,
    /// The deciding rule, `ingress[0]`, or a default's name.
    pub rule: String,
    /// The rule's policy.
    pub policy: Option<String>,
    /// Details of the deciding rule.
    pub decider: Option<Decider>,
    /// The policies that select the workload and have the direction.
    pub policies: Vec<PolicyStanding>,
    /// The number of further policies that are not listed.
    pub policies_left_out: usize,
    /// The rules in evaluation order.
    pub rules: Vec<RuleStanding>,
    /// The number of further non-matching rules that are not listed because others are nearer.
    pub rules_left_out: usize,
    /// The number of rules that are not evaluated, because the decision is made before them.
    pub not_evaluated: usize,
    /// How to get the opposite verdict from this end.
    pub advice: Advice,
    /// The action of the running agent; absent if files were evaluated.
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
    pub location: String,
    /// Who owns its policy.
    pub owner: Option<String>,
    /// Why its policy exists.
    pub justification: Option<String>,
    /// The ticket that asked for it.
    pub ticket: Option<String>,
    /// The review date.
    pub review_by: Option<String>,
    /// When it ends, RFC 3339.
    pub expires: Option<String>,
}

/// A policy that applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStanding {
    /// Its full name.
    pub policy: String,
    /// `admin 10`, `namespace` or `baseline 5`.
    pub tier: String,
    /// Whether it isolates the direction.
    pub isolates: bool,
    /// False for the baseline tier after an isolating policy.
    pub evaluated: bool,
    /// `file:line`.
    pub location: String,
}

/// An evaluated rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStanding {
    /// `admin 10`, `namespace` or `baseline 5`.
    pub tier: String,
    /// The policy's full name.
    pub policy: String,
    /// `ingress[0]`.
    pub rule: String,
    /// The name its author gave it.
    pub name: Option<String>,
    /// `file:line`.
    pub location: String,
    /// `allow`, `pass`, `reject` or `deny`.
    pub action: String,
    /// Whether and how it matched.
    pub standing: Standing,
    /// The conditions that do not match, in evaluation order; empty if it matches.
    pub misses: Vec<Miss>,
}

/// Whether and how a rule matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It does not match.
    NoMatch,
    /// It matches and decides.
    Decides,
    /// It matches and skips the rest of its tier.
    Passes,
    /// It matches, but a rule of the same order is stronger, or as strong and listed before it.
    Outweighed,
    /// It matches, but an earlier rule of its policy matches too.
    Superseded,
    /// It was not evaluated.
    NotEvaluated,
}

/// How to get the opposite verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// Notes that come first.
    pub notes: Vec<String>,
    /// Alternative changes; each one is enough.
    pub alternatives: Vec<Alternative>,
}

/// One change that yields the opposite verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    /// All steps of the change.
    pub steps: Vec<String>,
    /// The lines of TOML that the steps refer to.
    pub snippet: Vec<String>,
}

/// The effect of a verdict in the running agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The workload's namespace.
    pub namespace: String,
    /// Its mode.
    pub mode: ModeName,
    /// Whether the workload has a fence on the agent's node.
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
