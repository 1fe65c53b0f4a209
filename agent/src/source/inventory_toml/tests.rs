//! The inventory language: a complete example, and each error with message and place.

use super::*;
use crate::model::Protocol;

fn refusal(text: &str) -> String {
    let errors = parse("i.toml", text).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

/// The error about one line of a workload, which is line 4.
fn workload_refusal(line: &str) -> String {
    refusal(&format!(
        "[[workload]]\nname = \"a\"\nnamespace = \"shop\"\n{line}"
    ))
}

#[test]
fn a_complete_example() {
    let text = r#"
[[namespace]]
name = "shop"
labels = { env = "prod" }

[[workload]]
name = "orders-1"
namespace = "shop"
labels = { app = "orders" }
service-account = "orders"
addresses = ["10.1.0.3", "fd00:1::3"]
ports = { http = "tcp/8080", dns = ["tcp/53", "udp/53"] }
interface = "veth-orders"

[[node]]
name = "node-1"
addresses = ["10.0.0.1", "fd00::1"]
local = true
"#;
    let fragment = parse("i.toml", text).unwrap();
    assert_eq!(
        fragment.namespaces[0].item.labels().get("env"),
        Some("prod")
    );
    assert_eq!(
        (fragment.namespaces[0].line, fragment.workloads[0].line),
        (2, 6)
    );
    let workload = &fragment.workloads[0].item;
    assert_eq!(workload.id.to_string(), "shop/orders-1");
    assert_eq!(workload.interface.as_deref(), Some("veth-orders"));
    assert_eq!(workload.ports.len(), 3);
    assert!(workload.ports.iter().any(|port| {
        port.name.as_str() == "http" && port.protocol == Protocol::Tcp && port.port == 8080
    }));
    assert!(fragment.nodes[0].item.local);
}

#[test]
fn defaults() {
    let text = "[[workload]]\nname = \"a\"\nnamespace = \"b\"\n[[node]]\nname = \"n\"";
    let fragment = parse("i.toml", text).unwrap();
    let workload = &fragment.workloads[0].item;
    assert_eq!(workload.service_account.as_str(), "default");
    assert_eq!(
        (workload.addresses.len(), workload.is_endpoint()),
        (0, false)
    );
    assert!(!fragment.nodes[0].item.local);
    assert_eq!(parse("i.toml", "").unwrap(), InventoryFragment::default());
}

#[test]
fn errors_name_the_place_and_what_was_expected() {
    for (line, message) in [
        (
            "addresses = [\"10.0.0.1\", \"10.0.0\"]",
            "4:26: \"10.0.0\" is not an address: expected for example 10.1.0.3 or fd00:1::3",
        ),
        (
            "addresses = [\"127.0.0.1\"]",
            "4:14: address 127.0.0.1 is loopback: expected a unicast address of its own",
        ),
        (
            "ports = { http = \"tcp/1-2\" }",
            "4:18: \"tcp/1-2\" is not one port: expected for example tcp/8080",
        ),
        (
            "ports = { http = 80 }",
            "4:18: a declared port is text: expected for example \"tcp/8080\" or [\"tcp/53\", \
             \"udp/53\"]",
        ),
        (
            "ports = { dns = [\"tcp/53\", \"tcp/54\"] }",
            "4:17: port dns is declared twice for tcp: expected one port for each name and \
             protocol",
        ),
        (
            "ports = { Http = \"tcp/80\" }",
            "4:11: \"Http\" is not a port name: expected 1 to 15 lower-case letters, digits or \
             single '-' inside, with at least one letter",
        ),
        (
            "labels = { app = \"-\" }",
            "4:18: \"-\" is not a label value: expected at most 63 letters, digits, '-', '_' or \
             '.', starting and ending with a letter or digit",
        ),
        (
            "interface = \"a b\"",
            "4:13: \"a b\" is not an interface name: expected 1 to 127 bytes without '/', ':', \
             spaces or control characters, and not \".\" or \"..\"",
        ),
    ] {
        assert_eq!(
            workload_refusal(line),
            format!("i.toml:{message}"),
            "{line}"
        );
    }
    assert!(workload_refusal("labels = { \"a/b/c\" = \"\" }").contains(":4:12: \"a/b/c\" is not"));
    assert!(workload_refusal("labels = { a = 1 }").contains(":4:16: invalid type: integer"));
    assert!(workload_refusal("mode = 1").starts_with("i.toml:4:1: unknown field `mode`"));
    assert!(workload_refusal("service-account = \"\"").contains("not a service account name"));
    assert!(refusal("[[node]]\nname = \"N\"").contains(":2:8: \"N\" is not a node name"));
    assert!(refusal("[[namespace]]\nname = \"a\\u202e\"").contains("\"a\\u{202e}\" is not a"));
}

#[test]
fn the_name_label_of_a_namespace_must_be_its_name() {
    let text = "[[namespace]]\nname = \"a\"\nlabels = { \"kubernetes.io/metadata.name\" = \"b\" }";
    assert!(refusal(text).starts_with("i.toml:2:8: namespace a has the label"));
}
