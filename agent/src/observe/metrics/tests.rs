//! Tests of the metrics page: names and values, and that it contains no address.

use ringfence_common::event::FlowEvent;
use ringfence_common::mode::Action;

use super::*;
use crate::observe::flow::tests::{denied, event, event6, record};

fn filled() -> Metrics {
    let metrics = Metrics::new("1.2.3");
    let unknown = FlowEvent {
        ifindex: 99,
        family: 0,
        ..event()
    };
    let flows = [event(), event6(), denied(event(), Action::Drop), unknown];
    metrics.count_flows(&flows.map(|flow| Arc::new(record(&flow))));
    metrics.set_kernel(KernelTotals {
        drops: vec![(DropReason::Policy, 3, 4)],
        events_lost: 5,
        denies_lost: 6,
        rejects: [("sent", 14), ("rate-limited", 15), ("failed", 16)],
        forgotten: [("replaced", 19), ("not-stored", 20)],
        records_recycled: 21,
        discovery_passed: 22,
        maps: vec![("POLICY", 7, 65_536)],
    });
    metrics.set_state(State {
        endpoints: vec![(NamespaceName::new("shop").unwrap(), Mode::Enforce, 8)],
        identities: 9,
        policies: 10,
        policy_rows: 11,
        unknown_addresses: 13,
        policies_without_room: 14,
        services_without_room: 15,
        revision: 12,
    });
    metrics.set_unfenced(vec![("missing", 22), ("unsuitable", 0)]);
    metrics.set_degraded(vec![("not-first", 23)]);
    metrics.set_repairs(vec![("fence-missing", 24)]);
    metrics.set_refused_files([("last-good", 23), ("nothing", 24), ("lockdown", 0)]);
    metrics.set_lost(LossStage::Follower, 13);
    metrics.set_lost(LossStage::Decode, 17);
    metrics.set_lost(LossStage::Log, 18);
    metrics.observe_publish(Duration::from_millis(3));
    metrics.count_reload_error("policies");
    metrics
}

#[test]
fn the_page_has_every_metric() {
    let page = filled().encode();
    for line in [
        r#"ringfence_build_info{version="1.2.3"} 1"#,
        r#"ringfence_drops_total{reason="policy",action="dropped"} 3"#,
        r#"ringfence_drops_total{reason="policy",action="observed"} 4"#,
        r#"ringfence_drops_total{reason="vlan",action="dropped"} 0"#,
        r#"ringfence_rejects_total{outcome="sent"} 14"#,
        r#"ringfence_rejects_total{outcome="rate-limited"} 15"#,
        r#"ringfence_rejects_total{outcome="failed"} 16"#,
        r#"ringfence_conntrack_forgotten_total{cause="replaced"} 19"#,
        r#"ringfence_conntrack_forgotten_total{cause="not-stored"} 20"#,
        "ringfence_records_recycled_total 21",
        "ringfence_discovery_passed_total 22",
        r#"ringfence_events_lost_total{stage="kernel-ring"} 5"#,
        r#"ringfence_events_lost_total{stage="kernel-denies"} 6"#,
        r#"ringfence_events_lost_total{stage="decode"} 17"#,
        r#"ringfence_events_lost_total{stage="follower"} 13"#,
        r#"ringfence_events_lost_total{stage="log"} 18"#,
        r#"ringfence_flows_total{namespace="shop",workload="frontend-1",direction="egress",verdict="allowed"} 2"#,
        r#"ringfence_flows_total{namespace="shop",workload="frontend-1",direction="egress",verdict="denied"} 1"#,
        r#"ringfence_flows_total{namespace="",workload="",direction="egress",verdict="allowed"} 1"#,
        r#"ringfence_endpoints{namespace="shop",mode="enforce"} 8"#,
        r#"ringfence_unfenced_workloads{reason="missing"} 22"#,
        r#"ringfence_unfenced_workloads{reason="unsuitable"} 0"#,
        r#"ringfence_degraded_fences{reason="not-first"} 23"#,
        r#"ringfence_repairs_total{kind="fence-missing"} 24"#,
        r#"ringfence_refused_files{in_force="last-good"} 23"#,
        r#"ringfence_refused_files{in_force="nothing"} 24"#,
        r#"ringfence_refused_files{in_force="lockdown"} 0"#,
        "ringfence_identities 9",
        "ringfence_policies 10",
        "ringfence_policy_rows 11",
        "ringfence_unknown_addresses 13",
        "ringfence_policies_without_room 14",
        "ringfence_services_without_room 15",
        "ringfence_revision 12",
        r#"ringfence_map_entries{map="POLICY"} 7"#,
        r#"ringfence_map_capacity{map="POLICY"} 65536"#,
        "ringfence_publish_seconds_count 1",
        r#"ringfence_reload_errors_total{source="policies"} 1"#,
        "# EOF",
    ] {
        assert!(page.lines().any(|known| known == line), "{line}\n{page}");
    }
}

#[test]
fn the_page_has_no_address() {
    let page = filled().encode();
    for part in ["10.1.0", "fd00", "43210", "5432", "veth"] {
        assert!(!page.contains(part), "{part}\n{page}");
    }
}

#[test]
fn series_of_removed_workloads_disappear() {
    let metrics = filled();
    metrics.remove_workloads(["shop/frontend-1".parse().unwrap()]);
    let page = metrics.encode();
    assert!(!page.contains("frontend-1"), "{page}");
    assert!(
        page.contains("ringfence_flows_total{namespace=\"\""),
        "{page}"
    );
}
