//! Hubble's messages in proto3-JSON shape, with the fields that a node without Cilium can fill.
//!
//! Invariants: names and order are those of `flow.proto`; a field with its default value is absent.
//! `RingfenceFields` is the only message that is not Hubble's. The parent module fills them.

use std::net::IpAddr;

use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Line<'a> {
    pub(super) flow: Flow<'a>,
    pub(super) node_name: &'a str,
    pub(super) time: &'a str,
}

#[derive(Serialize)]
pub(super) struct LostLine<'a> {
    pub(super) lost_events: Lost,
    pub(super) node_name: &'a str,
    pub(super) time: &'a str,
}

#[derive(Serialize)]
pub(super) struct Lost {
    pub(super) source: &'static str,
    pub(super) num_events_lost: String,
}

#[derive(Serialize)]
pub(super) struct Flow<'a> {
    pub(super) time: &'a str,
    pub(super) uuid: String,
    pub(super) verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drop_reason: Option<u32>,
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    pub(super) ip: Option<Ip>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) l4: Option<Layer4>,
    pub(super) source: Endpoint<'a>,
    pub(super) destination: Endpoint<'a>,
    #[serde(rename = "Type")]
    pub(super) kind: &'static str,
    pub(super) node_name: &'a str,
    pub(super) event_type: EventType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_service: Option<Service<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) destination_service: Option<Service<'a>>,
    pub(super) traffic_direction: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drop_reason_desc: Option<&'static str>,
    pub(super) is_reply: bool,
    pub(super) interface: Interface,
    #[serde(rename = "Summary")]
    pub(super) summary: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) egress_allowed_by: Option<[Policy<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ingress_allowed_by: Option<[Policy<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) egress_denied_by: Option<[Policy<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ingress_denied_by: Option<[Policy<'a>; 1]>,
    pub(super) extensions: Extensions<'a>,
}

#[derive(Serialize)]
pub(super) struct Service<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
}

#[derive(Serialize)]
pub(super) struct Ip {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    #[serde(rename = "ipVersion")]
    pub(super) version: &'static str,
}

#[derive(Serialize)]
pub(super) enum Layer4 {
    #[serde(rename = "TCP")]
    Tcp {
        #[serde(flatten)]
        ports: PortPair,
        flags: TcpFlags,
    },
    #[serde(rename = "UDP")]
    Udp(PortPair),
    #[serde(rename = "SCTP")]
    Sctp(PortPair),
    #[serde(rename = "ICMPv4")]
    Icmp4(Icmp),
    #[serde(rename = "ICMPv6")]
    Icmp6(Icmp),
}

#[derive(Serialize)]
pub(super) struct PortPair {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) source_port: u16,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) destination_port: u16,
}

#[derive(Serialize)]
pub(super) struct Icmp {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<u8>,
}

pub(super) struct TcpFlags(pub(super) u8);

const TCP_FLAGS: [(u8, &str); 8] = [
    (0x01, "FIN"),
    (0x02, "SYN"),
    (0x04, "RST"),
    (0x08, "PSH"),
    (0x10, "ACK"),
    (0x20, "URG"),
    (0x40, "ECE"),
    (0x80, "CWR"),
];

impl TcpFlags {
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        TCP_FLAGS
            .into_iter()
            .filter(|(bit, _)| self.0 & bit != 0)
            .map(|(_, name)| name)
    }
}

impl Serialize for TcpFlags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.names().map(|name| (name, true)))
    }
}

#[derive(Serialize)]
pub(super) struct Endpoint<'a> {
    #[serde(skip_serializing_if = "is_zero_32")]
    pub(super) identity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<&'a str>,
    pub(super) labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pod_name: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct EventType {
    #[serde(rename = "type")]
    pub(super) kind: u32,
    #[serde(skip_serializing_if = "is_zero_32")]
    pub(super) sub_type: u32,
}

#[derive(Serialize)]
pub(super) struct Interface {
    pub(super) index: u32,
}

#[derive(Serialize)]
pub(super) struct Policy<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) labels: [String; 1],
    pub(super) kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct Extensions<'a> {
    #[serde(rename = "@type")]
    pub(super) type_url: &'static str,
    pub(super) value: RingfenceFields<'a>,
}

#[derive(Serialize)]
pub(super) struct RingfenceFields<'a> {
    pub(super) verdict: &'static str,
    pub(super) event: &'static str,
    pub(super) rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) justification: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ticket: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) review_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    pub(super) protocol: u8,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

fn is_zero_32(number: &u32) -> bool {
    *number == 0
}
