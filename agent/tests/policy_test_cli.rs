//! `ringfence policy test`: expected verdicts, the output when they are wrong, and exit codes.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

const INVENTORY: &str = r#"[[namespace]]
name = "shop"

[[workload]]
name = "web-1"
namespace = "shop"
labels = { app = "web" }
addresses = ["10.0.0.2", "fd00::2"]

[[workload]]
name = "db-1"
namespace = "shop"
labels = { app = "db" }
addresses = ["10.0.0.3", "fd00::3"]
"#;

const POLICY: &str = r#"[[policy]]
name = "db"
namespace = "shop"
subject = "app=db"

[[policy.ingress]]
from = [{ pods = "app=web" }]
ports = ["tcp/5432"]

[[policy.ingress]]
action = "deny"
from = [{ cidr = "fd00::/16" }]
ports = ["tcp/9000"]

[[policy.ingress]]
from = [{ pods = "app=web" }]
ports = ["tcp/9000"]

[[policy.test]]
from = "shop/web-1"
to = "shop/db-1"
port = "tcp/5432"
expect = "allow"
"#;

struct Setup {
    folder: TempDir,
}

impl Setup {
    fn new(tests: &str) -> Self {
        let setup = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        setup.write("inventory.toml", INVENTORY);
        setup.write("policy.toml", &format!("{POLICY}{tests}"));
        setup
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn run(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .current_dir(self.folder.path())
            .args([
                "policy",
                "test",
                "policy.toml",
                "--inventory",
                "inventory.toml",
            ])
            .args(more)
            .output()
            .unwrap()
    }
}

fn test(from: &str, port: &str, expect: &str) -> String {
    format!(
        "[[policy.test]]\nfrom = \"{from}\"\nto = \"shop/db-1\"\nport = \"{port}\"\n\
         expect = \"{expect}\"\n"
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_shipped_examples_pass() {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .current_dir(policies)
        .args([
            "policy",
            "test",
            "shop.toml",
            "--inventory",
            "inventory.toml",
        ])
        .args(["--flows", "shop-flows.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), "13 passed, 0 failed\n");
}

#[test]
fn passing_tests_are_only_counted() {
    let output = Setup::new("").run(&[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), "1 passed, 0 failed\n");
}

#[test]
fn a_failed_test_is_reported_with_its_line_and_an_explanation() {
    let setup = Setup::new(&test("shop/web-1", "tcp/5432", "deny"));
    let output = setup.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = POLICY.lines().count() + 1;
    let out = text(&output.stdout);
    let first =
        format!("policy.toml:{line}: shop/web-1 → shop/db-1 tcp/5432: expected deny, got allow\n");
    assert!(out.starts_with(&first), "{out}");
    for wanted in [
        "\n    egress of shop/web-1: allow by default-allow\n",
        "\n    ingress of shop/db-1: allow by ingress[0] of shop/db\n",
        "policy.toml:6",
    ] {
        assert!(out.contains(wanted), "{out}");
    }
    assert!(out.ends_with("\n1 passed, 1 failed\n"), "{out}");
    assert!(out.lines().all(|line| line.trim_end() == line), "{out:?}");
}

#[test]
fn a_test_must_pass_for_both_families() {
    let setup = Setup::new(&test("shop/web-1", "tcp/9000", "allow"));
    let output = setup.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let out = text(&output.stdout);
    assert!(
        out.contains("tcp/9000 over IPv6: expected allow, got deny\n"),
        "{out}"
    );
    let v4 =
        r#"{"from":"shop/web-1","to":"shop/db-1","port":"tcp/9000","expect":"allow","family":4}"#;
    let setup = Setup::new("");
    setup.write("v4.jsonl", v4);
    assert_eq!(setup.run(&["--flows", "v4.jsonl"]).status.code(), Some(0));
}

#[test]
fn expected_flows_are_read_from_json_lines_and_toml() {
    let setup = Setup::new("");
    setup.write(
        "flows.jsonl",
        "{\"from\":\"10.9.9.9\",\"to\":\"shop/db-1\",\"port\":\"tcp/5432\",\"expect\":\"deny\"}\n\n\
         {\"from\":\"10.9.9.9\",\"to\":\"shop/db-1\",\"port\":\"icmp\",\"expect\":\"allow\"}\n",
    );
    let toml = test("shop/web-1", "tcp/80", "deny").replace("[[policy.test]]", "[[test]]");
    setup.write("flows.toml", &toml);
    let output = setup.run(&["--flows", "flows.jsonl", "--flows", "flows.toml"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let out = text(&output.stdout);
    assert!(
        out.starts_with("flows.jsonl:3: 10.9.9.9 → shop/db-1 icmp: "),
        "{out}"
    );
    assert!(out.ends_with("\n3 passed, 1 failed\n"), "{out}");

    for (name, bad, place) in [
        ("bad.jsonl", "{}\n", "bad.jsonl:1:"),
        ("bad.toml", "[[test]]\nfrom = 1\n", "bad.toml:2:"),
    ] {
        setup.write(name, bad);
        let output = setup.run(&["--flows", name]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty());
        assert!(text(&output.stderr).starts_with(place), "{output:?}");
    }
    assert_eq!(setup.run(&["--flows", "gone.jsonl"]).status.code(), Some(2));
}

#[test]
fn a_test_without_a_verdict_fails_and_a_malformed_test_is_invalid() {
    let setup = Setup::new(&test("shop/gone-1", "tcp/5432", "deny"));
    let output = setup.run(&[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let out = text(&output.stdout);
    assert!(
        out.contains("cannot be evaluated: unknown workload"),
        "{out}"
    );
    let setup = Setup::new(&test("shop/web-1", "tcp/1-2", "deny"));
    assert_eq!(setup.run(&[]).status.code(), Some(2));
}

#[test]
fn json_lists_every_test_with_both_directions() {
    let setup = Setup::new(&test("shop/web-1", "tcp/5432", "deny"));
    let output = setup.run(&["-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["passed"], &report["failed"]),
        (&json!(1), &json!(1))
    );
    let tests = report["tests"].as_array().unwrap();
    assert_eq!(tests.len(), 2);
    assert_eq!(tests[1]["passed"], false);
    assert_eq!(tests[1]["policy"], "shop/db");
    assert_eq!(tests[1]["ingress"]["rule"], "ingress[0]");
    assert_eq!(tests[1]["expect"], "deny");
}

#[test]
fn now_sets_the_time_of_evaluation() {
    let setup = Setup::new(
        "[[policy.ingress]]\nfrom = [{ pods = \"app=web\" }]\nports = [\"tcp/7\"]\n\
         expires = 2026-01-01T00:00:00Z\n[[policy.test]]\nfrom = \"shop/web-1\"\nto = \
         \"shop/db-1\"\nport = \"tcp/7\"\nexpect = \"allow\"\n",
    );
    for (now, status) in [("2025-12-31T23:59:59Z", 0), ("2026-01-01T00:00:00Z", 1)] {
        let output = setup.run(&["--now", now]);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
    }
}
