//! Policies as written, with everything resolved that depends on the file alone.
//!
//! The policy's own namespace is resolved to a name, CIDRs are masked, selectors are canonical.
//! Anything that depends on the inventory (workloads, named ports) or on the time is resolved when
//! the policy is compiled. The rules of a policy are in the order of the file.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ringfence_common::mode::{Direction, Verdict};

use super::labels::Labels;
use super::name::{NamespaceName, PolicyName, WorkloadId};
use super::rule::{PortMatch, Rule};
use super::selector::LabelSelector;
use crate::ordmap::Map;

/// Where a policy applies, and its place in the order of evaluation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Workloads of one namespace; evaluated in the namespace tier.
    Namespace(NamespaceName),
    /// Workloads of all matching namespaces; evaluated in a tier before or after the namespace
    /// tier.
    Cluster {
        /// The tier.
        tier: Tier,
        /// Its priority within the tier.
        priority: Priority,
        /// Selects the namespaces by label; `everything()` for all.
        namespaces: LabelSelector,
    },
}

/// The tiers of cluster policies; the namespace tier is between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Evaluated before the namespace tier.
    Admin,
    /// Evaluated where no policy of the namespace tier isolates the direction.
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

/// A cluster policy's priority within its tier: 0 to 1000, lower is evaluated first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u16);

/// A priority out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("priority {0} is out of range: expected 0 to 1000")]
pub struct BadPriority(pub i64);

impl Priority {
    /// The largest priority.
    pub const MAX: u16 = 1000;

    /// Makes a priority of a number.
    ///
    /// # Errors
    /// When it is not in 0 to 1000.
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

/// The language a policy is written in. A name is unique per language and namespace.
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
    /// The name of the kind in flow records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ringfence => "RingfencePolicy",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }
}

/// A policy's full name: `namespace/name`, or `name` alone in cluster scope. Kubernetes objects are
/// prefixed with their kind, as in `networkpolicy/shop/orders`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId {
    /// The policy's language.
    pub kind: PolicyKind,
    /// The namespace it belongs to; `None` in cluster scope.
    pub namespace: Option<NamespaceName>,
    /// Its name within the namespace or the cluster.
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

/// Who is responsible for a policy and why it exists; untrusted text, to be escaped when shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The team or person that owns it.
    pub owner: Option<String>,
    /// Why it exists.
    pub justification: Option<String>,
    /// The ticket that requested it.
    pub ticket: Option<String>,
    /// The day (ISO 8601) by which it is due for review.
    pub review_by: Option<String>,
}

/// The file and line something came from, or the object of an API.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file, or the name of the object.
    pub file: Arc<str>,
    /// The line, counted from 1; 0 for an object, which has no lines.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => out.write_str(&self.file),
            line => write!(out, "{}:{line}", self.file),
        }
    }
}

/// A policy: its subjects and the rules for their traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The language it is written in.
    pub kind: PolicyKind,
    /// Its name within its scope.
    pub name: PolicyName,
    /// Where it applies.
    pub scope: Scope,
    /// Which workloads of the scope are its subjects.
    pub subject: LabelSelector,
    /// Owner, justification and the like.
    pub about: About,
    /// Rules for traffic to the subjects. In a namespace, `None` does not isolate them and `Some`
    /// always does; cluster policies never isolate.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for traffic from the subjects; `None` and `Some` as for ingress.
    pub egress: Option<Vec<Rule>>,
    /// The verdicts its author expects.
    pub tests: Vec<PolicyTest>,
    /// The file and line of its declaration.
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

    /// The rules of one direction; `None` if the policy does not apply to it.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// True if workloads with these labels in this namespace are its subjects.
    #[must_use]
    pub fn selects(
        &self,
        namespace: &NamespaceName,
        of_namespace: &Labels,
        labels: &Labels,
    ) -> bool {
        let in_scope = match &self.scope {
            Scope::Namespace(name) => name == namespace,
            Scope::Cluster { namespaces, .. } => namespaces.matches(of_namespace),
        };
        in_scope && self.subject.matches(labels)
    }
}

/// The source or the destination of a policy test.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TestEnd {
    /// A workload by name; the test fails if it does not exist.
    Workload(WorkloadId),
    /// An address; it represents the workload or node that owns it, if any.
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
    /// The source.
    pub from: TestEnd,
    /// The destination.
    pub to: TestEnd,
    /// One port, one named port, or a protocol that has no ports.
    pub port: PortMatch,
    /// The expected verdict.
    pub expect: Verdict,
    /// Its line in the policy's file.
    pub line: u32,
}

/// The policies of all sources by full name.
pub type PoliciesById = Map<PolicyId, Arc<Policy>>;
