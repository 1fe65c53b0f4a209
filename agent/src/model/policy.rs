//! Policies as written, with everything that depends on the file alone already resolved.
//!
//! "Own namespace" is a name here, CIDRs are masked, selectors are canonical. What depends on the
//! inventory (which workloads, which port a name means) or on the time stays open until compile.
//! Within a policy the order of rules is the order of the file.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::name::{NamespaceName, PolicyName, PortName, ServiceAccountName, WorkloadId};
use super::protocol::Protocol;
use super::selector::LabelSelector;

/// Where a policy applies; cluster tiers come later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// To workloads of one namespace.
    Namespace(NamespaceName),
}

/// A policy's full name, shown as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId {
    /// The namespace it belongs to.
    pub namespace: NamespaceName,
    /// Its name there.
    pub name: PolicyName,
}

impl fmt::Display for PolicyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
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
    /// Its name within its scope.
    pub name: PolicyName,
    /// Where it applies.
    pub scope: Scope,
    /// Which workloads there.
    pub subject: LabelSelector,
    /// Who and why.
    pub about: About,
    /// Rules for traffic to the subjects; `None` does not isolate them, `Some` always does.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for traffic from the subjects; `None` does not isolate them, `Some` always does.
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
        let Scope::Namespace(namespace) = &self.scope;
        PolicyId {
            namespace: namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// What a rule does with traffic it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAction {
    /// Lets it pass.
    Allow,
    /// Drops it.
    Deny,
}

impl fmt::Display for RuleAction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// One rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: RuleAction,
    /// The other side of the traffic.
    pub peers: Peers,
    /// The protocols and destination ports.
    pub ports: Ports,
    /// When it holds.
    pub window: Window,
    /// Its line in the policy's file.
    pub line: u32,
}

/// The other side of a rule's traffic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// Anyone at all.
    Any,
    /// Any of these; never empty.
    Of(Vec<Peer>),
}

/// One kind of peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Workloads that satisfy every condition.
    Workloads {
        /// In which namespaces.
        namespaces: NamespaceMatch,
        /// With which labels; `None` for all. Never a selector of everything.
        pods: Option<LabelSelector>,
        /// Running as which service account; `None` for all.
        service_account: Option<ServiceAccountName>,
    },
    /// Addresses, whoever owns them.
    Cidr {
        /// The range, masked.
        net: IpNet,
        /// Ranges within it that do not count: masked, sorted, no duplicates.
        except: Vec<IpNet>,
    },
    /// A reserved kind of peer.
    Entity(Entity),
}

/// Which namespaces a peer's workloads are in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceMatch {
    /// In the policy's own, by its name.
    Own(NamespaceName),
    /// In those whose labels match.
    Selector(LabelSelector),
}

/// Reserved kinds of peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    /// Addresses that are neither a workload's nor a node's.
    World,
    /// This node.
    Host,
    /// Other nodes.
    RemoteNode,
}

impl fmt::Display for Entity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::World => "world",
            Self::Host => "host",
            Self::RemoteNode => "remote-node",
        })
    }
}

/// The protocols and destination ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// Every protocol and port.
    Any,
    /// Any of these; never empty.
    Of(Vec<PortMatch>),
}

/// One entry of a rule's ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// Everything of one protocol.
    Protocol(Protocol),
    /// Ports `first` to `last`, both included; `first` is neither 0 nor above `last`.
    Range {
        /// A protocol that has ports.
        protocol: Protocol,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// A port that the destination workload declares.
    Named {
        /// The protocol it must have; `None` takes the one declared.
        protocol: Option<Protocol>,
        /// Its name.
        name: PortName,
    },
}

impl fmt::Display for PortMatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(protocol) => write!(out, "{protocol}"),
            Self::Range {
                protocol,
                first,
                last,
            } if first == last => {
                write!(out, "{protocol}/{first}")
            }
            Self::Range {
                protocol,
                first,
                last,
            } => write!(out, "{protocol}/{first}-{last}"),
            Self::Named {
                protocol: Some(protocol),
                name,
            } => write!(out, "{protocol}/{name}"),
            Self::Named {
                protocol: None,
                name,
            } => write!(out, "{name}"),
        }
    }
}

/// A point in time: nanoseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub i64);

/// When a rule holds: `not_before` ≤ now < `expires`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// From when on; `None` since ever.
    pub not_before: Option<WallTime>,
    /// Until when; `None` for ever.
    pub expires: Option<WallTime>,
}

impl Window {
    /// True if a rule with this window holds at that time.
    #[must_use]
    pub fn holds(&self, now: WallTime) -> bool {
        self.not_before.is_none_or(|start| start <= now) && self.expires.is_none_or(|end| now < end)
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
    pub expect: RuleAction,
    /// Its line in the policy's file.
    pub line: u32,
}

/// The policies of all sources by full name.
pub type PoliciesById = BTreeMap<PolicyId, Arc<Policy>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_includes_its_start_and_excludes_its_end() {
        let window = Window {
            not_before: Some(WallTime(10)),
            expires: Some(WallTime(20)),
        };
        assert!(!window.holds(WallTime(9)));
        assert!(window.holds(WallTime(10)));
        assert!(window.holds(WallTime(19)));
        assert!(!window.holds(WallTime(20)));
        assert!(Window::default().holds(WallTime(i64::MIN)));
    }
}
