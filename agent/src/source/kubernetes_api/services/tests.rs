use std::net::IpAddr;

use serde_json::{Value, json};

use super::*;
use crate::model::NodeName;
use crate::source::kubernetes_api::object::{Key, Kind, Object, convert};

fn take(services: &mut Services, kind: Kind, mut value: Value) -> Vec<String> {
    let node = NodeName::new("n1").unwrap();
    let converted = convert(kind, &node, &mut value).unwrap();
    match (converted.key, converted.object) {
        (Key::Service(id), Object::Service(object)) => services.set(&id, Some(object)),
        (Key::EndpointSlice(id), Object::EndpointSlice(slice)) => {
            services.set_slice(&id, Some(slice));
        }
        other => panic!("{other:?}"),
    }
    converted.errors
}

fn service(spec: &Value) -> Value {
    json!({"metadata": {"name": "db", "namespace": "shop", "uid": "u"}, "spec": spec})
}

fn plain() -> Value {
    service(&json!({
        "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7", "fd96::7"],
        "ports": [
            {"name": "sql", "port": 5432, "targetPort": "sql"},
            {"name": "metrics", "port": 80, "protocol": "TCP"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ],
    }))
}

fn slice(name: &str, ports: &Value, endpoints: &Value) -> Value {
    json!({
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": "s",
            "labels": {"kubernetes.io/service-name": "db", "bad label": "-"},
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    })
}

fn sql() -> Value {
    json!([{"name": "sql", "port": 15432, "protocol": "TCP"}])
}

fn endpoint(address: &str, conditions: &Value) -> Value {
    json!({"addresses": [address], "conditions": conditions, "nodeName": "n1"})
}

/// The backends of each port, as `protocol/port=address:port,…`.
fn shown(services: &mut Services) -> Vec<String> {
    let all = services.all();
    let ports = all.values().flat_map(|it| &it.ports);
    ports
        .map(|(port, backends)| {
            let backends = backends
                .iter()
                .map(|it| format!("{}:{}", it.address, it.port));
            let backends = backends.collect::<Vec<_>>().join(",");
            format!("{}/{}={backends}", port.protocol, port.port)
        })
        .collect()
}

#[test]
fn a_port_has_the_endpoints_of_its_name_and_protocol_at_their_ports() {
    let mut services = Services::default();
    assert!(take(&mut services, Kind::Services, plain()).is_empty());
    assert_eq!(
        shown(&mut services),
        ["6/80=", "6/5432=", "17/53="],
        "no slice yet"
    );
    let ports = json!([
        {"name": "sql", "port": 15432, "protocol": "TCP"},
        {"name": "dns", "port": 5353, "protocol": "TCP"},
        {"name": "metrics", "port": 9000},
        {"name": "sql", "port": null},
    ]);
    let endpoints = json!([
        endpoint("10.0.0.1", &json!({"ready": true})),
        endpoint("10.0.0.2", &json!({})),
        endpoint("fd00::2", &json!({"ready": null})),
        {"addresses": []},
    ]);
    let listed = take(
        &mut services,
        Kind::EndpointSlices,
        slice("a", &ports, &endpoints),
    );
    assert!(listed.is_empty(), "{listed:?}");
    assert_eq!(
        shown(&mut services),
        [
            "6/80=10.0.0.1:9000,10.0.0.2:9000,fd00::2:9000",
            "6/5432=10.0.0.1:15432,10.0.0.2:15432,fd00::2:15432",
            "17/53=",
        ]
    );
    let all = services.all();
    let db = all.values().next().unwrap();
    let addresses: Vec<String> = db.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.96.0.7", "fd96::7"]);
}

#[test]
fn endpoints_that_end_get_connections_only_if_none_is_ready() {
    let mut services = Services::default();
    take(&mut services, Kind::Services, plain());
    let not_ready = json!({"ready": false});
    let ending = json!({"ready": false, "serving": true, "terminating": true});
    let ready = json!({"ready": true});
    for (endpoints, expected) in [
        (json!([endpoint("10.0.0.1", &not_ready)]), ""),
        (
            json!([
                endpoint("10.0.0.1", &not_ready),
                endpoint("10.0.0.2", &ending)
            ]),
            "10.0.0.2:15432",
        ),
        (
            json!([endpoint("10.0.0.2", &ending), endpoint("10.0.0.3", &ready)]),
            "10.0.0.3:15432",
        ),
    ] {
        take(
            &mut services,
            Kind::EndpointSlices,
            slice("a", &sql(), &endpoints),
        );
        let of_sql = format!("6/5432={expected}");
        assert!(shown(&mut services).contains(&of_sql), "{of_sql}");
    }
    // In each family by itself.
    let endpoints = json!([endpoint("fd00::1", &ending)]);
    take(
        &mut services,
        Kind::EndpointSlices,
        slice("b", &sql(), &endpoints),
    );
    let of_sql = "6/5432=10.0.0.3:15432,fd00::1:15432".to_owned();
    assert!(shown(&mut services).contains(&of_sql));
}

#[test]
fn a_local_service_has_the_endpoints_of_this_node() {
    let mut spec = plain();
    spec["spec"]["internalTrafficPolicy"] = json!("Local");
    let elsewhere = json!({"addresses": ["10.0.0.9"], "nodeName": "n2"});
    let endpoints = json!([elsewhere, endpoint("10.0.0.1", &json!({}))]);
    for (object, expected) in [
        (plain(), "6/5432=10.0.0.1:15432,10.0.0.9:15432"),
        (spec, "6/5432=10.0.0.1:15432"),
    ] {
        let mut services = Services::default();
        take(&mut services, Kind::Services, object);
        take(
            &mut services,
            Kind::EndpointSlices,
            slice("a", &sql(), &endpoints),
        );
        assert!(shown(&mut services).contains(&expected.to_owned()));
    }
}

#[test]
fn services_without_an_address_are_none() {
    for spec in [
        json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "example.org", "clusterIP": "10.96.0.9"}),
        json!({"ports": [{"port": 80}]}),
        json!({}),
    ] {
        let mut services = Services::default();
        assert!(take(&mut services, Kind::Services, service(&spec)).is_empty());
        assert!(services.all().is_empty(), "{spec}");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_allows_nothing() {
    let mut services = Services::default();
    let spec = json!({
        "clusterIP": "10.96.0.7",
        "ports": [{"port": 80, "protocol": "QUIC\u{1b}"}, {"port": 81}, {"port": 0}, {}],
    });
    let errors = take(&mut services, Kind::Services, service(&spec));
    let expected = [r#"unknown protocol "QUIC\u{1b}" of a port"#, "0 is no port"];
    assert_eq!(errors, expected);
    assert_eq!(shown(&mut services), ["6/81="]);
    let errors = take(
        &mut services,
        Kind::Services,
        service(&json!({"clusterIPs": ["x"]})),
    );
    assert_eq!(errors, [r#""x" is no address"#]);
    let errors = take(
        &mut services,
        Kind::Services,
        service(&json!({"ports": "80"})),
    );
    assert_eq!(errors.len(), 1);
    let broken = slice("a", &json!("none"), &json!([]));
    assert_eq!(take(&mut services, Kind::EndpointSlices, broken).len(), 1);
}

#[test]
fn an_endpoint_that_cannot_be_read_is_one_that_no_rule_allows() {
    let ready = json!({"ready": true});
    let good = slice("a", &sql(), &json!([endpoint("10.0.0.1", &ready)]));
    let of_type = |kind: &str, endpoints: Value| {
        let mut slice = slice("b", &sql(), &endpoints);
        slice["addressType"] = json!(kind);
        slice
    };
    let no_port = json!([{"name": "sql", "port": 70000}]);
    let other_port = json!([{"name": "sql", "port": 15432}, {"name": "z", "port": 70000}]);
    let one = json!([endpoint("10.0.0.2", &ready)]);
    for (other, expected, errors) in [
        // The control.
        (slice("b", &sql(), &one), "10.0.0.1:15432,10.0.0.2:15432", 0),
        (
            slice("b", &other_port, &one),
            "10.0.0.1:15432,10.0.0.2:15432",
            1,
        ),
        (slice("b", &no_port, &one), "0.0.0.0:0,10.0.0.1:15432", 1),
        (
            slice("b", &json!("x"), &one),
            "0.0.0.0:0,10.0.0.1:15432,:::0",
            1,
        ),
        (
            of_type("IPv4", json!([endpoint("10.0.0.2.3", &ready)])),
            "0.0.0.0:15432,10.0.0.1:15432",
            1,
        ),
        (
            of_type("IPv6", json!([endpoint("fd00::x", &ready)])),
            "10.0.0.1:15432,:::15432",
            1,
        ),
        // As Kubernetes reads them.
        (
            of_type("IPv4", json!([endpoint("010.000.0.09", &ready)])),
            "10.0.0.1:15432,10.0.0.9:15432",
            0,
        ),
        (
            of_type("IPv4", json!([endpoint("::ffff:10.0.0.9", &ready)])),
            "10.0.0.1:15432,10.0.0.9:15432",
            0,
        ),
        (
            of_type("FQDN", json!([endpoint("db.example.org", &ready)])),
            "10.0.0.1:15432",
            0,
        ),
    ] {
        let mut services = Services::default();
        take(&mut services, Kind::Services, plain());
        take(&mut services, Kind::EndpointSlices, good.clone());
        let found = take(&mut services, Kind::EndpointSlices, other.clone());
        assert_eq!(found.len(), errors, "{found:?}");
        let of_sql = format!("6/5432={expected}");
        let shown = shown(&mut services);
        assert!(shown.contains(&of_sql), "{of_sql}: {shown:?}");
    }
    let spec = json!({"clusterIP": "10.096.0.7", "ports": [{"port": 80}]});
    let mut services = Services::default();
    take(&mut services, Kind::Services, service(&spec));
    let all = services.all();
    assert_eq!(
        all.values().next().unwrap().addresses,
        ["10.96.0.7".parse::<IpAddr>().unwrap()]
    );
}

#[test]
fn ports_beyond_the_limit_are_left_out() {
    let ports: Vec<Value> = (1..=150).map(|port| json!({"port": port})).collect();
    let mut services = Services::default();
    let spec = json!({"clusterIP": "10.96.0.7", "ports": ports});
    assert_eq!(take(&mut services, Kind::Services, service(&spec)).len(), 1);
    assert_eq!(shown(&mut services).len(), 100);
}

#[test]
fn the_order_in_which_objects_come_and_go_is_no_matter() {
    let endpoints = json!([endpoint("10.0.0.1", &json!({}))]);
    let objects = [
        (Kind::Services, plain()),
        (Kind::EndpointSlices, slice("a", &sql(), &endpoints)),
        (
            Kind::EndpointSlices,
            slice("b", &sql(), &json!([endpoint("10.0.0.2", &json!({}))])),
        ),
    ];
    let expected = "6/5432=10.0.0.1:15432,10.0.0.2:15432".to_owned();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let mut services = Services::default();
        for place in order {
            let (kind, value) = objects[place].clone();
            take(&mut services, kind, value);
            services.all();
        }
        assert!(shown(&mut services).contains(&expected), "{order:?}");
        let gone = SliceId {
            namespace: "shop".parse().unwrap(),
            name: "b".parse().unwrap(),
        };
        services.set_slice(&gone, None);
        assert!(shown(&mut services).contains(&"6/5432=10.0.0.1:15432".to_owned()));
        // A slice that goes to another Service leaves the one that it had.
        let mut moved = slice("a", &sql(), &endpoints);
        moved["metadata"]["labels"]["kubernetes.io/service-name"] = json!("other");
        take(&mut services, Kind::EndpointSlices, moved);
        assert!(shown(&mut services).contains(&"6/5432=".to_owned()));
        let before = services.all();
        take(&mut services, Kind::Services, plain());
        assert!(
            services.all().is_same(&before),
            "what is as it was is no change"
        );
        services.set(
            &"shop/db"
                .parse::<crate::model::WorkloadId>()
                .map(|it| ServiceId {
                    namespace: it.namespace,
                    name: "db".parse().unwrap(),
                })
                .unwrap(),
            None,
        );
        assert!(services.all().is_empty());
        assert!(services.of.len() <= 1, "only what the slices say");
    }
}
