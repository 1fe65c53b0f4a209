//! Explanations of flows to Services.

use std::sync::Arc;

use super::*;
use crate::model::{Backend, Service, ServiceId, ServiceName, ServicePort};

const TO_API: &str = r#"
[[policy]]
name = "web"
namespace = "shop"
subject = "app=web"
[[policy.egress]]
to = [{ pods = "app=api" }]
ports = ["tcp/8080"]
"#;

fn of_service(backends: &[(&str, u16)], to: &str, port: &str) -> String {
    let mut inventory = built(INVENTORY);
    let backends = backends.iter().map(|(address, port)| Backend {
        address: address.parse().unwrap(),
        port: *port,
    });
    let id = ServiceId {
        namespace: "shop".parse().unwrap(),
        name: ServiceName::new("api").unwrap(),
    };
    let port_80 = ServicePort {
        protocol: 6,
        port: 80,
    };
    let service = Service {
        id: id.clone(),
        addresses: vec!["10.96.0.7".parse().unwrap()],
        ports: [(port_80, backends.collect())].into(),
    };
    inventory.services.insert(id, Arc::new(service));
    let query = Query {
        from: value::test_end("shop/web").unwrap(),
        to: value::test_end(to).unwrap(),
        port: value::test_port(port).unwrap(),
        family: None,
    };
    render(&explain(&inventory, &set(TO_API), NOW, &query, false).unwrap())
}

#[test]
fn a_service_is_explained_by_its_backends() {
    let text = of_service(&[("10.1.0.3", 8080)], "10.96.0.7", "tcp/80");
    let lines: Vec<&str> = text.lines().take(6).collect();
    assert_eq!(
        lines,
        [
            "shop/web (10.1.0.2) to Service shop/api (10.96.0.7), tcp/80: ALLOW",
            "as of 2026-10-01T00:00:00Z",
            "backends of shop/api at this port: 1",
            "  shop/api (10.1.0.3) at tcp/8080: egress allow by egress[0] of shop/web, ingress allow by \
             default-allow",
            "",
            "egress of shop/web: allow by egress[0] of shop/web",
        ]
    );
    let mixed = of_service(
        &[("10.1.0.3", 8080), ("10.1.0.4", 8080)],
        "10.96.0.7",
        "tcp/80",
    );
    for line in [
        "shop/web (10.1.0.2) to Service shop/api (10.96.0.7), tcp/80: DENY",
        "  lab/probe (10.1.0.4) at tcp/8080: egress deny by default-deny, ingress allow by default-allow",
        "egress of shop/web: deny by service-mixed",
    ] {
        assert!(mixed.lines().any(|it| it == line), "{line}: {mixed}");
    }
    let wrong_port = of_service(&[("10.1.0.3", 9090)], "10.96.0.7", "tcp/80");
    assert!(
        wrong_port.contains("egress of shop/web: deny by default-deny"),
        "{wrong_port}"
    );
    for nothing in [
        of_service(&[], "10.96.0.7", "tcp/80"),
        of_service(&[], "10.96.0.7", "tcp/81"),
    ] {
        assert!(
            nothing.contains("egress of shop/web: deny by default-deny"),
            "{nothing}"
        );
        assert!(
            nothing.contains("backends of shop/api at this port: 0"),
            "{nothing}"
        );
    }
    let direct = of_service(&[("10.1.0.3", 8080)], "10.1.0.3", "tcp/8080");
    assert!(!direct.contains("backends"), "{direct}");
}
