//! Why a rule does not match a flow, condition by condition.
//!
//! Invariants: there are no misses exactly if the rule matches. Conditions are in the order peer,
//! port, time. Of several peers, the one with the fewest misses is reported. Works on the model and
//! shares no code with the compiler.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{
    flow_side::{FlowSide, PartyKind},
    rfc3339,
};
use crate::model::{
    Entity, LabelSelector, Labels, NamespaceMatch, Operator, Peer, Peers, Rule, RuleAction,
    WallTime, Window, special_range_name,
};

/// One condition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Miss {
    /// The rule has a peer type that this version does not know.
    UnknownPeer,
    /// The rule requires a workload.
    NotAWorkload {
        /// The other end.
        who: String,
    },
    /// The rule requires another namespace.
    Namespace {
        /// The other end.
        who: String,
        /// The required namespace.
        wanted: String,
    },
    /// The namespace lacks a label.
    NamespaceLabel {
        /// The namespace.
        namespace: String,
        /// The requirement, as a selector.
        wanted: String,
        /// The key.
        key: String,
        /// The namespace's value.
        value: Option<String>,
        /// The label that would match; `None` if the key must be removed.
        remedy: Option<String>,
    },
    /// The workload lacks a label.
    Label {
        /// The other end.
        who: String,
        /// The requirement, as a selector.
        wanted: String,
        /// The key.
        key: String,
        /// The workload's value.
        value: Option<String>,
        /// The label that would match; `None` if the key must be removed.
        remedy: Option<String>,
    },
    /// The workload runs as another service account.
    ServiceAccount {
        /// The other end.
        who: String,
        /// The required service account.
        wanted: String,
        /// The workload's service account.
        actual: String,
    },
    /// The rule requires a range, and a Service is its backends whatever its own address is.
    AService {
        /// The Service.
        who: String,
    },
    /// The address is outside of the range.
    OutsideCidr {
        /// The address.
        address: String,
        /// The range.
        cidr: String,
    },
    /// The address is in an exception of the range.
    InExcept {
        /// The address.
        address: String,
        /// The range.
        cidr: String,
        /// The exception.
        except: String,
    },
    /// The address is in a special range that the rule's range is wider than.
    Unnamed {
        /// The address.
        address: String,
        /// What the special range is called.
        name: String,
        /// The special range.
        special: String,
        /// The rule's range.
        cidr: String,
    },
    /// The rule requires an entity.
    Entity {
        /// The other end.
        who: String,
        /// The required entity.
        wanted: String,
    },
    /// The rule covers other protocols.
    Protocol {
        /// The flow's.
        actual: String,
        /// The rule's ports.
        wanted: String,
    },
    /// The rule covers other ports.
    Port {
        /// The flow's.
        actual: String,
        /// The rule's ports.
        wanted: String,
    },
    /// The destination declares no port of that name.
    Undeclared {
        /// The flow's port.
        actual: String,
        /// The name.
        name: String,
        /// The destination.
        on: String,
    },
    /// The destination declares that name for another port.
    Elsewhere {
        /// The flow's port.
        actual: String,
        /// The name.
        name: String,
        /// The port that it declares.
        resolved: String,
        /// The destination.
        on: String,
    },
    /// The flow leads into a tunnel of a node, and the rule's ports do not name it alone.
    Tunnel {
        /// The flow's port or protocol.
        actual: String,
    },
    /// The rule is not valid yet.
    NotYetValid {
        /// Its start, RFC 3339.
        not_before: String,
    },
    /// The rule is no longer valid.
    Lapsed {
        /// Its end, RFC 3339.
        expires: String,
    },
}

/// All conditions of a rule that do not match.
pub(super) fn misses(flow_side: &FlowSide<'_>, rule: &Rule) -> Vec<Miss> {
    let mut misses = peers(flow_side, rule);
    let port = super::port::miss(flow_side, &rule.ports);
    misses.extend(port.or_else(|| super::port::unnamed_tunnel(flow_side, rule)));
    misses.extend(window(rule.window, flow_side.now));
    misses
}

fn peers(flow_side: &FlowSide<'_>, rule: &Rule) -> Vec<Miss> {
    match &rule.peers {
        Peers::Any => Vec::new(),
        Peers::NoPeer => vec![Miss::UnknownPeer],
        Peers::Of(peers) => peers
            .iter()
            .map(|peer| of_peer(flow_side, peer, rule.action))
            .min_by_key(Vec::len)
            .unwrap_or_else(|| vec![Miss::UnknownPeer]),
    }
}

fn of_peer(flow_side: &FlowSide<'_>, peer: &Peer, action: RuleAction) -> Vec<Miss> {
    match peer {
        Peer::Workloads {
            namespaces,
            pods,
            service_account,
        } => {
            let PartyKind::Workload(workload) = flow_side.other else {
                let who = flow_side.other.to_string();
                return vec![Miss::NotAWorkload { who }];
            };
            let who = || workload.id.to_string();
            let mut misses = namespace(flow_side, namespaces);
            if let Some(pods) = pods {
                misses.extend(failing(pods, &workload.labels).map(|unmet| Miss::Label {
                    who: who(),
                    wanted: unmet.wanted,
                    key: unmet.key,
                    value: unmet.value,
                    remedy: unmet.remedy,
                }));
            }
            if let Some(wanted) = service_account
                && *wanted != workload.service_account
            {
                misses.push(Miss::ServiceAccount {
                    who: who(),
                    wanted: wanted.to_string(),
                    actual: workload.service_account.to_string(),
                });
            }
            misses
        }
        Peer::Cidr { net, except } => {
            if let PartyKind::Service(_) = flow_side.other {
                let who = flow_side.other.to_string();
                return vec![Miss::AService { who }];
            }
            let miss = cidr(flow_side.address, *net, except);
            let miss = miss.or_else(|| unnamed(flow_side, *net, action));
            miss.into_iter().collect()
        }
        Peer::Entity(entity) => {
            let is = matches!(
                (entity, flow_side.other),
                (Entity::World, PartyKind::World)
                    | (Entity::Host, PartyKind::Host(_))
                    | (Entity::RemoteNode, PartyKind::RemoteNode(_))
            );
            let miss = || Miss::Entity {
                who: flow_side.other.to_string(),
                wanted: entity.to_string(),
            };
            if is { Vec::new() } else { vec![miss()] }
        }
    }
}

fn namespace(flow_side: &FlowSide<'_>, wanted: &NamespaceMatch) -> Vec<Miss> {
    let PartyKind::Workload(workload) = flow_side.other else {
        return Vec::new();
    };
    let name = &workload.id.namespace;
    match wanted {
        NamespaceMatch::Own(own) if own == name => Vec::new(),
        NamespaceMatch::Own(own) => vec![Miss::Namespace {
            who: workload.id.to_string(),
            wanted: own.to_string(),
        }],
        NamespaceMatch::Selector(selector) => {
            let none = Labels::new();
            let namespace = flow_side.inventory.namespaces.get(name);
            let labels = namespace.map_or(&none, |namespace| namespace.labels());
            failing(selector, labels)
                .map(|unmet| Miss::NamespaceLabel {
                    namespace: name.to_string(),
                    wanted: unmet.wanted,
                    key: unmet.key,
                    value: unmet.value,
                    remedy: unmet.remedy,
                })
                .collect()
        }
    }
}

struct FailedRequirement {
    wanted: String,
    key: String,
    value: Option<String>,
    remedy: Option<String>,
}

fn failing<'a>(
    selector: &'a LabelSelector,
    labels: &'a Labels,
) -> impl Iterator<Item = FailedRequirement> + 'a {
    let unmet = selector
        .requirements()
        .iter()
        .filter(|wanted| !wanted.matches(labels));
    unmet.map(|wanted| FailedRequirement {
        wanted: wanted.to_string(),
        key: wanted.key().to_owned(),
        value: labels.get(wanted.key()).map(str::to_owned),
        remedy: match wanted.operator() {
            Operator::In(values) => values
                .first()
                .map(|value| format!("{}={value}", wanted.key())),
            Operator::Exists => Some(format!("{}=", wanted.key())),
            Operator::NotIn(_) | Operator::DoesNotExist => None,
        },
    })
}

fn cidr(address: IpAddr, net: ipnet::IpNet, except: &[ipnet::IpNet]) -> Option<Miss> {
    if !net.contains(&address) {
        return Some(Miss::OutsideCidr {
            address: address.to_string(),
            cidr: net.to_string(),
        });
    }
    let hole = except.iter().find(|hole| hole.contains(&address))?;
    Some(Miss::InExcept {
        address: address.to_string(),
        cidr: net.to_string(),
        except: hole.to_string(),
    })
}

/// A special range that the rule does not name, unless it denies.
fn unnamed(flow_side: &FlowSide<'_>, net: ipnet::IpNet, action: RuleAction) -> Option<Miss> {
    if action.denies() {
        return None;
    }
    let special = flow_side.special()?;
    let is_named = special.contains(&net);
    (!is_named).then(|| Miss::Unnamed {
        address: flow_side.address.to_string(),
        name: special_range_name(&special).to_owned(),
        special: special.to_string(),
        cidr: net.to_string(),
    })
}

fn window(window: Window, now: WallTime) -> Option<Miss> {
    if let Some(end) = window.expires.filter(|end| *end <= now) {
        let expires = rfc3339::text(end);
        return Some(Miss::Lapsed { expires });
    }
    let start = window.not_before.filter(|start| *start > now)?;
    let not_before = rfc3339::text(start);
    Some(Miss::NotYetValid { not_before })
}

fn label_words(
    out: &mut fmt::Formatter<'_>,
    who: &str,
    key: &str,
    value: Option<&str>,
    wanted: &str,
) -> fmt::Result {
    match value {
        Some(value) => write!(out, "{who} has {key}={value}, required is {wanted}"),
        None => write!(out, "{who} has no label {key}, required is {wanted}"),
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPeer => {
                out.write_str("its peer has a type that this version does not know")
            }
            Self::NotAWorkload { who } => write!(out, "{who} is not a workload"),
            Self::Namespace { who, wanted } => {
                write!(out, "{who} is not in namespace {wanted}")
            }
            Self::NamespaceLabel {
                namespace,
                wanted,
                key,
                value,
                ..
            } => {
                let who = format!("namespace {namespace}");
                label_words(out, &who, key, value.as_deref(), wanted)
            }
            Self::Label {
                who,
                wanted,
                key,
                value,
                ..
            } => label_words(out, who, key, value.as_deref(), wanted),
            Self::ServiceAccount {
                who,
                wanted,
                actual,
            } => write!(out, "{who} runs as service account {actual}, not {wanted}"),
            Self::AService { who } => write!(out, "{who} has no backend there"),
            Self::OutsideCidr { address, cidr } => write!(out, "{address} is not in {cidr}"),
            Self::InExcept {
                address,
                cidr,
                except,
            } => write!(out, "{address} is in {except}, an exception of {cidr}"),
            Self::Unnamed {
                address,
                name,
                special,
                cidr,
            } => write!(
                out,
                "{address} is {name}, and {cidr} does not name {special}"
            ),
            Self::Entity { who, wanted } => write!(out, "{who} is not {wanted}"),
            Self::Protocol { actual, wanted } => {
                write!(out, "protocol of {actual} is not among {wanted}")
            }
            Self::Port { actual, wanted } => write!(out, "{actual} is not among {wanted}"),
            Self::Undeclared { name, on, .. } => write!(out, "{on} declares no port {name}"),
            Self::Elsewhere {
                actual,
                name,
                resolved,
                on,
            } => write!(out, "port {name} of {on} is {resolved}, not {actual}"),
            Self::Tunnel { actual } => {
                write!(
                    out,
                    "{actual} leads into a tunnel of a node, and the rule does not name it alone"
                )
            }
            Self::NotYetValid { not_before } => write!(out, "it is valid from {not_before}"),
            Self::Lapsed { expires } => write!(out, "it expired at {expires}"),
        }
    }
}
