//! `ringfence policy explain`, `diff` and `reach`, run as commands on files.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../policies")
        .join(name)
}

fn ringfence(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .arg("policy")
        .args(arguments)
        .output()
        .unwrap()
}

fn text(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The policies of `shop.toml` with some text replaced.
fn changed(folder: &tempfile::TempDir, changes: &[(&str, &str)]) -> String {
    let mut text = std::fs::read_to_string(example("shop.toml")).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let path = folder.path().join("shop.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn with_files(command: &str, more: &[&str]) -> Output {
    let (policies, inventory) = (example("shop.toml"), example("inventory.toml"));
    let mut arguments = vec![command, "--policies", policies.to_str().unwrap()];
    arguments.extend(["--inventory", inventory.to_str().unwrap()]);
    arguments.extend(more);
    ringfence(&arguments)
}

fn explain(from: &str, to: &str, port: &str, more: &[&str]) -> Output {
    let ends = ["--from", from, "--to", to, "--port", port];
    with_files("explain", &[&ends, more].concat())
}

#[test]
fn an_explanation_as_text_and_as_json() {
    let output = text(
        &explain("shop/frontend-1", "shop/payments-1", "http", &[]),
        0,
    );
    for line in [
        "shop/frontend-1 (10.1.0.2) to shop/payments-1 (10.1.0.5), tcp/8080: DENY",
        "egress of shop/frontend-1: deny by default-deny",
        "    label shop/payments-1 app=orders",
        "    run shop/frontend-1 as service account orders",
    ] {
        assert!(
            output.lines().any(|printed| printed == line),
            "no {line:?} in:\n{output}"
        );
    }
    let more = [
        "-o",
        "json",
        "--family",
        "6",
        "--now",
        "2026-10-01T00:00:00Z",
    ];
    let output = text(
        &explain("shop/frontend-1", "shop/orders-1", "http", &more),
        0,
    );
    let explanation: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(explanation["verdict"], "allow");
    assert_eq!(explanation["from"]["address"], "fd00:1::2");
    assert_eq!(explanation["at"], "2026-10-01T00:00:00Z");
    assert_eq!(explanation["ingress"]["decider"]["owner"], "team-orders");
    let missed = &explanation["ingress"]["rules"][0]["misses"][0];
    assert_eq!(
        (&missed["kind"], &missed["key"]),
        (&"namespace-label".into(), &"env".into())
    );
}

#[test]
fn bad_queries_are_refused() {
    for (from, to, port) in [
        ("shop/missing", "shop/orders-1", "http"),
        ("shop", "shop/orders-1", "http"),
        ("shop/orders-1", "10.1.0.2", "tcp/1-2"),
        ("10.1.0.2", "fd00:1::5", "tcp/80"),
    ] {
        let output = explain(from, to, port, &[]);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{from} {to} {port}: {output:?}"
        );
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let output = with_files("reach", &["--from", "shop/missing"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

fn diff(new: &str, more: &[&str]) -> Output {
    let (old, inventory) = (example("shop.toml"), example("inventory.toml"));
    let mut arguments = vec!["diff", old.to_str().unwrap(), new];
    arguments.extend(["--inventory", inventory.to_str().unwrap()]);
    arguments.extend(more);
    ringfence(&arguments)
}

#[test]
fn a_diff_reports_only_the_changed_verdicts() {
    let folder = tempfile::tempdir().unwrap();
    let same = changed(&folder, &[("team-orders", "team-buy")]);
    assert_eq!(
        text(&diff(&same, &[]), 0),
        "no verdict changes; 6 workloads in 5 groups compared\n"
    );
    let wider = changed(
        &folder,
        &[
            ("ports = [\"db\"]", "ports = [\"db\", \"tcp/22-23\"]"),
            (
                "to = [{ pods = \"app=orders\" }]",
                "to = [{ pods = \"app=payments\" }]",
            ),
        ],
    );
    assert_eq!(
        text(&diff(&wider, &[]), 1),
        "FROM                                       TO                PORTS      CHANGE        BEFORE                                                  AFTER\n\
         shop/frontend-1 and 1 more (app=frontend)  shop/orders-1     tcp/8080   allow → deny  egress[0] of shop/frontend + ingress[0] of shop/orders  egress default-deny\n\
         shop/orders-1                              shop/orders-db-1  tcp/22-23  deny → allow  egress default-deny + ingress default-deny              egress[1] of shop/orders + ingress[0] of shop/orders-db\n\
         2 changes: 1 pairs of groups gain flows, 1 lose flows; 6 workloads in 5 groups compared\n"
    );
    let json: Value = serde_json::from_str(&text(&diff(&wider, &["-o", "json"]), 1)).unwrap();
    let place = json["changes"][0]["from"][0].as_u64().unwrap();
    let place = usize::try_from(place).unwrap();
    assert_eq!(json["groups"][place]["count"], 2);
    assert_eq!((&json["opened"], &json["closed"]), (&1.into(), &1.into()));

    let bad = changed(&folder, &[("subject", "subjekt")]);
    assert_eq!(diff(&bad, &[]).status.code(), Some(2));
}

#[test]
fn a_diff_between_inventories_compares_the_workloads_of_both() {
    let folder = tempfile::tempdir().unwrap();
    let inventory = std::fs::read_to_string(example("inventory.toml")).unwrap();
    let inventory = inventory
        .replace("app = \"payments\"", "app = \"old-payments\"")
        .replace("\"intruder-1\"", "\"visitor-1\"");
    let path = folder.path().join("inventory.toml");
    std::fs::write(&path, inventory).unwrap();
    let shop = example("shop.toml");
    let output = diff(
        shop.to_str().unwrap(),
        &["--inventory-new", path.to_str().unwrap()],
    );
    let output = text(&output, 1);
    assert!(output.contains("shop/orders-1"), "{output}");
    assert!(
        output.ends_with("2 workloads are in one inventory only\n"),
        "{output}"
    );
}

#[test]
fn reach_lists_workloads_hop_by_hop() {
    let direct = text(&with_files("reach", &["--from", "shop/frontend-1"]), 0);
    assert_eq!(
        direct,
        "HOP  VIA              TO             PORTS                     BY\n\
         1    shop/frontend-1  shop/orders-1  tcp/8080 (http tcp/8080)  egress[0] of shop/frontend + ingress[0] of shop/orders\n\
         shop/frontend-1 reaches 1 of 5 workloads (1 directly), 20.0%\n"
    );
    let more = ["--from", "shop/frontend-1", "--transitive", "-o", "json"];
    let all: Value = serde_json::from_str(&text(&with_files("reach", &more), 0)).unwrap();
    assert_eq!((&all["workloads"], &all["direct"]), (&3.into(), &1.into()));
    let hops: Vec<(&str, u64)> = all["reached"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            (
                r["to"]["name"].as_str().unwrap(),
                r["hop"].as_u64().unwrap(),
            )
        })
        .collect();
    assert!(
        hops.contains(&("shop/orders-1", 1)) && hops.contains(&("shop/payments-1", 2)),
        "{hops:?}"
    );

    let more = [
        "--from",
        "shop/frontend-1",
        "--transitive",
        "--port",
        "tcp/5432",
        "-o",
        "dot",
    ];
    let dot = text(&with_files("reach", &more), 0);
    assert!(
        dot.starts_with("digraph reach {\n") && dot.ends_with("}\n"),
        "{dot}"
    );
    assert!(
        !dot.contains("->"),
        "no path uses only the database's port: {dot}"
    );
    let more = ["--from", "shop/orders-1", "--port", "db", "-o", "dot"];
    let dot = text(&with_files("reach", &more), 0);
    let edge = "  \"shop/orders-1\" -> \"shop/orders-db-1\" [label=\"tcp/5432 (db tcp/5432)\"];\n";
    assert!(dot.contains(edge), "{dot}");
}
