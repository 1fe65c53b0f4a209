//! The configuration's defaults, keys and errors.

use super::*;
use crate::source::kubernetes_api::PodRanges;

fn parse(text: &str) -> Result<Config, Vec<SourceError>> {
    Config::parse("ringfence.toml", text, Path::new("/etc/ringfence"))
}

fn refusal(text: &str) -> String {
    let errors = parse(text).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

#[test]
fn an_empty_file_is_the_default_configuration() {
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(
        Config::default().metrics.listen.to_string(),
        "127.0.0.1:9964"
    );
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        node = "node-1"
        state-dir = "/s"
        run-dir = "/r"
        bpffs = "/b"
        inventory = ["inventory.toml", "/abs/i.toml"]
        policies = ["policies"]
        attach-bridge = false
        allow-uplink = true
        tunnel-ports = [4789, 500]
        cluster-ranges = ["10.96.0.9/12", "fd00:10::/48"]
        debug-kernel-log = true
        [kubernetes]
        kubeconfig = "admin.kubeconfig"
        node-name = "n1"
        pod-ranges = "node-spec"
        [modes]
        default = "enforce"
        [modes.namespaces]
        default = "lockdown"
        lab = "observe"
        [flows]
        log = "flows.jsonl"
        log-max-bytes = 5000
        log-files = 2
        history = 10
        [metrics]
        listen = "[::1]:1"
        [maps]
        policy = 7
        [budgets]
        rules = 8
        rows = 9
        "#,
    )
    .unwrap();
    assert_eq!(config.node.unwrap().as_str(), "node-1");
    let kubernetes = config.kubernetes.unwrap();
    let kubeconfig = Path::new("/etc/ringfence/admin.kubeconfig");
    assert_eq!(kubernetes.kubeconfig.as_deref(), Some(kubeconfig));
    assert_eq!(kubernetes.node_name.unwrap().as_str(), "n1");
    assert_eq!(kubernetes.pod_ranges, PodRanges::NodeSpec);
    assert_eq!(config.state_dir, Path::new("/s"));
    assert_eq!(
        config.inventory[0],
        Path::new("/etc/ringfence/inventory.toml")
    );
    assert_eq!(config.inventory[1], Path::new("/abs/i.toml"));
    assert_eq!(config.policies, [Path::new("/etc/ringfence/policies")]);
    let mode = |name| config.modes.of(&NamespaceName::new(name).unwrap());
    assert_eq!(mode("default"), ModeName::Lockdown);
    assert_eq!(mode("lab"), ModeName::Observe);
    assert_eq!(mode("shop"), ModeName::Enforce);
    assert_eq!(
        config.flows.log.unwrap(),
        Path::new("/etc/ringfence/flows.jsonl")
    );
    assert_eq!(
        (config.flows.log_max_bytes, config.flows.log_files),
        (5000, 2)
    );
    assert_eq!(config.metrics.listen.port(), 1);
    assert_eq!(config.maps.policy, Some(7));
    let budget = crate::model::Needs {
        rules: 8,
        rows: 9,
        ..DEFAULT_BUDGET
    };
    assert_eq!(config.budget, budget);
    let ranges = ["10.96.0.0/12", "fd00:10::/48"].map(|it| it.parse().unwrap());
    assert_eq!(config.cluster_ranges, ranges.into());
    assert_eq!(config.tunnel_ports, [500, 4789].into());
    assert!(config.allow_uplink && config.debug_kernel_log && !config.attach_bridge);
}

#[test]
fn errors_have_the_position_and_what_was_expected() {
    for (text, message) in [
        (
            "[modes]\ndefault = \"enforced\"",
            "2:11: unknown mode \"enforced\": expected observe, enforce or lockdown",
        ),
        (
            "[modes.namespaces]\nshop = \"off\"",
            "2:8: unknown mode \"off\": expected observe, enforce or lockdown",
        ),
        (
            "[metrics]\nlisten = \"localhost\"",
            "2:10: not a listen address: expected address:port, for example 127.0.0.1:9964",
        ),
        (
            "[flows]\nhistory = 0",
            "2:11: history is 0: expected at least 1",
        ),
        (
            "cluster-ranges = [\"10.0.0.0/8\", \"::/0\"]",
            "1:33: not a range of the cluster: expected a prefix such as \"10.96.0.0/12\" or \
             \"fd00:10::/48\"",
        ),
        (
            "[kubernetes]\npod-ranges = \"nodes\"",
            "2:14: unknown ranges of pods: expected \"off\", \"node-spec\" or a list of prefixes",
        ),
        (
            "[kubernetes]\npod-ranges = [\"::/0\"]",
            "2:14: not a range of the cluster: expected a prefix such as \"10.96.0.0/12\" or \
             \"fd00:10::/48\"",
        ),
        (
            "[flows]\nlog-max-bytes = 1",
            "2:17: log-max-bytes is too small: expected at least 4096",
        ),
        (
            "[maps]\npolicy = 0",
            "1:1: capacity policy is 0: expected at least 1",
        ),
        (
            "[budgets]\nrules = 0",
            "2:9: not a budget: expected at least 1",
        ),
        (
            "run-dir = \"\"",
            "1:11: not a path: expected a non-empty path without NUL",
        ),
    ] {
        assert_eq!(refusal(text), format!("ringfence.toml:{message}"), "{text}");
    }
    let bad_name = refusal("[modes.namespaces]\nSHOP = \"observe\"");
    assert!(bad_name.starts_with("ringfence.toml:2:1: \"SHOP\" is not a namespace name"));
}

#[test]
fn ranges_of_pods_may_be_listed() {
    let text = "[kubernetes]\npod-ranges = [\"10.244.1.0/16\"]\n";
    let listed = PodRanges::Listed(["10.244.0.0/16".parse().unwrap()].into());
    assert_eq!(parse(text).unwrap().kubernetes.unwrap().pod_ranges, listed);
    let without = parse("[kubernetes]\n").unwrap().kubernetes.unwrap();
    assert_eq!(without.pod_ranges, PodRanges::Off);
}

#[test]
fn unknown_keys_are_errors() {
    for (text, place) in [
        ("nodes = \"a\"", "1:1"),
        ("[flows]\n\nlogs = \"a\"", "3:1"),
        ("[maps]\nrules = 1", "2:1"),
    ] {
        let refusal = refusal(text);
        assert!(
            refusal.starts_with(&format!("ringfence.toml:{place}: unknown field")),
            "{refusal}"
        );
        assert!(refusal.contains("expected"), "{refusal}");
    }
}

#[test]
fn a_missing_file_is_an_error() {
    let errors = Config::load(Path::new("/nonexistent/ringfence.toml")).unwrap_err();
    assert!(
        errors[0]
            .to_string()
            .starts_with("/nonexistent/ringfence.toml: cannot be read")
    );
}

#[test]
fn a_namespace_may_be_a_key_next_to_default() {
    let text = "[modes]\ndefault = \"observe\"\nshop = \"enforce\"\n";
    let config = Config::parse("ringfence.toml", text, Path::new("")).unwrap();
    let mode = |name| config.modes.of(&NamespaceName::new(name).unwrap());
    assert_eq!(mode("shop"), ModeName::Enforce);
    assert_eq!(mode("lab"), ModeName::Observe);
    assert_eq!(
        refusal("[modes]\nshop = \"off\""),
        "ringfence.toml:2:8: unknown mode \"off\": expected observe, enforce or lockdown"
    );
}
