//! Policies as written, with everything that depends on the file alone already resolved.
//!
//! "Own namespace" is a name here, CIDRs are masked, selectors are canonical. What depends on the
//! inventory (which workloads, which port a name means) or on the time stays open until compile.
//! Within a policy the order of rules is the order of the file.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_common::{
    mode::{Direction, Verdict},
    mutant,
};

use super::labels::Labels;
use super::name::{NamespaceName, PolicyName, WorkloadId};
use super::rule::{PortMatch, Rule};
use super::selector::LabelSelector;

/// Where a policy applies, and among which others it is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// To workloads of one namespace, in the namespace tier.
    Namespace(NamespaceName),
    /// To workloads of every namespace that matches, in a tier around the namespace tier.
    Cluster {
        /// Before or after the namespace tier.
        tier: Tier,
        /// Its place within the tier.
        priority: Priority,
        /// The namespaces by their labels; `everything()` for all.
        namespaces: LabelSelector,
    },
}

/// The tiers of cluster policies; the namespace tier lies between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Speaks before the namespaces do.
    Admin,
    /// Speaks where no policy of the namespace isolates.
    Baseline,
}

impl fmt::Display for Tier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Admin => "admin",
            Self::Baseline => "baseline",
        })
    }
}

/// A cluster policy's place within its tier: 0 to 1000, lower speaks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u16);

/// A priority out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("priority {0} is out of range: expected 0 to 1000")]
pub struct BadPriority(pub i64);

impl Priority {
    /// The largest priority.
    pub const MAX: u16 = 1000;

    /// Checks a number.
    ///
    /// # Errors
    /// When it is not 0 to 1000.
    pub fn new(number: i64) -> Result<Self, BadPriority> {
        u16::try_from(number)
            .ok()
            .filter(|number| *number <= Self::MAX)
            .map(Self)
            .ok_or(BadPriority(number))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// The language a policy is written in. Names are taken once per language and namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// Ringfence's own TOML.
    Ringfence,
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`.
    ClusterNetworkPolicy,
}

impl PolicyKind {
    /// The kind's name, as flow records show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ringfence => "RingfencePolicy",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }
}

/// A policy's full name: `namespace/name`, or `name` alone in cluster scope; Kubernetes objects
/// have their kind before it, as in `networkpolicy/shop/orders`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId {
    /// Its language.
    pub kind: PolicyKind,
    /// The namespace it belongs to; `None` in cluster scope.
    pub namespace: Option<NamespaceName>,
    /// Its name there.
    pub name: PolicyName,
}

impl fmt::Display for PolicyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.kind {
            PolicyKind::Ringfence => "",
            PolicyKind::NetworkPolicy => "networkpolicy/",
            PolicyKind::ClusterNetworkPolicy => "clusternetworkpolicy/",
        })?;
        if let Some(namespace) = &self.namespace {
            write!(out, "{namespace}/")?;
        }
        write!(out, "{}", self.name)
    }
}

/// Who answers for a policy and why it exists; untrusted text, to be escaped when shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The team or person that owns it.
    pub owner: Option<String>,
    /// Why it exists.
    pub justification: Option<String>,
    /// The ticket that asked for it.
    pub ticket: Option<String>,
    /// The day (ISO 8601) by which someone looks at it again.
    pub review_by: Option<String>,
}

/// The file and line something came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.file, self.line)
    }
}

/// A policy: which workloads it is about and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The language it is written in.
    pub kind: PolicyKind,
    /// Its name within its scope.
    pub name: PolicyName,
    /// Where it applies.
    pub scope: Scope,
    /// Which workloads there.
    pub subject: LabelSelector,
    /// Who and why.
    pub about: About,
    /// Rules for traffic to the subjects. In a namespace `None` does not isolate them, `Some`
    /// always does; in cluster scope nothing isolates.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for traffic from the subjects, likewise.
    pub egress: Option<Vec<Rule>>,
    /// What its author expects of it.
    pub tests: Vec<PolicyTest>,
    /// Where it was written.
    pub origin: Origin,
}

impl Policy {
    /// Its full name.
    #[must_use]
    pub fn id(&self) -> PolicyId {
        PolicyId {
            kind: self.kind,
            namespace: match &self.scope {
                Scope::Namespace(namespace) => Some(namespace.clone()),
                Scope::Cluster { .. } => None,
            },
            name: self.name.clone(),
        }
    }

    /// The rules of one direction, `None` if the policy does not speak about it.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// True if it is about workloads with these labels in this namespace.
    #[must_use]
    pub fn selects(
        &self,
        namespace: &NamespaceName,
        namespace_labels: &Labels,
        labels: &Labels,
    ) -> bool {
        let here = match &self.scope {
            Scope::Namespace(its) => its == namespace,
            Scope::Cluster { namespaces, .. } => mutant!(
                subject_namespaces_ignored,
                namespaces.matches(namespace_labels),
                true,
            ),
        };
        here && self.subject.matches(labels)
    }
}

/// One end of the traffic that a policy test is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TestEnd {
    /// A workload by name; whether it exists is for the test to find out.
    Workload(WorkloadId),
    /// An address; one that a workload or node owns is that owner.
    Address(IpAddr),
}

impl fmt::Display for TestEnd {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(id) => write!(out, "{id}"),
            Self::Address(address) => write!(out, "{address}"),
        }
    }
}

/// A verdict that a policy's author expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTest {
    /// Who sends.
    pub from: TestEnd,
    /// Who receives.
    pub to: TestEnd,
    /// One port, one named port, or a protocol that has no ports.
    pub port: PortMatch,
    /// The expected verdict.
    pub expect: Verdict,
    /// Its line in the policy's file.
    pub line: u32,
}

/// The policies of all sources by full name.
pub type PoliciesById = BTreeMap<PolicyId, Arc<Policy>>;
