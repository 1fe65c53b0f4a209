//! Which keys can be combined, and policies of the cluster tiers.

use super::*;

#[test]
fn keys_that_cannot_be_combined_are_refused() {
    for (key, value) in [
        ("tier", "\"admin\""),
        ("priority", "100"),
        ("subject-namespaces", "\"\""),
    ] {
        let column = key.len() + 4;
        assert_eq!(
            refusal(&with_head(&format!("{key} = {value}"))),
            format!(
                "p.toml:5:{column}: {key} on a namespaced policy: expected scope = \"cluster\" \
                 instead of namespace, or no {key}"
            )
        );
    }
    assert_eq!(
        refusal(&with_head("scope = \"cluster\"")),
        "p.toml:5:9: scope together with namespace: expected one of the two"
    );
    assert_eq!(
        refusal(&with_head("host-ingress = \"kubelet\"")),
        "p.toml:5:16: host-ingress is not supported: it needs the fence around host processes, \
         which this version does not have; expected a policy without host-ingress"
    );
    assert_eq!(
        rule_refusal("action = \"pass\""),
        "p.toml:6:10: pass outside the admin tier: expected allow, deny or reject"
    );
    assert_eq!(
        rule_refusal("action = \"drop\""),
        "p.toml:6:10: unknown action \"drop\": expected allow, deny, reject or pass"
    );
}

fn cluster(keys: &str) -> String {
    format!("[[policy]]\nname = \"p\"\nscope = \"cluster\"\nsubject = \"\"\n{keys}\n")
}

#[test]
fn a_cluster_policy_needs_a_tier_and_a_priority() {
    for (keys, message) in [
        (
            "priority = 1",
            "p.toml:1:1: a cluster policy without tier: expected tier = \"admin\" or tier = \"baseline\"",
        ),
        (
            "tier = \"admin\"",
            "p.toml:1:1: a cluster policy without priority: expected priority = 0 to 1000, lower is evaluated first",
        ),
        (
            "tier = \"first\"\npriority = 1",
            "p.toml:5:8: unknown tier \"first\": expected admin or baseline",
        ),
        (
            "tier = \"admin\"\npriority = 1001",
            "p.toml:6:12: priority 1001 is out of range: expected 0 to 1000",
        ),
        (
            "tier = \"admin\"\npriority = -1",
            "p.toml:6:12: priority -1 is out of range: expected 0 to 1000",
        ),
        (
            "tier = \"baseline\"\npriority = 1\n[[policy.ingress]]\naction = \"pass\"",
            "p.toml:8:10: pass outside the admin tier: expected allow, deny or reject",
        ),
    ] {
        assert_eq!(refusal(&cluster(keys)), message, "{keys}");
    }
    assert_eq!(
        refusal(&cluster("").replace("\"cluster\"", "\"node\"")),
        "p.toml:3:9: unknown scope \"node\": expected scope = \"cluster\" or namespace = \"…\""
    );
}

#[test]
fn a_cluster_policy_applies_to_every_namespace_without_subject_namespaces() {
    let keys = "tier = \"admin\"\npriority = 0\nsubject-namespaces = \"env=prod\"\n\
                [[policy.ingress]]\naction = \"pass\"\nfrom = [{ pods = \"app=a\" }]\n\
                [[policy.ingress]]\naction = \"reject\"\n";
    let policy = parse("p.toml", &cluster(keys)).unwrap().policies.remove(0);
    let scope = |namespaces: &str| Scope::Cluster {
        tier: Tier::Admin,
        priority: Priority::new(0).unwrap(),
        namespaces: namespaces.parse().unwrap(),
    };
    assert_eq!(policy.scope, scope("env=prod"));
    assert_eq!(policy.id().to_string(), "p");
    let rules = policy.ingress.as_ref().unwrap();
    assert_eq!(
        [rules[0].action, rules[1].action],
        [RuleAction::Pass, RuleAction::Reject]
    );
    let everywhere = NamespaceMatch::Selector(LabelSelector::everything());
    assert!(
        matches!(&rules[0].peers, Peers::Of(peers) if matches!(&peers[0],
            Peer::Workloads { namespaces, .. } if *namespaces == everywhere))
    );
    let wide = parse("p.toml", &cluster("tier = \"admin\"\npriority = 0"))
        .unwrap()
        .policies
        .remove(0);
    assert_eq!(wide.scope, scope(""));
}
