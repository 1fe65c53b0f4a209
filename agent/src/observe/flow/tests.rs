//! Tests of the decoder, and sample flows for other tests.

use ringfence_common::ids::{RuleSlot, TableId};
use ringfence_common::net::{Address, Ip4, Port};

use super::*;
use crate::model::Owner;
use crate::model::{Labels, ServiceAccountName, Workload, WorkloadId};
use crate::observe::names::RuleName;

/// 2026-01-02T03:04:05Z minus one second of ticks.
pub(crate) const OFFSET: i128 = 1_767_323_044_000_000_000;

fn workload(name: &str, app: &str, addresses: [&str; 2], interface: bool) -> Arc<Workload> {
    Arc::new(Workload {
        id: WorkloadId::new("shop", name).unwrap(),
        labels: Labels::from_pairs([("app", app)]).unwrap(),
        service_account: ServiceAccountName::new("default").unwrap(),
        addresses: addresses.map(|address| address.parse().unwrap()).to_vec(),
        ports: Vec::new(),
        interface: interface.then(|| format!("veth-{app}")),
        recency: None,
    })
}

/// `shop/frontend-1` behind interface 7, and `shop/db-1` elsewhere.
pub(crate) fn directory() -> Directory {
    let frontend = workload("frontend-1", "frontend", ["10.1.0.2", "fd00:1::2"], true);
    let db = workload("db-1", "db", ["10.1.0.3", "fd00:1::3"], false);
    let owners = [&frontend, &db].into_iter().flat_map(|workload| {
        workload
            .addresses
            .iter()
            .map(|ip| (*ip, Owner::Workload(Arc::clone(workload))))
    });
    let rule = RuleName {
        policy: "shop/frontend".into(),
        kind: "RingfencePolicy",
        namespace: "shop".into(),
        name: "frontend".into(),
        rule: "egress[0]".into(),
        owner: Some("team-web".into()),
        justification: Some("reads \"orders\"\u{1b}[2J\u{202e}".into()),
        ticket: Some("SEC-1".into()),
        review_by: Some("2027-02-01".into()),
        expires: None,
        origin: "shop.toml:7".into(),
    };
    let owners = owners.collect();
    let mut directory = Directory::new("node-1", owners).with_endpoints([(7, frontend)]);
    directory.set_rule(RuleSlot(16), Some(Arc::new(rule)));
    directory
}

fn v6(text: &str) -> Ip6 {
    Ip6::from_wire(text.parse::<Ipv6Addr>().unwrap().octets())
}

/// An allowed TCP SYN over IPv4 from the frontend to the database.
pub(crate) fn event() -> FlowEvent {
    FlowEvent {
        time: 1_000_000_001,
        packets: 1,
        bytes: 74,
        local: Ip4::from_wire([10, 1, 0, 2]).widen(),
        peer: Ip4::from_wire([10, 1, 0, 3]).widen(),
        ifindex: 7,
        identity: IdentityId(16),
        peer_identity: IdentityId(17),
        rule: RuleSlot(16),
        table: TableId(1),
        local_port: Port::new(43210),
        peer_port: Port::new(5432),
        protocol: protocol::TCP,
        family: 4,
        direction: Direction::Egress as u8,
        verdict: Verdict::Allow as u8,
        action: Action::Pass as u8,
        reason: 0,
        kind: EventKind::New as u8,
        tcp: 0x02,
        from_workload: 1,
        rejected: 0,
        reserved: [0; 6],
    }
}

/// The same over IPv6.
pub(crate) fn event6() -> FlowEvent {
    FlowEvent {
        local: v6("fd00:1::2"),
        peer: v6("fd00:1::3"),
        family: 6,
        ..event()
    }
}

/// Denied by default-deny; dropped, or passed in observe mode.
pub(crate) fn denied(event: FlowEvent, action: Action) -> FlowEvent {
    FlowEvent {
        verdict: Verdict::Deny as u8,
        action: action as u8,
        reason: DropReason::Policy as u8,
        kind: EventKind::Denied as u8,
        rule: RuleSlot::DEFAULT_DENY,
        packets: 3,
        bytes: 222,
        ..event
    }
}

/// Decodes an event, with a fixed UUID.
pub(crate) fn record(event: &FlowEvent) -> FlowRecord {
    record_with(event, &directory())
}

/// Decodes an event with these names, with a fixed UUID.
pub(crate) fn record_with(event: &FlowEvent, names: &Directory) -> FlowRecord {
    let mut record = Decoder::default().decode(event, names, OFFSET).unwrap();
    record.uuid = 0x0123_4567_89ab_4def_8123_4567_89ab_cdef;
    record
}

#[test]
fn source_and_destination_are_those_of_the_packet() {
    let out = record(&event());
    assert_eq!(out.source.ip, Some("10.1.0.2".parse().unwrap()));
    assert_eq!((out.source.port, out.destination.port), (43210, 5432));
    assert!(!out.is_reply);
    assert_eq!(out.local(), &out.source);

    let back = record(&FlowEvent {
        from_workload: 0,
        ..event()
    });
    assert_eq!(back.destination.ip, Some("10.1.0.2".parse().unwrap()));
    assert_eq!((back.source.port, back.destination.port), (5432, 43210));
    assert!(back.is_reply);
    assert_eq!(back.local(), &back.destination);
}

#[test]
fn verdicts_are_derived_from_verdict_and_action() {
    assert_eq!(record(&event()).verdict, FlowVerdict::Allowed);
    assert_eq!(
        record(&denied(event(), Action::Drop)).verdict,
        FlowVerdict::Denied
    );
    assert_eq!(
        record(&denied(event(), Action::Pass)).verdict,
        FlowVerdict::WouldDeny
    );
    for verdict in FlowVerdict::ALL {
        assert_eq!(verdict.name().parse(), Ok(verdict));
    }
    assert_eq!(
        "DROPPED".parse::<FlowVerdict>().unwrap_err().to_string(),
        "unknown verdict \"DROPPED\": expected allowed, denied or would-deny"
    );
}

#[test]
fn events_of_unknown_kind_or_direction_are_refused() {
    let refused = FlowEvent {
        kind: 77,
        ..event()
    };
    assert_eq!(
        Decoder::default().decode(&refused, &directory(), OFFSET),
        None
    );
    let refused = FlowEvent {
        direction: 0,
        ..event()
    };
    assert_eq!(
        Decoder::default().decode(&refused, &directory(), OFFSET),
        None
    );
}

#[test]
fn frames_without_addresses_still_name_the_workload() {
    let frame = FlowEvent {
        family: 0,
        protocol: 0,
        ..denied(event(), Action::Drop)
    };
    let record = record(&frame);
    assert_eq!((record.source.ip, record.destination.ip), (None, None));
    assert!(record.source.owner.is_some());
}

#[test]
fn uuids_are_unique_and_of_version_4() {
    let decoder = Decoder::default();
    let (a, b) = (decoder.next_uuid(), decoder.next_uuid());
    assert_ne!(a, b);
    for uuid in [a, b] {
        assert_eq!((uuid >> 76) & 0xf, 4);
        assert_eq!((uuid >> 62) & 3, 2);
    }
}
