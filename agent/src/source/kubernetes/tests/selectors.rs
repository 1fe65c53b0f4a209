//! `LabelSelector` and `metadata`.

use super::*;

fn subject(selector: &str) -> LabelSelector {
    one(&network_policy(&format!("podSelector: {selector}"))).subject
}

#[track_caller]
fn selector_refusal(selector: &str) -> String {
    let refusal = refusal(&network_policy(&format!("podSelector: {selector}")));
    let (_, message) = refusal.split_once(": NetworkPolicy shop/p: ").unwrap();
    message.to_owned()
}

#[test]
fn selectors() {
    let cases = [
        ("{}", ""),
        ("{matchLabels: null, matchExpressions: null}", ""),
        ("{matchLabels: {}, matchExpressions: []}", ""),
        ("{matchLabels: {a: b, c: \"\"}}", "a=b,c="),
        (
            "{matchExpressions: [{key: a, operator: In, values: [b, c]}]}",
            "a in (b,c)",
        ),
        (
            "{matchExpressions: [{key: a, operator: NotIn, values: [\"\"]}]}",
            "a!=",
        ),
        ("{matchExpressions: [{key: a, operator: Exists}]}", "a"),
        (
            "{matchExpressions: [{key: a, operator: DoesNotExist, values: []}]}",
            "!a",
        ),
        (
            "{matchLabels: {k8s.io/x: \"yes\"}, matchExpressions: [{key: b, operator: Exists, \
             values: null}]}",
            "b,k8s.io/x=yes",
        ),
    ];
    for (selector, expected) in cases {
        assert_eq!(subject(selector), labels(expected), "{selector}");
    }
}

#[test]
fn selectors_that_are_refused() {
    let expression = |rest: &str| {
        selector_refusal(&format!(
            "{{matchExpressions: [{{key: a, operator: {rest}}}]}}"
        ))
    };
    assert_eq!(expression("In"), "In without values: expected at least one");
    assert_eq!(
        expression("NotIn, values: []"),
        "NotIn without values: expected at least one"
    );
    assert_eq!(
        expression("Exists, values: [b]"),
        "Exists with values: expected none"
    );
    assert_eq!(
        expression("DoesNotExist, values: [b]"),
        "DoesNotExist with values: expected none"
    );
    assert_eq!(
        expression("Equals, values: [b]"),
        "unknown operator \"Equals\": expected In, NotIn, Exists or DoesNotExist"
    );
    assert_eq!(
        expression("In, values: [80]"),
        "a label value is a number: expected text, in quotes if need be"
    );
    assert_eq!(
        expression("Exists, value: b"),
        "unknown field \"value\" in a match expression: expected key, operator, values"
    );
    assert_eq!(
        selector_refusal("{matchExpressions: [{operator: Exists}]}"),
        "a match expression without key or operator: expected both"
    );
    assert_eq!(
        selector_refusal("{matchLabels: {a: yes}}"),
        "a label value is a boolean: expected text, in quotes if need be"
    );
    assert_eq!(
        selector_refusal("{matchLabels: [a]}"),
        "matchLabels is a list: expected labels, as in {app: web}"
    );
    assert!(selector_refusal("{matchLabels: {a: b/c}}").contains("is not a label value"));
    assert!(selector_refusal("{matchLabels: {a/b/c: x}}").contains("is not a label key"));
    assert_eq!(
        selector_refusal("{app: web}"),
        "unknown field \"app\" in podSelector: expected matchLabels, matchExpressions"
    );
}

#[test]
fn all_fields_of_object_meta_are_accepted() {
    let text = network_policy("podSelector: {}").replace(
        "  name: p\n",
        "  name: p\n  uid: 0a\n  resourceVersion: \"7\"\n  generation: 3\n  \
         creationTimestamp: 2026-01-01T00:00:00Z\n  finalizers: [a]\n  ownerReferences: []\n  \
         managedFields:\n  - fieldsV1: {\"f:spec\": {\"f:podSelector\": {}}}\n  generateName: p-\n",
    );
    assert_eq!(one(&text).id().to_string(), "networkpolicy/shop/p");
}

#[test]
fn metadata_that_is_refused() {
    let with = |metadata: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {metadata}\nspec: \
             {{podSelector: {{}}}}\n"
        )
    };
    let annotation = |text: &str| {
        let metadata = format!("{{name: p, annotations: {{ringfence.io/{text}}}}}");
        refusal(&with(&metadata))
    };
    assert_eq!(
        refusal(&with("{name: p, nmespace: x}")),
        "k.yaml:3:21: NetworkPolicy default/p: unknown field \"nmespace\" in metadata: expected \
         name, namespace, annotations, labels, generateName, uid, resourceVersion, generation, \
         creationTimestamp, deletionTimestamp, deletionGracePeriodSeconds, managedFields, \
         ownerReferences, finalizers, selfLink"
    );
    assert_eq!(
        refusal(&with("{namespace: x}")),
        "k.yaml:3:11: NetworkPolicy \"x/(without name)\": metadata without name: expected a name"
            .replace('"', "")
    );
    assert!(refusal(&with("{name: P}")).contains("\"P\" is not a policy name"));
    assert!(refusal(&with("{name: p, namespace: a.b}")).contains("is not a namespace name"));
    assert_eq!(
        refusal(&with("null")),
        "k.yaml:1:1: NetworkPolicy default/(without name): metadata is missing: expected metadata \
         with a name"
    );
    assert_eq!(
        annotation("review-by: soon"),
        "k.yaml:3:59: NetworkPolicy default/p: bad day \"soon\": expected for example 2027-02-01"
    );
    assert_eq!(
        annotation("owner: \"a\\u202eb\""),
        "k.yaml:3:55: NetworkPolicy default/p: the text contains \\u{202e}: expected no control, \
         bidirectional or zero-width characters"
    );
    assert!(annotation("owner: \"a\\0b\"").contains("the text contains \\u{0}"));
    assert_eq!(
        annotation(&format!("ticket: {}", "x".repeat(1001))),
        "k.yaml:3:56: NetworkPolicy default/p: the text has 1001 characters: expected at most 1000"
    );
    assert!(annotation("owner: 7").contains("ringfence.io/owner is a number: expected text"));
}
