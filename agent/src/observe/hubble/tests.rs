//! The exact JSON of different flows, and the escaping of hostile text.

use ringfence_common::event::FlowEvent;
use ringfence_common::ids::{IdentityId, RuleSlot};
use ringfence_common::mode::Action;
use ringfence_common::net::{Address, Ip4, Port};
use serde_json::{Value, json};

use super::*;
use crate::observe::flow::tests::{denied, event, event6, record};

fn text(event: &FlowEvent) -> String {
    let mut line = Vec::new();
    write_line(&mut line, &record(event));
    String::from_utf8(line).unwrap()
}

fn value(event: &FlowEvent) -> Value {
    serde_json::from_str(&text(event)).unwrap()
}

#[test]
fn an_allowed_flow() {
    let line = text(&event());
    assert!(line.ends_with("}\n"));
    assert_eq!(line.lines().count(), 1);
    let workload = |name: &str, app: &str, identity: u32| {
        json!({
            "identity": identity, "namespace": "shop", "pod_name": name,
            "labels": [
                format!("k8s:app={app}"),
                "k8s:io.cilium.k8s.policy.serviceaccount=default",
                "k8s:io.kubernetes.pod.namespace=shop",
            ],
        })
    };
    let expected = json!({
        "flow": {
            "time": "2026-01-02T03:04:05.000000001Z",
            "uuid": "01234567-89ab-4def-8123-456789abcdef",
            "verdict": "FORWARDED",
            "IP": {"source": "10.1.0.2", "destination": "10.1.0.3", "ipVersion": "IPv4"},
            "l4": {"TCP": {
                "source_port": 43210, "destination_port": 5432, "flags": {"SYN": true},
            }},
            "source": workload("frontend-1", "frontend", 16),
            "destination": workload("db-1", "db", 17),
            "Type": "L3_L4",
            "node_name": "node-1",
            "event_type": {"type": 5},
            "traffic_direction": "EGRESS",
            "is_reply": false,
            "interface": {"index": 7},
            "Summary": "TCP Flags: SYN",
            "egress_allowed_by": [{
                "name": "frontend", "namespace": "shop",
                "labels": ["ringfence:rule=egress[0]"], "kind": "RingfencePolicy",
            }],
            "extensions": {
                "@type": "type.googleapis.com/google.protobuf.Struct",
                "value": {
                    "verdict": "allowed", "event": "new", "policy": "shop/frontend",
                    "rule": "egress[0]", "owner": "team-web",
                    "justification": "reads \"orders\"\u{1b}[2J\u{202e}", "ticket": "SEC-1",
                    "review_by": "2027-02-01", "origin": "shop.toml:7",
                    "protocol": 6, "packets": 1, "bytes": 74,
                },
            },
        },
        "node_name": "node-1",
        "time": "2026-01-02T03:04:05.000000001Z",
    });
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
}

#[test]
fn a_flow_to_a_service_names_it() {
    let names = crate::observe::flow::tests::directory();
    let plain = value(&event());
    assert_eq!(
        plain["flow"]["destination_service"],
        Value::Null,
        "the control: a workload's"
    );
    let id = crate::model::ServiceId {
        namespace: "shop".parse().unwrap(),
        name: "db".parse().unwrap(),
    };
    let address = "10.96.0.7".parse().unwrap();
    let services = [(address, id.clone()), ("10.1.0.3".parse().unwrap(), id)];
    let names = names.with_services(std::sync::Arc::new(services.into()));
    let line = |event: &FlowEvent| -> Value {
        let record = crate::observe::flow::tests::record_with(event, &names);
        let mut line = Vec::new();
        write_line(&mut line, &record);
        serde_json::from_slice(&line).unwrap()
    };
    let of_workload = line(&event());
    assert_eq!(of_workload["flow"]["destination_service"], Value::Null);
    let to_service = FlowEvent {
        peer: Ip4::from_wire([10, 96, 0, 7]).widen(),
        ..event()
    };
    let flow = &line(&to_service)["flow"];
    assert_eq!(
        flow["destination_service"],
        json!({"name": "db", "namespace": "shop"})
    );
    assert_eq!(flow["source_service"], Value::Null);
    assert_eq!(flow["destination"]["pod_name"], Value::Null);
}

#[test]
fn hostile_text_is_escaped_and_not_lost() {
    let line = text(&event());
    assert!(
        line.contains(r#"reads \"orders\"\u001b[2J\u202e"#),
        "{line}"
    );
    assert!(!line.trim_end().contains(is_deceptive));
    let back: Value = serde_json::from_str(&line).unwrap();
    let justification = back
        .pointer("/flow/extensions/value/justification")
        .unwrap();
    assert_eq!(justification, "reads \"orders\"\u{1b}[2J\u{202e}");
}

#[test]
fn a_denied_flow_over_ipv6() {
    let line = value(&denied(event6(), Action::Drop));
    let flow = &line["flow"];
    assert_eq!(flow["verdict"], "DROPPED");
    assert_eq!(flow["drop_reason"], 133);
    assert_eq!(flow["drop_reason_desc"], "POLICY_DENIED");
    assert_eq!(
        flow["IP"],
        json!({"source": "fd00:1::2", "destination": "fd00:1::3", "ipVersion": "IPv6"})
    );
    assert_eq!(flow["egress_denied_by"], Value::Null);
    assert_eq!(
        flow["extensions"]["value"],
        json!({
            "verdict": "denied", "event": "denied", "rule": "default-deny", "reason": "policy",
            "protocol": 6, "packets": 3, "bytes": 222,
        })
    );
}

#[test]
fn a_denying_rule_is_named() {
    let line = value(&FlowEvent {
        rule: RuleSlot(16),
        ..denied(event(), Action::Drop)
    });
    assert_eq!(line["flow"]["drop_reason_desc"], "POLICY_DENY");
    assert_eq!(line["flow"]["egress_denied_by"][0]["name"], "frontend");
    assert_eq!(line["flow"]["egress_allowed_by"], Value::Null);
}

#[test]
fn a_flow_that_would_be_denied() {
    let line = value(&denied(event(), Action::Pass));
    assert_eq!(line["flow"]["verdict"], "AUDIT");
    assert_eq!(line["flow"]["drop_reason"], Value::Null);
    assert_eq!(line["flow"]["extensions"]["value"]["verdict"], "would-deny");
    assert_eq!(line["flow"]["extensions"]["value"]["reason"], "policy");
}

#[test]
fn icmp_and_the_world() {
    let echo = FlowEvent {
        protocol: protocol::ICMP,
        local_port: Port::new(77),
        peer_port: Port::new(77),
        peer: Ip4::from_wire([203, 0, 113, 9]).widen(),
        peer_identity: IdentityId::WORLD,
        ..event()
    };
    let flow = value(&echo)["flow"].clone();
    assert_eq!(flow["l4"], json!({"ICMPv4": {"type": 8}}));
    assert_eq!(flow["Summary"], "ICMPv4 EchoRequest");
    assert_eq!(
        flow["destination"],
        json!({"identity": 3, "labels": ["reserved:world"]})
    );

    let other = FlowEvent {
        protocol: protocol::ICMPV6,
        local_port: Port::NONE,
        peer_port: Port::NONE,
        ..event6()
    };
    assert_eq!(value(&other)["flow"]["l4"], json!({"ICMPv6": {}}));
    assert_eq!(value(&other)["flow"]["Summary"], "ICMPv6");
}

#[test]
fn a_frame_that_is_not_ip() {
    let frame = FlowEvent {
        family: 0,
        protocol: 0,
        reason: DropReason::Ethertype as u8,
        rule: RuleSlot::NONE,
        ..denied(event(), Action::Drop)
    };
    let flow = value(&frame)["flow"].clone();
    assert_eq!((&flow["IP"], &flow["l4"]), (&Value::Null, &Value::Null));
    assert_eq!(flow["event_type"], json!({"type": 1, "sub_type": 166}));
    assert_eq!(flow["Summary"], "ethertype");
    assert_eq!(flow["source"]["pod_name"], "frontend-1");
}

#[test]
fn udp_and_sctp_have_ports() {
    for (number, name) in [(protocol::UDP, "UDP"), (protocol::SCTP, "SCTP")] {
        let line = value(&FlowEvent {
            protocol: number,
            ..event()
        });
        assert_eq!(
            line["flow"]["l4"],
            json!({name: {"source_port": 43210, "destination_port": 5432}})
        );
    }
}

#[test]
fn lost_records_are_reported_on_a_separate_line() {
    let mut line = Vec::new();
    write_lost(&mut line, 12, "node-1", jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(
        serde_json::from_slice::<Value>(&line).unwrap(),
        json!({
            "lost_events": {"source": "HUBBLE_RING_BUFFER", "num_events_lost": "12"},
            "node_name": "node-1", "time": "1970-01-01T00:00:00.000000000Z",
        })
    );
}
