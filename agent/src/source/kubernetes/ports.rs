//! The ports of a NetworkPolicy rule and the protocols of a ClusterNetworkPolicy rule.

use super::node::{Node, Value};
use super::object::Object;
use crate::model::{PortMatch, PortName, Ports, Protocol, quote};
use crate::source::limits::{MAX_CLUSTER_ITEMS, MAX_PORTS};

/// Reads `ports` of a NetworkPolicy rule; if missing or empty, every protocol and port matches.
pub(super) fn of_rule(object: &mut Object<'_, '_>, node: Option<&Node<'_>>) -> Option<Ports> {
    let Some(node) = node else {
        return Some(Ports::Any);
    };
    let items = object.items_up_to(node, "ports", MAX_PORTS)?;
    if items.is_empty() {
        return Some(Ports::Any);
    }
    let ports: Vec<_> = items.iter().filter_map(|item| port(object, item)).collect();
    Some(Ports::Of(ports))
}

fn port(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<PortMatch> {
    let names = ["protocol", "port", "endPort"];
    let [protocol, port, end] = object.fields(node, "a port", names)?;
    let protocol = match protocol {
        Some(node) => protocol_of(object, node)?,
        None => Protocol::Tcp,
    };
    let Some(port) = port else {
        if let Some(end) = end {
            object.refuse(end, "endPort without port: expected the first port as port");
            return None;
        }
        return Some(PortMatch::Protocol(protocol));
    };
    match (&port.value, end) {
        (Value::Text(_), Some(end)) => {
            let message = "endPort with a named port: expected a number as port";
            object.refuse(end, message);
            None
        }
        (Value::Text(text), None) => {
            let name = named(object, port, text)?;
            let protocol = Some(protocol);
            Some(PortMatch::Named { protocol, name })
        }
        (_, end) => {
            let first = object.port_number(port, "port")?;
            let last = match end {
                Some(end) => object.port_number(end, "endPort")?,
                None => first,
            };
            if let Some(end) = end
                && last < first
            {
                let message = format!("endPort {last} is below port {first}: expected a range");
                object.refuse(end, message);
                return None;
            }
            Some(PortMatch::Range {
                protocol,
                first,
                last,
            })
        }
    }
}

fn named(object: &mut Object<'_, '_>, node: &Node<'_>, text: &str) -> Option<PortName> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        let message = format!(
            "port {} is text: expected the number without quotes",
            quote(text)
        );
        object.refuse(node, message);
        return None;
    }
    object.accept(node, PortName::new(text))
}

fn protocol_of(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<Protocol> {
    match object.text(node, "protocol")? {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        other => {
            let message = format!(
                "unknown protocol {}: expected TCP, UDP or SCTP",
                quote(other)
            );
            object.refuse(node, message);
            None
        }
    }
}

/// Reads `protocols` of a ClusterNetworkPolicy rule; the second value is the first entry that
/// names a port, if any does.
pub(super) fn of_cluster_rule<'n>(
    object: &mut Object<'_, '_>,
    node: Option<&'n Node<'n>>,
) -> Option<(Ports, Option<&'n Node<'n>>)> {
    let Some(node) = node else {
        return Some((Ports::Any, None));
    };
    let items = object.items_up_to(node, "protocols", MAX_CLUSTER_ITEMS)?;
    if items.is_empty() {
        let message =
            "protocols is empty: expected an entry; omit protocols to match every protocol";
        object.refuse(node, message);
        return None;
    }
    let mut ports = Vec::with_capacity(items.len());
    let mut first_named = None;
    for item in items {
        let Some(port) = cluster_port(object, item) else {
            continue;
        };
        if matches!(port, PortMatch::Named { .. }) {
            first_named = first_named.or(Some(item));
        }
        ports.push(port);
    }
    Some((Ports::Of(ports), first_named))
}

fn cluster_port(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<PortMatch> {
    let names = ["tcp", "udp", "sctp", "destinationNamedPort"];
    let fields = object.fields(node, "a cluster policy's protocol", names)?;
    let [tcp, udp, sctp, name] = fields;
    if fields.iter().flatten().count() != 1 {
        let message = "a protocol entry: expected exactly one of tcp, udp, sctp and \
                       destinationNamedPort";
        object.refuse(node, message);
        return None;
    }
    if let Some(name) = name {
        let text = object.text(name, "destinationNamedPort")?;
        let name = named(object, name, text)?;
        let protocol = None;
        return Some(PortMatch::Named { protocol, name });
    }
    let transports = [
        (tcp, Protocol::Tcp),
        (udp, Protocol::Udp),
        (sctp, Protocol::Sctp),
    ];
    let (node, protocol) = transports
        .into_iter()
        .find_map(|(node, protocol)| Some((node?, protocol)))?;
    let [destination] = object.fields(node, "a cluster policy's protocol", ["destinationPort"])?;
    let Some(destination) = destination else {
        let message = format!(
            "{protocol} without destinationPort: expected {{destinationPort: {{number: …}}}}, or \
             {{range: {{start: 1, end: 65535}}}} in it for every port"
        );
        object.refuse(node, message);
        return None;
    };
    destination_port(object, destination, protocol)
}

fn destination_port(
    object: &mut Object<'_, '_>,
    node: &Node<'_>,
    protocol: Protocol,
) -> Option<PortMatch> {
    let what = "a cluster policy's destinationPort";
    let (first, last) = match object.fields(node, what, ["number", "range"])? {
        [Some(number), None] => {
            let number = object.port_number(number, "number")?;
            (number, number)
        }
        [None, Some(range)] => port_range(object, range)?,
        _ => {
            object.refuse(
                node,
                "destinationPort: expected exactly one of number and range",
            );
            return None;
        }
    };
    Some(PortMatch::Range {
        protocol,
        first,
        last,
    })
}

fn port_range(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<(u16, u16)> {
    let [Some(start), Some(end)] =
        object.fields(node, "a cluster policy's port range", ["start", "end"])?
    else {
        object.refuse(node, "a port range: expected start and end");
        return None;
    };
    let (start, end) = (
        object.port_number(start, "start"),
        object.port_number(end, "end"),
    );
    let (start, end) = (start?, end?);
    if start >= end {
        let message = format!(
            "port range {start} to {end}: expected start below end, or a number for one port"
        );
        object.refuse(node, message);
        return None;
    }
    Some((start, end))
}
