//! Inclusion checks: selectors, subjects, peers, ports, windows and whole rules.
//!
//! Invariant: sound, not complete. `true` holds in every inventory (or in the given one); `false`
//! means unknown. Requirements are compared one by one and ranges are merged; several peers
//! together are never taken for one larger peer.

use ipnet::IpNet;

use crate::model::workload::NAMESPACE_NAME_LABEL;
use crate::model::{
    Entity, Inventory, LabelSelector, NamespaceMatch, NamespaceName, Operator, Peer, Peers, Policy,
    PortMatch, Ports, Protocol, Requirement, Rule, SPECIAL_RANGES, Scope, TUNNEL_PORTS,
    TUNNEL_PROTOCOLS, WallTime, Window,
};

/// True if everything that `narrow` matches, `wide` matches.
pub(super) fn includes(wide: &LabelSelector, narrow: &LabelSelector) -> bool {
    wide.requirements().iter().all(|wanted| {
        let mut given = narrow.requirements().iter();
        given.any(|given| {
            given.key() == wanted.key() && follows(wanted.operator(), given.operator())
        })
    })
}

fn follows(wanted: &Operator, given: &Operator) -> bool {
    match (wanted, given) {
        (Operator::In(wide), Operator::In(narrow)) => narrow.is_subset(wide),
        (Operator::NotIn(out), Operator::NotIn(more)) => out.is_subset(more),
        (Operator::NotIn(out), Operator::In(values)) => out.is_disjoint(values),
        (Operator::NotIn(_) | Operator::DoesNotExist, Operator::DoesNotExist)
        | (Operator::Exists, Operator::In(_) | Operator::Exists) => true,
        (Operator::In(_) | Operator::Exists | Operator::DoesNotExist, _)
        | (Operator::NotIn(_), Operator::Exists) => false,
    }
}

/// True if nothing matches both.
pub(super) fn are_disjoint(one: &LabelSelector, other: &LabelSelector) -> bool {
    one.requirements().iter().any(|one| {
        let mut others = other.requirements().iter();
        others.any(|other| one.key() == other.key() && contradict(one.operator(), other.operator()))
    })
}

fn contradict(one: &Operator, other: &Operator) -> bool {
    match (one, other) {
        (Operator::In(some), Operator::In(others)) => some.is_disjoint(others),
        (Operator::In(some), Operator::NotIn(out)) | (Operator::NotIn(out), Operator::In(some)) => {
            some.is_subset(out)
        }
        (Operator::In(_) | Operator::Exists, Operator::DoesNotExist)
        | (Operator::DoesNotExist, Operator::In(_) | Operator::Exists) => true,
        (Operator::In(_) | Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist, _) => {
            false
        }
    }
}

/// True if the selector matches the namespace, as far as its name or the inventory shows.
pub(super) fn selects_namespace(
    selector: &LabelSelector,
    namespace: &NamespaceName,
    inventory: Option<&Inventory>,
) -> bool {
    if let Some(known) = inventory.and_then(|all| all.namespaces.get(namespace)) {
        return selector.matches(known.labels());
    }
    selector.requirements().iter().all(|requirement| {
        requirement.key() == NAMESPACE_NAME_LABEL
            && match requirement.operator() {
                Operator::In(names) => names.contains(namespace.as_str()),
                Operator::NotIn(names) => !names.contains(namespace.as_str()),
                Operator::Exists => true,
                Operator::DoesNotExist => false,
            }
    })
}

/// True if every workload that `narrow` selects is selected by `wide`.
pub(super) fn includes_subjects(
    wide: &Policy,
    narrow: &Policy,
    inventory: Option<&Inventory>,
) -> bool {
    let namespaces = match (&wide.scope, &narrow.scope) {
        (Scope::Namespace(wide), Scope::Namespace(narrow)) => wide == narrow,
        (Scope::Cluster { namespaces, .. }, Scope::Namespace(narrow)) => {
            selects_namespace(namespaces, narrow, inventory)
        }
        (
            Scope::Cluster {
                namespaces: wide, ..
            },
            Scope::Cluster {
                namespaces: narrow, ..
            },
        ) => includes(wide, narrow),
        (Scope::Namespace(_), Scope::Cluster { .. }) => false,
    };
    namespaces && includes(&wide.subject, &narrow.subject)
}

/// True if `wide` matches everything that `narrow` will match from now on, for the same workload.
pub(super) fn covers(
    wide: &Rule,
    narrow: &Rule,
    now: WallTime,
    inventory: Option<&Inventory>,
) -> bool {
    outlasts(&wide.window, &narrow.window, now)
        && covers_ports(&wide.ports, &narrow.ports)
        && covers_peers(&wide.peers, &narrow.peers, inventory)
        && covers_special(wide, narrow)
}

/// True if `wide` matches the special addresses that `narrow` does: one that grants matches only those
/// that it names. Broadcast addresses of links are not known here.
fn covers_special(wide: &Rule, narrow: &Rule) -> bool {
    if wide.action.denies() {
        return true;
    }
    let (Peers::Of(wide), Peers::Of(listed)) = (&wide.peers, &narrow.peers) else {
        return true;
    };
    let nets = listed.iter().filter_map(range_of);
    nets.into_iter().all(|net| {
        let special = SPECIAL_RANGES.iter().map(|(range, _)| range);
        let mut matched = special.filter(|range| {
            range.contains(net) || (net.contains(*range) && narrow.action.denies())
        });
        matched.all(|range| {
            let mut named = wide.iter().filter_map(range_of);
            named.any(|wide| range.contains(wide) && wide.contains(net))
        })
    })
}

/// True if `wide` decides about the tunnels of nodes that `narrow` decides about: one that grants does so
/// only for those that it names. For rules of egress, and as far as ports are not configured.
pub(super) fn covers_tunnels(wide: &Rule, narrow: &Rule) -> bool {
    let may_be_node = |peer: &Peer| match peer {
        Peer::Workloads { .. } | Peer::Entity(Entity::World) => false,
        Peer::Cidr { .. } | Peer::Entity(_) => true,
    };
    let is_about_nodes = match &narrow.peers {
        Peers::Any => true,
        Peers::NoPeer => false,
        Peers::Of(peers) => peers.iter().any(may_be_node),
    };
    let ports = TUNNEL_PORTS.map(|port| PortMatch::Range {
        protocol: Protocol::Udp,
        first: port,
        last: port,
    });
    let protocols = TUNNEL_PROTOCOLS.map(|it| PortMatch::Protocol(Protocol::Number(it)));
    let mut tunnels = ports.iter().chain(&protocols);
    let decides = |rule: &Rule, tunnel: &PortMatch| match &rule.ports {
        Ports::Any => rule.action.denies(),
        Ports::Of(ports) if rule.action.denies() => covers_port(ports, tunnel),
        Ports::Of(ports) => ports.contains(tunnel),
    };
    !is_about_nodes || tunnels.all(|it| !decides(narrow, it) || decides(wide, it))
}

const fn range_of(peer: &Peer) -> Option<&IpNet> {
    match peer {
        Peer::Cidr { net, .. } => Some(net),
        Peer::Workloads { .. } | Peer::Entity(_) => None,
    }
}

fn outlasts(wide: &Window, narrow: &Window, now: WallTime) -> bool {
    let from = narrow.not_before.map_or(now, |start| start.max(now));
    let is_open = wide.not_before.is_none_or(|start| start <= from);
    let lasts = match (wide.expires, narrow.expires) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => wide >= narrow,
    };
    is_open && lasts
}

fn covers_ports(wide: &Ports, narrow: &Ports) -> bool {
    match (wide, narrow) {
        (Ports::Any, _) => true,
        (Ports::Of(_), Ports::Any) => false,
        (Ports::Of(wide), Ports::Of(narrow)) => narrow.iter().all(|port| covers_port(wide, port)),
    }
}

/// True if these ports together cover one entry.
pub(super) fn covers_port(wide: &[PortMatch], narrow: &PortMatch) -> bool {
    let whole = |protocol: Protocol| wide.contains(&PortMatch::Protocol(protocol));
    match narrow {
        PortMatch::Protocol(protocol) => whole(*protocol),
        PortMatch::Range {
            protocol,
            first,
            last,
        } => whole(*protocol) || covers_range(wide, *protocol, *first, *last),
        PortMatch::Named { protocol, name } => {
            let any_protocol = PortMatch::Named {
                protocol: None,
                name: name.clone(),
            };
            wide.contains(narrow) || wide.contains(&any_protocol) || protocol.is_some_and(whole)
        }
    }
}

fn covers_range(wide: &[PortMatch], wanted: Protocol, first: u16, last: u16) -> bool {
    let mut ranges: Vec<(u16, u16)> = wide
        .iter()
        .filter_map(|port| match port {
            PortMatch::Range {
                protocol,
                first,
                last,
            } if *protocol == wanted => Some((*first, *last)),
            PortMatch::Range { .. } | PortMatch::Protocol(_) | PortMatch::Named { .. } => None,
        })
        .collect();
    ranges.sort_unstable();
    let mut missing = u32::from(first);
    for (from, to) in ranges {
        if u32::from(from) <= missing {
            missing = missing.max(u32::from(to) + 1);
        }
    }
    missing > u32::from(last)
}

fn covers_peers(wide: &Peers, narrow: &Peers, inventory: Option<&Inventory>) -> bool {
    match (wide, narrow) {
        (Peers::Any, _) => true,
        (Peers::Of(wide), Peers::Of(narrow)) => narrow
            .iter()
            .all(|narrow| wide.iter().any(|wide| covers_peer(wide, narrow, inventory))),
        (Peers::Of(_) | Peers::NoPeer, _) => false,
    }
}

fn covers_peer(wide: &Peer, narrow: &Peer, inventory: Option<&Inventory>) -> bool {
    match (wide, narrow) {
        (
            Peer::Workloads {
                namespaces,
                pods,
                service_account,
            },
            Peer::Workloads {
                namespaces: narrow_namespaces,
                pods: narrow_pods,
                service_account: narrow_account,
            },
        ) => {
            let everything = LabelSelector::everything();
            let narrow_pods = narrow_pods.as_ref().unwrap_or(&everything);
            covers_namespaces(namespaces, narrow_namespaces, inventory)
                && pods.as_ref().is_none_or(|pods| includes(pods, narrow_pods))
                && (service_account.is_none() || service_account == narrow_account)
        }
        (
            Peer::Cidr { net, except },
            Peer::Cidr {
                net: narrow,
                except: narrow_except,
            },
        ) => net.contains(narrow) && spares(except, narrow, narrow_except),
        (Peer::Entity(wide), Peer::Entity(narrow)) => wide == narrow,
        (Peer::Workloads { .. } | Peer::Cidr { .. } | Peer::Entity(_), _) => false,
    }
}

/// True if the exceptions exclude no more of a range than the range's own exceptions do.
fn spares(except: &[IpNet], narrow: &IpNet, narrow_except: &[IpNet]) -> bool {
    except.iter().all(|hole| {
        let is_outside = !hole.contains(narrow) && !narrow.contains(hole);
        is_outside || narrow_except.iter().any(|own| own.contains(hole))
    })
}

fn covers_namespaces(
    wide: &NamespaceMatch,
    narrow: &NamespaceMatch,
    inventory: Option<&Inventory>,
) -> bool {
    match (wide, narrow) {
        (NamespaceMatch::Own(wide), NamespaceMatch::Own(narrow)) => wide == narrow,
        (NamespaceMatch::Selector(wide), NamespaceMatch::Own(narrow)) => {
            selects_namespace(wide, narrow, inventory)
        }
        (NamespaceMatch::Selector(wide), NamespaceMatch::Selector(narrow)) => {
            includes(wide, narrow)
        }
        (NamespaceMatch::Own(wide), NamespaceMatch::Selector(narrow)) => narrow
            .requirements()
            .iter()
            .any(|given| is_name(given, wide)),
    }
}

fn is_name(requirement: &Requirement, namespace: &NamespaceName) -> bool {
    requirement.key() == NAMESPACE_NAME_LABEL
        && matches!(
            requirement.operator(),
            Operator::In(names) if names.iter().all(|name| name == namespace.as_str())
        )
}

#[cfg(test)]
mod tests;
