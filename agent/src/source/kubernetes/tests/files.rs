//! Files with several documents, lists, unsupported kinds and bad YAML, and objects of the API.

use super::*;

fn policy(name: &str) -> String {
    network_policy("podSelector: {}").replace("name: p", &format!("name: {name}"))
}

fn ids(fragment: &PolicyFragment) -> Vec<String> {
    let policies = fragment.policies.iter();
    policies.map(|policy| policy.id().to_string()).collect()
}

#[test]
fn several_documents_and_empty_ones() {
    let text = format!(
        "# two\n---\n{}---\n---\n# none\n---\n{}...\n",
        policy("a"),
        policy("b")
    );
    let fragment = parsed(&text);
    assert_eq!(
        ids(&fragment),
        ["networkpolicy/shop/a", "networkpolicy/shop/b"]
    );
    let lines: Vec<u32> = fragment
        .policies
        .iter()
        .map(|policy| policy.origin.line)
        .collect();
    assert_eq!(lines, [3, 14]);
    for empty in ["", "\n", "---\n", "# only words\n", "--- null\n"] {
        assert_eq!(parsed(empty), PolicyFragment::default(), "{empty:?}");
    }
}

#[test]
fn lists() {
    let item = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a}, spec: \
                {podSelector: {}}}";
    let text = format!("apiVersion: v1\nkind: List\nmetadata: {{}}\nitems: [{item}]\n");
    assert_eq!(ids(&parsed(&text)), ["networkpolicy/default/a"]);
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n- metadata: \
                {name: a}\n  spec: {podSelector: {}}\n";
    assert_eq!(ids(&parsed(text)), ["networkpolicy/default/a"]);
    let text = format!(
        "apiVersion: {CLUSTER_API}\nkind: ClusterNetworkPolicyList\nitems:\n- metadata: {{name: \
         a}}\n  spec: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}}}\n"
    );
    assert_eq!(ids(&parsed(&text)), ["clusternetworkpolicy/a"]);
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List, items: []}\n";
    assert_eq!(
        refusal(text),
        "k.yaml:4:3: a list: nested in another list: expected objects as its items"
    );
}

#[test]
fn json_is_parsed_as_yaml() {
    let text = "{\n\t\"apiVersion\": \"networking.k8s.io/v1\", \"kind\": \"NetworkPolicy\",\n\t\
                \"metadata\": {\"name\": \"a\", \"namespace\": \"shop\"},\n\t\"spec\": \
                {\"podSelector\": {}, \"ingress\": [{\"ports\": [{\"port\": 80}]}]}\n}\n";
    assert_eq!(ids(&parsed(text)), ["networkpolicy/shop/a"]);
}

#[test]
fn unsupported_kinds_are_refused() {
    let refusal_of = |api: &str, kind: &str| {
        refusal(&format!(
            "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\n"
        ))
    };
    assert_eq!(
        refusal_of("extensions/v1beta1", "NetworkPolicy"),
        "k.yaml:1:1: \"NetworkPolicy\" \"a\" of \"extensions/v1beta1\" is not supported: expected \
         apiVersion: networking.k8s.io/v1"
    );
    let v1alpha1 = "policy.networking.k8s.io/v1alpha1";
    assert!(refusal_of(v1alpha1, "AdminNetworkPolicy").ends_with(
        "expected kind: ClusterNetworkPolicy of apiVersion: policy.networking.k8s.io/v1alpha2 \
         with tier: Admin"
    ));
    assert!(refusal_of(v1alpha1, "BaselineAdminNetworkPolicy").ends_with("with tier: Baseline"));
    assert!(
        refusal_of(v1alpha1, "ClusterNetworkPolicy")
            .ends_with("expected apiVersion: policy.networking.k8s.io/v1alpha2 and its fields")
    );
    assert!(refusal_of("v1", "ConfigMap").ends_with(
        "expected NetworkPolicy of networking.k8s.io/v1 or ClusterNetworkPolicy of \
         policy.networking.k8s.io/v1alpha2"
    ));
    assert_eq!(
        refusal("kind: NetworkPolicy\n"),
        "k.yaml:1:1: not a Kubernetes object: expected apiVersion and kind"
    );
    assert_eq!(
        refusal("just text\n"),
        "k.yaml:1:1: not a Kubernetes object: expected apiVersion and kind"
    );
}

#[test]
fn the_errors_of_every_object_are_reported() {
    let text = format!(
        "{}---\nbroken: [1\n---\n{}---\n{}",
        policy("a").replace("podSelector", "podSelektor"),
        policy("b").replace(
            "podSelector: {}",
            "podSelector: {}\n  ingress: 1\n  egress: 2"
        ),
        policy("c"),
    );
    let refusals = refusals(&text);
    let heads: Vec<&str> = refusals.iter().map(|line| &line[..36]).collect();
    assert_eq!(
        heads,
        [
            "k.yaml:7:3: NetworkPolicy shop/a: un",
            "k.yaml:9:9: not YAML: unclosed brack",
            "k.yaml:18:12: NetworkPolicy shop/b: ",
            "k.yaml:19:11: NetworkPolicy shop/b: ",
        ],
        "{refusals:#?}"
    );
}

#[test]
fn duplicate_keys_merge_keys_and_tags_are_refused() {
    assert_eq!(
        refusals(&policy("a").replace("kind:", "kind: x\nkind:"))[0],
        "k.yaml:3:1: key \"kind\" is already given in line 2: expected each key once"
    );
    assert_eq!(
        refusals("a: &a {b: c}\nd:\n  <<: *a\n")[0],
        "k.yaml:3:3: a merge key: expected the merged fields themselves"
    );
    assert_eq!(
        refusal("a: !!binary aGk=\n"),
        "k.yaml:1:13: tag \"!!binary\": expected no tags"
    );
    assert_eq!(
        refusal("? [a]\n: b\n"),
        "k.yaml:1:3: a list as a key: expected text, in quotes if need be"
    );
    assert_eq!(
        refusal("1: b\n"),
        "k.yaml:1:1: a number as a key: expected text, in quotes if need be"
    );
}

#[test]
fn aliases_are_expanded() {
    let text = network_policy(
        "podSelector: &web {matchLabels: {app: web}}\ningress: [{from: [{podSelector: *web}]}]",
    );
    let policy = one(&text);
    assert_eq!(policy.subject, labels("app=web"));
    assert_eq!(
        refusal("a: &a [*a]\n"),
        "k.yaml:1:8: an alias inside its own anchor: expected the value itself"
    );
}

#[test]
fn objects_of_the_api_are_converted() {
    let mut json = serde_json::json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "a", "namespace": "shop", "uid": "1"},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]},
    });
    let read = read_object("api", &json);
    assert_eq!(
        read.policy.unwrap().id().to_string(),
        "networkpolicy/shop/a"
    );
    assert_eq!((read.errors, read.warnings), (vec![], vec![]));
    json["spec"]["ingress"][0]["ports"][0]["port"] = 65_536.into();
    let read = read_object("api", &json);
    assert_eq!(
        read.errors[0].to_string(),
        "api: NetworkPolicy shop/a: port is 65536: expected 1 to 65535"
    );
    // The rule allows nothing, and the pods stay isolated.
    assert_eq!(read.policy.unwrap().ingress, Some(vec![]));
}
