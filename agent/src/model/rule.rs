//! Rules as written: what they do, with whom, on which ports and when.
//!
//! What depends on the inventory (which workloads, which port a name means) or on the time stays
//! open until compile.

use std::fmt;

use ipnet::IpNet;
use ringfence_common::{mode::Verdict, mutant};

use super::name::{NamespaceName, PortName, ServiceAccountName};
use super::protocol::Protocol;
use super::selector::LabelSelector;

/// What a rule does with traffic it matches, weakest first: of rules that tie, the last wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAction {
    /// Lets it pass.
    Allow,
    /// Skips the rest of its tier. Never in the namespace tier.
    Pass,
    /// Drops it and tells the sender.
    Reject,
    /// Drops it.
    Deny,
}

impl RuleAction {
    /// The verdict that it makes; `None` if others decide.
    #[must_use]
    pub const fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Allow => Some(Verdict::Allow),
            Self::Pass => None,
            Self::Reject | Self::Deny => Some(Verdict::Deny),
        }
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
    /// When it holds.
    pub window: Window,
    /// The name its author gave it, untrusted text; most rules have none.
    pub name: Option<String>,
    /// Its line in the policy's file.
    pub line: u32,
}

/// The other side of a rule's traffic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// Anyone at all.
    Any,
    /// Nobody: an allow rule with a kind of peer that this version does not know.
    Nobody,
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
        let begun = mutant!(
            not_before_ignored,
            self.not_before.is_none_or(|start| start <= now),
            true,
        );
        let over = mutant!(
            expires_included,
            self.expires.is_some_and(|end| end <= now),
            self.expires.is_some_and(|end| end < now),
        );
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
