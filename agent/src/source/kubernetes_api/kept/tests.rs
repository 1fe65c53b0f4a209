//! What is kept becomes the same object again.

use proptest::prelude::*;

use super::*;
use crate::oracle::cases;
use crate::source::kubernetes_api::object::convert;

fn node() -> NodeName {
    NodeName::new("n1").unwrap()
}

fn converted(kind: Kind, value: &Value) -> Converted {
    convert(kind, &node(), &mut value.clone()).unwrap()
}

/// An object, and what becomes of what is kept of it.
fn both(kind: Kind, value: &Value) -> (Converted, Converted) {
    let first = converted(kind, value);
    let json = Kept::of(&first).unwrap().json(&first.key, &node());
    assert!(!json.contains('\n'), "{json}");
    let second = converted(kind, &serde_json::from_str(&json).unwrap());
    let mut first = first;
    (first.errors, first.warnings) = (second.errors.clone(), second.warnings.clone());
    (first, second)
}

fn policy(spec: &Value) -> Value {
    json!({
        "metadata": {
            "name": "p", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x".repeat(999)},
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": spec,
        "status": {"conditions": []},
    })
}

#[test]
fn objects_of_all_kinds_are_the_same_again() {
    let metadata = json!({"name": "a", "uid": "u", "labels": {"env": "prod"}});
    for (kind, value) in [
        (Kind::Namespaces, json!({"metadata": metadata})),
        (
            Kind::Nodes,
            json!({
                "metadata": metadata, "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]},
                "status": {"addresses": [
                    {"type": "InternalIP", "address": "10.0.0.1"},
                    {"type": "Hostname", "address": "a"},
                    {"type": "ExternalIP", "address": "2001:db8::1"},
                ]},
            }),
        ),
        (
            Kind::ServiceCidrs,
            json!({"metadata": metadata, "spec": {"cidrs": ["10.96.0.0/16"]}}),
        ),
        (
            Kind::Services,
            json!({
                "metadata": {"name": "db", "namespace": "shop", "uid": "u"},
                "spec": {
                    "clusterIPs": ["10.96.0.7", "fd96::7"],
                    "internalTrafficPolicy": "Local",
                    "ports": [
                        {"name": "sql", "port": 5432},
                        {"name": "dns", "port": 53, "protocol": "UDP"},
                        {"port": 7, "protocol": "SCTP"},
                    ],
                },
            }),
        ),
        (
            Kind::EndpointSlices,
            json!({
                "metadata": {
                    "name": "db-x", "namespace": "shop", "uid": "u",
                    "labels": {"kubernetes.io/service-name": "db", "other": "label"},
                },
                "ports": [{"name": "sql", "port": 15432, "protocol": "TCP"}],
                "endpoints": [
                    {"addresses": ["10.0.0.1"], "nodeName": "n1"},
                    {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "nodeName": "n2"},
                    {
                        "addresses": ["fd00::2"],
                        "conditions": {"ready": false, "terminating": true},
                    },
                ],
            }),
        ),
        (
            Kind::EndpointSlices,
            json!({"metadata": {"name": "own", "namespace": "shop"}}),
        ),
        (
            Kind::EndpointSlices,
            json!({"metadata": {"name": "bad", "namespace": "shop"}, "ports": "none"}),
        ),
        (
            Kind::EndpointSlices,
            json!({
                "metadata": {"name": "odd", "namespace": "shop"},
                "ports": [{"name": "sql", "port": 70000}],
                "endpoints": [{"addresses": ["10.0.0.x"]}],
            }),
        ),
        (
            Kind::NetworkPolicies,
            policy(&json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
        ),
        (
            Kind::NetworkPolicies,
            policy(
                &json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
            ),
        ),
    ] {
        let (mut first, second) = both(kind, &value);
        if kind != Kind::NetworkPolicies {
            // Only what tells policies apart is needed.
            first.uid.clone_from(&second.uid);
        }
        // The second text has the version and the kind, which the first lacked.
        first.text.clone_from(&second.text);
        assert_eq!(first, second);
    }
}

#[test]
fn a_policy_is_kept_without_what_nothing_reads() {
    let spec = json!({"podSelector": {}});
    let text = policy_text(&policy(&spec));
    let kept: Value = serde_json::from_str(&text).unwrap();
    let metadata = json!({"name": "p", "namespace": "shop", "uid": "u1"});
    assert_eq!(kept, json!({"metadata": metadata, "spec": spec}));
}

#[test]
fn of_a_pod_that_has_ended_nothing_is_kept() {
    let pod = |phase: &str| {
        json!({
            "metadata": {"name": "a", "namespace": "shop"}, "status": {"phase": phase}
        })
    };
    assert!(Kept::of(&converted(Kind::Pods, &pod("Running"))).is_some());
    assert_eq!(Kept::of(&converted(Kind::Pods, &pod("Failed"))), None);
}

#[test]
fn a_stub_of_a_policy_locks_its_namespace_down() {
    let first = converted(Kind::NetworkPolicies, &policy(&json!({"podSelector": {}})));
    let stub = Kept::of(&first).unwrap().stub(&first.key).unwrap();
    let second = converted(Kind::NetworkPolicies, &serde_json::from_str(&stub).unwrap());
    assert_eq!(second.key, first.key);
    assert!(matches!(second.object, Object::UnreadablePolicy(Some(_))));
    let namespace = converted(Kind::Namespaces, &json!({"metadata": {"name": "shop"}}));
    let kept = Kept::of(&namespace).unwrap();
    assert_eq!(kept.stub(&namespace.key), None);
}

fn pod() -> impl Strategy<Value = Value> {
    let port = (
        "[a-z]{1,8}",
        1..65_536_u32,
        proptest::sample::select(&["TCP", "UDP", "SCTP"][..]),
    );
    let port = port.prop_map(
        |(name, port, protocol)| json!({"name": name, "containerPort": port, "protocol": protocol}),
    );
    (
        ("[a-z]{1,9}", "[a-z0-9]{0,12}", "n[12]"),
        proptest::collection::btree_map("[a-z]{1,5}(/[a-z]{1,3})?", ".{0,9}", 0..4),
        proptest::collection::vec(proptest::prelude::any::<std::net::IpAddr>(), 0..4),
        proptest::collection::vec(port, 0..4),
        proptest::sample::select(&["Running", "Pending", "Unknown"][..]),
        (0..4_000_000_000_i64, any::<bool>()),
    )
        .prop_map(
            |((name, uid, node), labels, ips, ports, phase, (created, ends))| {
                let created = jiff::Timestamp::from_second(created).unwrap().to_string();
                let ips: Vec<Value> = ips.iter().map(|it| json!({"ip": it})).collect();
                json!({
                    "metadata": {
                        "name": name, "namespace": "shop", "uid": uid, "labels": labels,
                        "creationTimestamp": created,
                        "deletionTimestamp": ends.then_some(&created),
                    },
                    "spec": {
                        "nodeName": node, "serviceAccountName": "web",
                        "containers": [{"name": "c", "ports": ports}],
                    },
                    "status": {"phase": phase, "podIPs": ips},
                })
            },
        )
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn every_pod_is_the_same_again(pod in pod()) {
        let (first, second) = both(Kind::Pods, &pod);
        prop_assert_eq!(first, second);
    }
}
