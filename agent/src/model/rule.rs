//! Rules as written: action, peers, ports and validity.
//!
//! Anything that depends on the inventory (workloads, named ports) or on the time is resolved when
//! the policy is compiled.

use std::fmt;

use ipnet::IpNet;
use ringfence_common::mode::Verdict;

use super::name::{NamespaceName, PortName, ServiceAccountName};
use super::protocol::Protocol;
use super::selector::LabelSelector;

/// What a rule does with traffic it matches. Weakest first: when several rules match with equal
/// precedence, the strongest action wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAction {
    /// Allows it.
    Allow,
    /// Skips the rest of the tier. Never used in the namespace tier.
    Pass,
    /// Denies it and sends a reject packet to the sender.
    Reject,
    /// Denies it silently.
    Deny,
}

impl RuleAction {
    /// The verdict of the action; `None` for `Pass`, which leaves the verdict to a later tier.
    #[must_use]
    pub const fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Allow => Some(Verdict::Allow),
            Self::Pass => None,
            Self::Reject | Self::Deny => Some(Verdict::Deny),
        }
    }

    /// Whether it can only deny. The others grant, or pass over rules that might deny: they match a special
    /// address and a tunnel only if they name it.
    #[must_use]
    pub const fn denies(self) -> bool {
        matches!(self.verdict(), Some(Verdict::Deny))
    }
}

impl fmt::Display for RuleAction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Allow => "allow",
            Self::Pass => "pass",
            Self::Reject => "reject",
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
    /// When it is valid.
    pub window: Window,
    /// The rule's name, if its author gave it one; untrusted text.
    pub name: Option<String>,
    /// Its line in the policy's file.
    pub line: u32,
}

/// The other side of a rule's traffic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// Any peer.
    Any,
    /// No peer: an allow rule that names an unsupported peer and therefore matches nothing.
    NoPeer,
    /// Any of these peers; never empty.
    Of(Vec<Peer>),
}

/// One alternative of a rule's peers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Workloads that satisfy every condition.
    Workloads {
        /// Their namespaces.
        namespaces: NamespaceMatch,
        /// Their labels; `None` for all. Never a selector that selects everything.
        pods: Option<LabelSelector>,
        /// Their service account; `None` for all.
        service_account: Option<ServiceAccountName>,
    },
    /// Addresses, regardless of their owner.
    Cidr {
        /// The range, masked.
        net: IpNet,
        /// Excluded ranges within it: masked, sorted, no duplicates.
        except: Vec<IpNet>,
    },
    /// A reserved entity.
    Entity(Entity),
}

/// Which namespaces a peer's workloads are in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceMatch {
    /// The policy's own namespace, by its name.
    Own(NamespaceName),
    /// Namespaces whose labels match.
    Selector(LabelSelector),
}

/// Reserved entities, as a rule names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    /// Addresses that belong to neither a workload nor a node.
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
    /// Any of these protocols and ports; never empty.
    Of(Vec<PortMatch>),
}

/// One entry of a rule's ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// All traffic of one protocol.
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
        /// The protocol that the port must be declared for; `None` for any.
        protocol: Option<Protocol>,
        /// The port's name.
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

/// When a rule is valid: `not_before` ≤ now < `expires`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The start, inclusive; `None` if there is none.
    pub not_before: Option<WallTime>,
    /// The end, exclusive; `None` if there is none.
    pub expires: Option<WallTime>,
}

impl Window {
    /// True if a rule with this window is valid at that time.
    #[must_use]
    pub fn holds(&self, now: WallTime) -> bool {
        let begun = self.not_before.is_none_or(|start| start <= now);
        let over = self.expires.is_some_and(|end| end <= now);
        begun && !over
    }
}

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
