//! What of a rule does not match a flow, condition by condition.
//!
//! Invariants: no misses exactly if the rule matches; conditions come in the order peer, port,
//! time. Of several kinds of peers the one with the fewest misses speaks for the rule. Reads the
//! model as people do and shares nothing with the compiler.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{
    flow_side::{FlowSide, PartyKind},
    rfc3339,
};
use crate::model::{
    Entity, LabelSelector, Labels, NamespaceMatch, Operator, Peer, Peers, Rule, WallTime, Window,
};

/// One condition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Miss {
    /// The rule has a kind of peer that this version does not know.
    Nobody,
    /// The rule wants a workload.
    NotAWorkload {
        /// Who it is.
        who: String,
    },
    /// The rule wants another namespace.
    Namespace {
        /// Who it is.
        who: String,
        /// The namespace wanted.
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
        /// What the namespace has there.
        value: Option<String>,
        /// The label that would do; `None` if the key must go.
        remedy: Option<String>,
    },
    /// The workload lacks a label.
    Label {
        /// Who it is.
        who: String,
        /// The requirement, as a selector.
        wanted: String,
        /// The key.
        key: String,
        /// What the workload has there.
        value: Option<String>,
        /// The label that would do; `None` if the key must go.
        remedy: Option<String>,
    },
    /// The workload runs as another service account.
    ServiceAccount {
        /// Who it is.
        who: String,
        /// The service account wanted.
        wanted: String,
        /// The one it has.
        actual: String,
    },
    /// The address is outside of the range.
    OutsideCidr {
        /// The address.
        address: String,
        /// The range.
        cidr: String,
    },
    /// The address is in a hole of the range.
    InExcept {
        /// The address.
        address: String,
        /// The range.
        cidr: String,
        /// The hole.
        except: String,
    },
    /// The rule wants a reserved kind of peer.
    Entity {
        /// Who it is.
        who: String,
        /// The kind wanted.
        wanted: String,
    },
    /// The rule is about other protocols.
    Protocol {
        /// The flow's.
        actual: String,
        /// The rule's ports.
        wanted: String,
    },
    /// The rule is about other ports.
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
        /// What it stands for there.
        resolved: String,
        /// The destination.
        on: String,
    },
    /// The rule does not hold yet.
    NotBegun {
        /// From when on, RFC 3339.
        not_before: String,
    },
    /// The rule holds no longer.
    Lapsed {
        /// Since when, RFC 3339.
        expires: String,
    },
}

/// Everything of a rule that does not match.
pub(super) fn misses(scene: &FlowSide<'_>, rule: &Rule) -> Vec<Miss> {
    let mut misses = peers(scene, &rule.peers);
    misses.extend(super::port::miss(scene, &rule.ports));
    misses.extend(window(rule.window, scene.now));
    misses
}

fn peers(scene: &FlowSide<'_>, peers: &Peers) -> Vec<Miss> {
    match peers {
        Peers::Any => Vec::new(),
        Peers::Nobody => vec![Miss::Nobody],
        Peers::Of(peers) => peers
            .iter()
            .map(|peer| of_peer(scene, peer))
            .min_by_key(Vec::len)
            .unwrap_or_else(|| vec![Miss::Nobody]),
    }
}

fn of_peer(scene: &FlowSide<'_>, peer: &Peer) -> Vec<Miss> {
    match peer {
        Peer::Workloads {
            namespaces,
            pods,
            service_account,
        } => {
            let PartyKind::Workload(workload) = scene.other else {
                let who = scene.other.to_string();
                return vec![Miss::NotAWorkload { who }];
            };
            let who = || workload.id.to_string();
            let mut misses = namespace(scene, namespaces);
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
        Peer::Cidr { net, except } => cidr(scene.address, *net, except).into_iter().collect(),
        Peer::Entity(entity) => {
            let is = matches!(
                (entity, scene.other),
                (Entity::World, PartyKind::World)
                    | (Entity::Host, PartyKind::Host(_))
                    | (Entity::RemoteNode, PartyKind::RemoteNode(_))
            );
            let miss = || Miss::Entity {
                who: scene.other.to_string(),
                wanted: entity.to_string(),
            };
            if is { Vec::new() } else { vec![miss()] }
        }
    }
}

fn namespace(scene: &FlowSide<'_>, wanted: &NamespaceMatch) -> Vec<Miss> {
    let PartyKind::Workload(workload) = scene.other else {
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
            let namespace = scene.inventory.namespaces.get(name);
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

struct Unmet {
    wanted: String,
    key: String,
    value: Option<String>,
    remedy: Option<String>,
}

fn failing<'a>(
    selector: &'a LabelSelector,
    labels: &'a Labels,
) -> impl Iterator<Item = Unmet> + 'a {
    let unmet = selector
        .requirements()
        .iter()
        .filter(|wanted| !wanted.matches(labels));
    unmet.map(|wanted| Unmet {
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

fn window(window: Window, now: WallTime) -> Option<Miss> {
    if let Some(end) = window.expires.filter(|end| *end <= now) {
        let expires = rfc3339::text(end);
        return Some(Miss::Lapsed { expires });
    }
    let start = window.not_before.filter(|start| *start > now)?;
    let not_before = rfc3339::text(start);
    Some(Miss::NotBegun { not_before })
}

fn label_words(
    out: &mut fmt::Formatter<'_>,
    who: &str,
    key: &str,
    value: Option<&str>,
    wanted: &str,
) -> fmt::Result {
    match value {
        Some(value) => write!(out, "{who} has {key}={value}, wanted is {wanted}"),
        None => write!(out, "{who} has no label {key}, wanted is {wanted}"),
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => out.write_str("its peer is of a kind that this version does not know"),
            Self::NotAWorkload { who } => write!(out, "{who} is no workload"),
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
            Self::OutsideCidr { address, cidr } => write!(out, "{address} is not in {cidr}"),
            Self::InExcept {
                address,
                cidr,
                except,
            } => write!(
                out,
                "{address} is in {except}, which is excepted from {cidr}"
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
            Self::NotBegun { not_before } => write!(out, "it begins at {not_before}"),
            Self::Lapsed { expires } => write!(out, "it lapsed at {expires}"),
        }
    }
}
