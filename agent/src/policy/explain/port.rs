//! Whether a rule's ports cover a flow, and the miss if they do not.
//!
//! Invariant: a name is resolved on the destination by name *and* protocol.

use super::{flow_side::FlowSide, miss::Miss};
use crate::model::{NamedPort, PortMatch, PortName, Ports, Protocol, Rule};

/// `None` if the ports cover the flow.
pub(super) fn miss(flow_side: &FlowSide<'_>, ports: &Ports) -> Option<Miss> {
    let Ports::Of(entries) = ports else {
        return None;
    };
    if entries.iter().any(|entry| covers(flow_side, entry)) {
        return None;
    }
    if let [PortMatch::Named { protocol, name }] = entries.as_slice() {
        return Some(named(flow_side, *protocol, name));
    }
    let protocol = Protocol::from_number(flow_side.flow.protocol);
    let about = entries.iter().any(|entry| match entry {
        PortMatch::Protocol(its) | PortMatch::Range { protocol: its, .. } => *its == protocol,
        PortMatch::Named { protocol: its, .. } => {
            protocol.has_ports() && its.is_none_or(|its| its == protocol)
        }
    });
    let (actual, wanted) = (flow_side.port(), list(flow_side, entries));
    Some(if about {
        Miss::Port { actual, wanted }
    } else {
        Miss::Protocol { actual, wanted }
    })
}

/// The miss of a rule that covers a tunnel of a node and does not name it. Rules that deny need not.
pub(super) fn unnamed_tunnel(flow_side: &FlowSide<'_>, rule: &Rule) -> Option<Miss> {
    if rule.action.denies() || !flow_side.enters_tunnel() {
        return None;
    }
    let names = |entry: &PortMatch| match entry {
        PortMatch::Range { first, last, .. } => first == last && covers(flow_side, entry),
        PortMatch::Protocol(protocol) => !protocol.has_ports() && covers(flow_side, entry),
        PortMatch::Named { .. } => false,
    };
    let is_named = matches!(&rule.ports, Ports::Of(entries) if entries.iter().any(names));
    let actual = flow_side.port();
    (!is_named).then_some(Miss::Tunnel { actual })
}

fn covers(flow_side: &FlowSide<'_>, entry: &PortMatch) -> bool {
    let (protocol, port) = (
        Protocol::from_number(flow_side.flow.protocol),
        flow_side.flow.port,
    );
    match entry {
        PortMatch::Protocol(its) => *its == protocol,
        PortMatch::Range {
            protocol: its,
            first,
            last,
        } => *its == protocol && (*first..=*last).contains(&port),
        PortMatch::Named {
            protocol: its,
            name,
        } => declared(flow_side, *its, name)
            .any(|declared| declared.protocol == protocol && declared.port == port),
    }
}

fn declared<'a>(
    flow_side: &FlowSide<'a>,
    protocol: Option<Protocol>,
    name: &'a PortName,
) -> impl Iterator<Item = &'a NamedPort> {
    let ports = flow_side
        .destination()
        .map_or(&[][..], |to| to.ports.as_slice());
    ports
        .iter()
        .filter(move |port| port.name == *name && protocol.is_none_or(|its| its == port.protocol))
}

fn named(flow_side: &FlowSide<'_>, protocol: Option<Protocol>, name: &PortName) -> Miss {
    let actual = flow_side.port();
    let on = flow_side
        .destination()
        .map_or_else(|| flow_side.other.to_string(), |to| to.id.to_string());
    let resolved: Vec<String> = declared(flow_side, protocol, name).map(one).collect();
    let name = match protocol {
        Some(protocol) => format!("{protocol}/{name}"),
        None => name.to_string(),
    };
    if resolved.is_empty() {
        Miss::Undeclared { actual, name, on }
    } else {
        Miss::Elsewhere {
            actual,
            name,
            resolved: resolved.join(", "),
            on,
        }
    }
}

fn one(port: &NamedPort) -> String {
    format!("{}/{}", port.protocol, port.port)
}

/// A rule's ports, with the resolved names.
fn list(flow_side: &FlowSide<'_>, entries: &[PortMatch]) -> String {
    let texts = entries.iter().map(|entry| {
        let PortMatch::Named { protocol, name } = entry else {
            return entry.to_string();
        };
        let resolved: Vec<String> = declared(flow_side, *protocol, name).map(one).collect();
        if resolved.is_empty() {
            format!("{entry} (undeclared)")
        } else {
            format!("{entry} ({})", resolved.join(", "))
        }
    });
    texts.collect::<Vec<_>>().join(", ")
}
