//! Objects as an API server sends them.

use serde_json::json;

use super::*;
use crate::model::{NamedPort, Peers, PortName, Ports, Protocol, Recency, RuleAction};

fn node() -> NodeName {
    NodeName::new("n1").unwrap()
}

fn converted(kind: Kind, mut value: Value) -> Converted {
    convert(kind, &node(), &mut value).unwrap()
}

/// A pod as kubelet and the API server leave it, without what an agent never reads.
fn pod() -> Value {
    json!({
        "metadata": {
            "name": "web-6c8f7d5b9-x2x4q",
            "generateName": "web-6c8f7d5b9-",
            "namespace": "shop",
            "uid": "0d3c1c9e-6d0e-4f6e-9a51-0f6d1c2b7a11",
            "resourceVersion": "812",
            "creationTimestamp": "2026-11-30T10:00:05Z",
            "labels": {"app": "web", "pod-template-hash": "6c8f7d5b9"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6c8f7d5b9",
                "uid": "b0", "controller": true, "blockOwnerDeletion": true
            }],
            "managedFields": [{
                "manager": "kubelet", "operation": "Update", "apiVersion": "v1",
                "time": "2026-11-30T10:00:07Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:status": {"f:phase": {}}}, "subresource": "status"
            }]
        },
        "spec": {
            "nodeName": "n1",
            "serviceAccountName": "web",
            "restartPolicy": "Always",
            "initContainers": [
                {"name": "sidecar", "image": "i", "restartPolicy": "Always",
                 "ports": [{"name": "metrics", "containerPort": 9090, "protocol": "TCP"}]},
                {"name": "prepare", "image": "i",
                 "ports": [{"name": "gone", "containerPort": 1, "protocol": "TCP"}]}
            ],
            "containers": [
                {"name": "web", "image": "i", "ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                    {"containerPort": 9, "protocol": "UDP"},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"}
                ]},
                {"name": "other", "image": "i", "ports": [
                    {"name": "http", "containerPort": 8081, "protocol": "TCP"}
                ]}
            ]
        },
        "status": {
            "phase": "Running",
            "hostIP": "172.30.1.11",
            "podIP": "10.129.1.7",
            "podIPs": [{"ip": "10.129.1.7"}, {"ip": "fd44:0:1:1::7"}],
            "conditions": [{"type": "Ready", "status": "True"}]
        }
    })
}

fn workload(value: Value) -> (PodObject, Vec<String>) {
    let converted = converted(Kind::Pods, value);
    match converted.object {
        Object::Pod(pod) => (pod, converted.errors),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_is_a_workload() {
    let (found, errors) = workload(pod());
    assert_eq!(errors, Vec::<String>::new());
    assert!(found.is_local);
    let workload = &*found.workload;
    assert_eq!(workload.id.to_string(), "shop/web-6c8f7d5b9-x2x4q");
    assert_eq!(
        workload.labels.to_string(),
        "app=web,pod-template-hash=6c8f7d5b9"
    );
    assert_eq!(workload.service_account.as_str(), "web");
    let addresses: Vec<String> = workload.addresses.iter().map(IpAddr::to_string).collect();
    assert_eq!(addresses, ["10.129.1.7", "fd44:0:1:1::7"]);
    let port = |name: &str, protocol, port| NamedPort {
        name: PortName::new(name).unwrap(),
        protocol,
        port,
    };
    let expected = [
        port("http", Protocol::Tcp, 8080),
        port("dns", Protocol::Udp, 53),
        port("metrics", Protocol::Tcp, 9090),
    ];
    assert_eq!(workload.ports, expected);
    assert_eq!(workload.interface, None);
    let recency = Recency {
        is_running: true,
        created: 1_796_032_805,
        uid: "0d3c1c9e-6d0e-4f6e-9a51-0f6d1c2b7a11".into(),
        has_lapsed: false,
    };
    assert_eq!(workload.recency, Some(recency));
    let mut elsewhere = pod();
    elsewhere["spec"]["nodeName"] = "n2".into();
    assert!(!self::workload(elsewhere).0.is_local);
}

#[test]
fn a_pod_that_has_ended_or_is_its_node_is_no_workload() {
    for phase in ["Succeeded", "Failed"] {
        let mut ended = pod();
        ended["status"]["phase"] = phase.into();
        assert_eq!(
            converted(Kind::Pods, ended).object,
            Object::NoWorkload,
            "{phase}"
        );
    }
    let mut host = pod();
    host["spec"]["hostNetwork"] = true.into();
    assert_eq!(converted(Kind::Pods, host).object, Object::NoWorkload);
    // One that is about to end keeps what it has, and yields to others.
    let mut ending = pod();
    ending["metadata"]["deletionTimestamp"] = "2026-11-30T11:00:00Z".into();
    let (found, _) = workload(ending);
    assert_eq!(found.workload.addresses.len(), 2);
    assert!(!found.workload.recency.as_ref().unwrap().is_running);
    // One that is not yet anywhere has nothing.
    let mut pending = pod();
    pending["status"] = json!({"phase": "Pending"});
    pending["spec"]["nodeName"] = Value::Null;
    let (found, errors) = workload(pending);
    assert!(found.workload.addresses.is_empty() && !found.is_local && errors.is_empty());
}

#[test]
fn a_pod_that_cannot_be_read_as_a_whole_is_a_workload_all_the_same() {
    let mut odd = pod();
    odd["metadata"]["labels"]["\u{1b}[2J"] = "x".into();
    odd["spec"]["serviceAccountName"] = "A".into();
    odd["spec"]["containers"][0]["ports"][0]["containerPort"] = 70_000.into();
    odd["spec"]["containers"][0]["ports"][2]["protocol"] = "QUIC".into();
    odd["status"]["podIPs"] = json!([
        {"ip": "10.129.1.7"}, {"ip": "10.129.1.7"}, {"ip": "127.0.0.1"}, {"ip": "x\u{202e}"}
    ]);
    let (found, errors) = workload(odd);
    assert_eq!(
        found.workload.labels.to_string(),
        "app=web,pod-template-hash=6c8f7d5b9"
    );
    assert_eq!(found.workload.addresses.len(), 1);
    assert_eq!(found.workload.service_account.as_str(), "default");
    let names: Vec<&str> = found
        .workload
        .ports
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["http", "metrics"],
        "the http of the other container"
    );
    assert_eq!(errors.len(), 6, "{errors:#?}");
    for error in &errors {
        assert!(
            !error.chars().any(crate::model::quote::is_deceptive),
            "{error:?}"
        );
        assert!(error.len() < 400, "{error}");
    }
    let mut many = pod();
    for number in 0..50 {
        many["metadata"]["labels"][format!("bad key {number}")] = "x".into();
    }
    let (_, errors) = workload(many);
    assert_eq!(errors.len(), MOST_ERRORS + 1);
    assert_eq!(errors.last().unwrap(), "40 more errors");
    let mut nameless = json!({"metadata": {"namespace": "shop"}});
    assert!(convert(Kind::Pods, &node(), &mut nameless).is_err());
    assert!(convert(Kind::Pods, &node(), &mut json!("a\u{1b}")).is_err());
}

#[test]
fn namespaces_and_nodes() {
    let namespace = json!({
        "metadata": {
            "name": "shop", "uid": "u", "resourceVersion": "4",
            "labels": {"kubernetes.io/metadata.name": "shop", "env": "prod"}
        },
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}
    });
    let read = converted(Kind::Namespaces, namespace);
    assert_eq!(read.errors, Vec::<String>::new());
    let Object::Namespace(namespace) = read.object else {
        panic!("{:?}", read.object)
    };
    assert_eq!(
        namespace.labels().to_string(),
        "env=prod,kubernetes.io/metadata.name=shop"
    );
    let of = |name: &str| {
        let node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {"podCIDR": "10.129.1.0/24", "podCIDRs": ["10.129.1.0/24"]},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": "172.30.1.11"},
                    {"type": "InternalIP", "address": "fd44::11"},
                    {"type": "ExternalIP", "address": "172.30.1.11"},
                    {"type": "Hostname", "address": name}
                ],
                "images": [{"names": ["a"], "sizeBytes": 1}]
            }
        });
        let read = converted(Kind::Nodes, node);
        assert_eq!(read.errors, Vec::<String>::new());
        match read.object {
            Object::Node(node) => node,
            other => panic!("{other:?}"),
        }
    };
    let own = of("n1");
    assert!(own.local && !of("n2").local);
    let addresses: Vec<String> = own.addresses.iter().map(IpAddr::to_string).collect();
    assert_eq!(addresses, ["172.30.1.11", "fd44::11"]);
}

/// As in a list, whose items do not say what they are.
fn network_policy(spec: &Value) -> Converted {
    let object = json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u", "generation": 1},
        "spec": spec
    });
    converted(Kind::NetworkPolicies, object)
}

fn policy(converted: &Converted) -> &Policy {
    match &converted.object {
        Object::Policy(policy) => policy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rule_that_cannot_be_read_allows_nothing() {
    let good = json!({"from": [{"podSelector": {"matchLabels": {"app": "shop"}}}]});
    for bad in [
        json!({"from": [{"podSelector": {}, "newField": {}}]}),
        json!({"from": [{"podSelector": {}}], "newField": 1}),
        json!({"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0"}}]}),
        json!({"from": [{"podSelector": {}}], "ports": [{"port": 80, "newField": 1}]}),
        json!({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}]}),
    ] {
        let spec = json!({
            "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"],
            "ingress": [bad, good]
        });
        let read = network_policy(&spec);
        assert_eq!(read.errors.len(), 1, "{bad}: {:?}", read.errors);
        let rules = policy(&read).ingress.as_ref().unwrap();
        assert_eq!(rules.len(), 1, "{bad}");
    }
    // What does not matter for rules does not matter.
    let mut object = json!({
        "metadata": {
            "name": "web", "namespace": "shop",
            "annotations": {"ringfence.io/review-by": "soon"}
        },
        "spec": {"podSelector": {}, "ingress": [good]}
    });
    let read = convert(Kind::NetworkPolicies, &node(), &mut object).unwrap();
    assert_eq!(policy(&read).ingress.as_ref().unwrap().len(), 1);
    assert_eq!(read.errors.len(), 1);
    assert_eq!(policy(&read).origin.to_string(), "networkpolicy/shop/web");
}

#[test]
fn without_its_subject_a_policy_is_unreadable() {
    let expression = json!({"key": "a", "operator": "Near"});
    for spec in [
        json!({"podSelector": {"matchExpressions": [expression]}}),
        json!({"podSelector": {"newField": {}}}),
        json!({"podSelector": {}, "newField": {}}),
        json!({"podSelector": {}, "policyTypes": ["Sideways"]}),
    ] {
        let read = network_policy(&spec);
        let Object::UnreadablePolicy(Some(lockdown)) = &read.object else {
            panic!("{spec}: {:?}", read.object)
        };
        let namespace = NamespaceName::new("shop").unwrap();
        assert_eq!(lockdown.scope, LockedScope::Namespace(namespace));
        assert!(lockdown.subject.is_everything());
        assert!(!read.errors.is_empty());
    }
}

fn cluster_policy(version: &str, spec: &Value) -> Converted {
    let object = json!({
        "apiVersion": format!("policy.networking.k8s.io/{version}"),
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "guard"},
        "spec": spec
    });
    converted(Kind::ClusterNetworkPolicies, object)
}

#[test]
fn both_versions_of_a_cluster_policy_are_read() {
    for version in ["v1beta1", "v1alpha2"] {
        let spec = json!({
            "tier": "Admin", "priority": 5, "subject": {"namespaces": {}},
            "ingress": [{"name": "all", "action": "Deny", "from": [{"namespaces": {}}]}]
        });
        let read = cluster_policy(version, &spec);
        assert_eq!(read.errors, Vec::<String>::new(), "{version}");
        assert_eq!(policy(&read).id().to_string(), "clusternetworkpolicy/guard");
    }
}

#[test]
fn of_a_denial_what_can_be_read_is_denied() {
    let near = json!({"namespaces": {"matchExpressions": [{"key": "a", "operator": "Near"}]}});
    let team = json!({"namespaces": {"matchLabels": {"team": "a"}}});
    let rule = |action: &str, peers: Value, protocols: Value| {
        let mut rule = json!({"name": "r", "action": action, "from": peers});
        if !protocols.is_null() {
            rule["protocols"] = protocols;
        }
        let spec = json!({
            "tier": "Admin", "priority": 5, "subject": {"namespaces": {}}, "ingress": [rule]
        });
        let read = cluster_policy("v1beta1", &spec);
        let rules = policy(&read).ingress.clone().unwrap();
        (rules[0].clone(), read.errors.len())
    };
    let tcp = json!([{"tcp": {"destinationPort": {"number": 80}}}]);
    let (whole, errors) = rule("Deny", json!([team]), tcp.clone());
    assert_eq!(errors, 0);
    for action in ["Deny", "Pass"] {
        let (read, errors) = rule(action, json!([near, team]), tcp.clone());
        assert_eq!((read.action, errors), (RuleAction::Deny, 1));
        assert_eq!((&read.peers, &read.ports), (&whole.peers, &whole.ports));
        let quic = json!([{"quic": {"destinationPort": {"number": 80}}}]);
        let (read, _) = rule(action, json!([team]), quic);
        assert_eq!((&read.peers, &read.ports), (&whole.peers, &Ports::Any));
        let (read, _) = rule(action, json!([near]), Value::Null);
        assert_eq!(
            (read.action, read.peers),
            (RuleAction::Deny, Peers::NoPeer),
            "nothing of it can be read"
        );
    }
    let (read, _) = rule("Accept", json!([near, team]), tcp);
    assert_eq!(
        (read.action, read.peers),
        (RuleAction::Allow, Peers::NoPeer)
    );
    let spec = json!({
        "tier": "Admin", "priority": 5, "subject": {"namespaces": {"newField": {}}},
        "ingress": [{"action": "Deny", "from": [team]}]
    });
    let read = cluster_policy("v1beta1", &spec);
    assert_eq!(read.object, Object::UnreadablePolicy(None));
}

#[test]
fn of_the_networks_of_a_denial_those_that_can_be_read_are_denied() {
    let rule = |action: &str, networks: Value| {
        let spec = json!({
            "tier": "Admin", "priority": 5, "subject": {"namespaces": {}},
            "egress": [{"action": action, "to": [{"networks": networks}]}]
        });
        let read = cluster_policy("v1beta1", &spec);
        policy(&read).egress.clone().unwrap()[0].clone()
    };
    let whole = rule("Deny", json!(["10.0.0.0/8"]));
    let partly = rule("Deny", json!(["10.0.0.0/8", "none"]));
    assert_ne!(whole.peers, Peers::NoPeer, "the control");
    assert_eq!(
        (partly.action, &partly.peers),
        (RuleAction::Deny, &whole.peers)
    );
    assert_eq!(
        rule("Accept", json!(["10.0.0.0/8", "none"])).peers,
        Peers::NoPeer
    );
}

#[test]
fn a_cluster_policy_with_too_many_rules_is_unreadable() {
    let rule = json!({"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}]});
    let with = |count: usize| {
        let spec = json!({
            "tier": "Admin", "priority": 5, "subject": {"namespaces": {}},
            "egress": vec![rule.clone(); count]
        });
        cluster_policy("v1beta1", &spec).object
    };
    assert!(matches!(with(2), Object::Policy(_)), "the control");
    assert_eq!(with(200), Object::UnreadablePolicy(None));
}

#[test]
fn nodes_and_ranges_of_services_name_ranges() {
    let nets = |texts: &[&str]| texts.iter().map(|it| it.parse().unwrap()).collect();
    let node = converted(
        Kind::Nodes,
        json!({
            "metadata": {"name": "n1"},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]}
        }),
    );
    assert_eq!(node.ranges, nets(&["10.244.1.0/24", "fd00:10:244:1::/64"]));
    let services = |cidrs: Value| {
        let spec = json!({"cidrs": cidrs});
        converted(
            Kind::ServiceCidrs,
            json!({"metadata": {"name": "kubernetes"}, "spec": spec}),
        )
    };
    let read = services(json!(["10.96.0.0/16", "fd00:10:96::/108"]));
    assert_eq!(read.key.to_string(), "ServiceCIDR kubernetes");
    assert_eq!(read.ranges, nets(&["10.96.0.0/16", "fd00:10:96::/108"]));
    assert_eq!(read.errors, Vec::<String>::new());
    let partly = services(json!(["10.96.0.0/16", "0.0.0.0/0"]));
    assert_eq!(partly.ranges, nets(&["10.96.0.0/16"]));
    assert_eq!(partly.errors, ["\"0.0.0.0/0\" is no range of a cluster"]);
    let not = services(json!(5));
    assert!(not.ranges.is_empty() && not.errors.len() == 1, "{not:?}");
}
