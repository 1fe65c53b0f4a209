//! What files may contain: every language, the examples, and nothing special or large.

use super::*;

#[test]
fn the_example_files_load() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let (set, reload) = Files::load_strict(
        vec![examples.join("inventory.toml")],
        vec![examples.join("shop.toml")],
    )
    .unwrap();
    assert_eq!(reload.warnings, []);
    assert_eq!(
        (
            set.inventory().workloads.len(),
            set.inventory().namespaces.len()
        ),
        (6, 2)
    );
    let names: Vec<_> = set
        .policies()
        .iter()
        .map(|policy| policy.name.to_string())
        .collect();
    assert_eq!(
        names,
        [
            "default",
            "frontend",
            "no-test-systems",
            "orders",
            "orders-db",
            "payments"
        ]
    );
    assert!(
        set.policies()
            .iter()
            .all(|policy| policy.about.owner.is_some())
    );
}

#[test]
fn a_directory_can_hold_policies_of_every_language() {
    let network_policy = |name: &str, spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, \
             namespace: shop}}\nspec: {spec}\n"
        )
    };
    let good = "{podSelector: {}}";
    let mut setup = Setup::new(&[
        ("i/a.toml", SHOP),
        ("p/a.toml", &policy("a", "")),
        ("p/a.yaml", &network_policy("a", good)),
        ("p/b.yml", &network_policy("b", good)),
        ("p/notes.md", "not a policy"),
    ]);
    let names = ["shop/a", "networkpolicy/shop/a", "networkpolicy/shop/b"];
    assert_eq!(setup.names(), names);
    // A bad file keeps its last good content, the others are updated.
    setup.write("p/a.yaml", &network_policy("a", "{podSelectors: {}}"));
    setup.write("p/a.toml", &policy("c", ""));
    assert_eq!(
        setup.refusal(),
        "p/a.yaml:4:8: NetworkPolicy shop/a: unknown field \"podSelectors\" in spec: expected \
         podSelector, policyTypes, ingress, egress"
    );
    let names = ["shop/c", "networkpolicy/shop/a", "networkpolicy/shop/b"];
    assert_eq!(setup.names(), names);
    // Names are unique per language and namespace, across files.
    setup.write("p/a.yaml", &network_policy("b", good));
    let refusal = setup.refusal();
    assert!(
        refusal.contains("policy networkpolicy/shop/b at")
            && refusal.contains("is already declared at"),
        "{refusal}"
    );
    assert_eq!(setup.names(), names);
}

#[test]
fn special_files_and_large_files_are_refused() {
    let mut setup = Setup::new(&[("i/a.toml", SHOP)]);
    let fifo = setup.path("p/fifo.toml");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(setup.refusal().contains("not a regular file"));
    fs::remove_file(fifo).unwrap();
    setup.write("p/large.toml", &"#".repeat(8 * 1024 * 1024 + 1));
    assert_eq!(
        setup.refusal(),
        "p/large.toml: the file is too large: expected at most 768 KiB, split it"
    );
}
