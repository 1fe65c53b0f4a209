//! Flow records as JSON lines in Hubble's proto3-JSON shape (`flow.proto`, `observer.proto`).
//!
//! Invariants: only fields of Hubble's messages are used, so that strict readers accept the lines;
//! Ringfence's own fields are in `extensions`, a `google.protobuf.Struct`. Fields with their
//! default value are absent, as in proto3-JSON. Control and bidirectional characters are escaped
//! even where JSON does not require it. The ICMP type is known for echo only, and absent for other
//! messages.

use std::io::{self, Write};

use ringfence_common::drop_reason::DropReason;
use ringfence_common::event::EventKind;
use ringfence_common::mode::Direction;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

use self::message::{
    Endpoint, EventType, Extensions, Flow, Icmp, Interface, Ip, Layer4, Line, Lost, LostLine,
    Policy, PortPair, RingfenceFields, Service, TcpFlags,
};
use super::flow::{End, FlowRecord, FlowVerdict, protocol};
use super::hubble_reason;
use super::names::{Decider, reserved_identity};
use crate::model::Owner;
use crate::model::quote::is_deceptive;

mod message;

/// `MessageTypeDrop` and `MessageTypePolicyVerdict` of Cilium's monitor API.
const EVENT_DROP: u32 = 1;
const EVENT_POLICY_VERDICT: u32 = 5;

/// Appends one record as a line.
pub fn write_line(out: &mut Vec<u8>, record: &FlowRecord) {
    let time = time_text(record);
    let flow = flow(record, &time);
    write_json(
        out,
        &Line {
            flow,
            node_name: &record.node,
            time: &time,
        },
    );
}

/// Appends a line that reports `count` records lost to a slow reader.
pub fn write_lost(out: &mut Vec<u8>, count: u64, node: &str, time: jiff::Timestamp) {
    let lost = Lost {
        source: "HUBBLE_RING_BUFFER",
        num_events_lost: count.to_string(),
    };
    let time = format!("{time:.9}");
    write_json(
        out,
        &LostLine {
            lost_events: lost,
            node_name: node,
            time: &time,
        },
    );
}

fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    let start = out.len();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Escaping);
    if value.serialize(&mut serializer).is_ok() {
        out.push(b'\n');
    } else {
        out.truncate(start);
    }
}

fn time_text(record: &FlowRecord) -> String {
    format!("{:.9}", record.time)
}

/// A JSON formatter that escapes characters which could change how a terminal shows a line.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W>(&mut self, out: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_deceptive) {
            let (plain, tail) = rest.split_at(at);
            CompactFormatter.write_string_fragment(out, plain)?;
            let mut characters = tail.chars();
            if let Some(bad) = characters.next() {
                let mut units = [0; 2];
                for unit in bad.encode_utf16(&mut units) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
            rest = characters.as_str();
        }
        CompactFormatter.write_string_fragment(out, rest)
    }
}

fn flow<'a>(record: &'a FlowRecord, time: &'a str) -> Flow<'a> {
    let dropped = record
        .reason
        .filter(|_| record.verdict == FlowVerdict::Denied);
    let (drop_reason, drop_reason_desc) = dropped
        .map(|reason| hubble_reason::of(record, reason))
        .unzip();
    let by = |direction, allowed| {
        let fits =
            record.direction == direction && allowed == (record.verdict == FlowVerdict::Allowed);
        fits.then(|| policy(&record.decider))
            .flatten()
            .map(|policy| [policy])
    };
    Flow {
        time,
        uuid: uuid_text(record.uuid),
        verdict: match record.verdict {
            FlowVerdict::Allowed => "FORWARDED",
            FlowVerdict::Denied => "DROPPED",
            FlowVerdict::WouldDeny => "AUDIT",
        },
        drop_reason,
        ip: ip(record),
        l4: layer4(record),
        source: endpoint(&record.source),
        destination: endpoint(&record.destination),
        kind: "L3_L4",
        node_name: &record.node,
        event_type: event_type(record.reason, drop_reason),
        source_service: service(&record.source),
        destination_service: service(&record.destination),
        traffic_direction: match record.direction {
            Direction::Ingress => "INGRESS",
            Direction::Egress => "EGRESS",
        },
        drop_reason_desc,
        is_reply: record.is_reply,
        interface: Interface {
            index: record.ifindex,
        },
        summary: summary(record),
        egress_allowed_by: by(Direction::Egress, true),
        ingress_allowed_by: by(Direction::Ingress, true),
        egress_denied_by: by(Direction::Egress, false),
        ingress_denied_by: by(Direction::Ingress, false),
        extensions: Extensions {
            type_url: "type.googleapis.com/google.protobuf.Struct",
            value: ringfence_fields(record),
        },
    }
}

/// Reasons that come from policy or a mode are policy verdicts; all others are drops.
fn event_type(reason: Option<DropReason>, number: Option<u32>) -> EventType {
    let verdict = matches!(
        reason,
        None | Some(DropReason::Policy | DropReason::NoPolicyRow | DropReason::Lockdown)
    );
    match number {
        Some(sub_type) if !verdict => EventType {
            kind: EVENT_DROP,
            sub_type,
        },
        _ => EventType {
            kind: EVENT_POLICY_VERDICT,
            sub_type: 0,
        },
    }
}

fn ip(record: &FlowRecord) -> Option<Ip> {
    let (source, destination) = (record.source.ip?, record.destination.ip?);
    let version = if source.is_ipv4() { "IPv4" } else { "IPv6" };
    Some(Ip {
        source,
        destination,
        version,
    })
}

fn layer4(record: &FlowRecord) -> Option<Layer4> {
    let ports = || PortPair {
        source_port: record.source.port,
        destination_port: record.destination.port,
    };
    Some(match record.protocol {
        protocol::TCP => Layer4::Tcp {
            ports: ports(),
            flags: TcpFlags(record.tcp_flags),
        },
        protocol::UDP => Layer4::Udp(ports()),
        protocol::SCTP => Layer4::Sctp(ports()),
        protocol::ICMP => Layer4::Icmp4(icmp(record, [8, 0])),
        protocol::ICMPV6 => Layer4::Icmp6(icmp(record, [128, 129])),
        _ => return None,
    })
}

fn icmp(record: &FlowRecord, [request, reply]: [u8; 2]) -> Icmp {
    Icmp {
        kind: is_echo(record).then_some(if record.is_reply { reply } else { request }),
    }
}

fn is_echo(record: &FlowRecord) -> bool {
    record.source.port != 0 || record.destination.port != 0
}

fn summary(record: &FlowRecord) -> String {
    match record.protocol {
        protocol::TCP => {
            let flags: Vec<_> = TcpFlags(record.tcp_flags).names().collect();
            format!("TCP Flags: {}", flags.join(", "))
        }
        protocol::UDP => "UDP".into(),
        protocol::SCTP => "SCTP".into(),
        protocol::ICMP | protocol::ICMPV6 => {
            let family = if record.protocol == protocol::ICMP {
                "ICMPv4"
            } else {
                "ICMPv6"
            };
            match (is_echo(record), record.is_reply) {
                (false, _) => family.into(),
                (true, false) => format!("{family} EchoRequest"),
                (true, true) => format!("{family} EchoReply"),
            }
        }
        0 => record.reason.map_or("unparsed", DropReason::name).into(),
        other => format!("IP protocol {other}"),
    }
}

fn endpoint(end: &End) -> Endpoint<'_> {
    let workload = end.owner.as_ref().and_then(Owner::workload);
    let mut labels = Vec::new();
    if let Some(workload) = workload {
        labels.extend(
            workload
                .labels
                .iter()
                .map(|(key, value)| format!("k8s:{key}={value}")),
        );
        let account = &workload.service_account;
        labels.push(format!("k8s:io.cilium.k8s.policy.serviceaccount={account}"));
        labels.push(format!(
            "k8s:io.kubernetes.pod.namespace={}",
            workload.id.namespace
        ));
    } else if let Some(name) = reserved_identity(end.identity) {
        labels.push(format!("reserved:{name}"));
    }
    Endpoint {
        identity: end.identity.0,
        namespace: workload.map(|workload| workload.id.namespace.as_str()),
        labels,
        pod_name: workload.map(|workload| workload.id.name.as_str()),
    }
}

fn service(end: &End) -> Option<Service<'_>> {
    let id = end.service.as_ref()?;
    Some(Service {
        name: id.name.as_str(),
        namespace: id.namespace.as_str(),
    })
}

fn policy(decider: &Decider) -> Option<Policy<'_>> {
    let Decider::Rule(rule) = decider else {
        return None;
    };
    Some(Policy {
        name: &rule.name,
        namespace: &rule.namespace,
        labels: [format!("ringfence:rule={}", rule.rule)],
        kind: rule.kind,
    })
}

fn ringfence_fields(record: &FlowRecord) -> RingfenceFields<'_> {
    let named = match &record.decider {
        Decider::Rule(rule) => Some(rule),
        Decider::Reserved(_) | Decider::Retired(_) => None,
    };
    RingfenceFields {
        verdict: record.verdict.name(),
        event: match record.kind {
            EventKind::New => "new",
            EventKind::Changed => "changed",
            EventKind::Denied => "denied",
        },
        rule: match &record.decider {
            Decider::Rule(rule) => rule.rule.to_string(),
            Decider::Reserved(name) => (*name).to_owned(),
            Decider::Retired(slot) => format!("retired-{slot}"),
        },
        policy: named.map(|rule| rule.policy.as_ref()),
        owner: named.and_then(|rule| rule.owner.as_deref()),
        justification: named.and_then(|rule| rule.justification.as_deref()),
        ticket: named.and_then(|rule| rule.ticket.as_deref()),
        review_by: named.and_then(|rule| rule.review_by.as_deref()),
        expires: named.and_then(|rule| rule.expires.as_deref()),
        origin: named.map(|rule| rule.origin.as_ref()),
        reason: record.reason.map(DropReason::name),
        protocol: record.protocol,
        packets: record.packets,
        bytes: record.bytes,
    }
}

/// The text form of a UUID (RFC 9562 §4).
fn uuid_text(uuid: u128) -> String {
    let hex = format!("{uuid:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    [
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32),
    ]
    .join("-")
}

#[cfg(test)]
mod tests;
