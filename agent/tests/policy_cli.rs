//! `ringfence policy check` and `policy eval`, run as commands.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../policies")
        .join(name)
}

fn ringfence(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .arg("policy")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its files never reads its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8(bytes.to_vec())
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_example_is_clean() {
    let shop = example("shop.toml");
    let output = ringfence(&["check", shop.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = ringfence(&["check", shop.to_str().unwrap(), "-o", "json"], "");
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(0), &b"[]\n"[..])
    );
}

#[test]
fn the_kubernetes_examples_are_clean_and_give_the_expected_verdicts() {
    let folder = example("kubernetes");
    let folder = folder.to_str().unwrap();
    let output = ringfence(&["check", folder], "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "policies: 7, findings: 0\n"
    );
    let inventory = example("inventory.toml");
    let inventory = inventory.to_str().unwrap();
    for (from, to, port, verdict) in [
        ("203.0.113.9", "shop/frontend-1", "tcp/8080", "allow"),
        ("203.0.113.66", "shop/frontend-1", "tcp/8080", "deny"),
        ("shop/frontend-1", "shop/orders-1", "http", "allow"),
        ("shop/frontend-1", "shop/payments-1", "http", "deny"),
        ("shop/orders-1", "shop/payments-1", "http", "allow"),
        ("shop/orders-1", "shop/orders-db-1", "tcp/5432", "allow"),
        ("shop/orders-db-1", "203.0.113.9", "tcp/443", "deny"),
        ("lab/intruder-1", "shop/orders-1", "http", "deny"),
        ("lab/intruder-1", "203.0.113.9", "tcp/443", "allow"),
        ("lab/intruder-1", "203.0.113.9", "tcp/80", "deny"),
    ] {
        let query = json!({"from": from, "to": to, "port": port}).to_string();
        let arguments = [
            "--policies",
            folder,
            "--inventory",
            inventory,
            "--queries",
            "-",
        ];
        let output = ringfence(&[&["eval"], &arguments[..]].concat(), &query);
        let response: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        assert_eq!(response["verdict"], verdict, "{response}");
    }
}

#[test]
fn warnings_about_kubernetes_policies_are_findings() {
    let folder = tempfile::tempdir().unwrap();
    let text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: \
                {policyTypes: [Egress], ingress: [{}]}\n";
    let path = file(&folder, "warnings.yaml", text);
    let output = ringfence(&["check", &path, "-o", "json"], "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let codes: Vec<&str> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["code"].as_str().unwrap())
        .collect();
    let wanted = [
        "missing-justification",
        "missing-owner",
        "no-default-deny",
        "ignored-rules",
        "no-pod-selector",
    ];
    assert_eq!(codes, wanted);
    assert!(
        found[1]["remedy"]
            .as_str()
            .unwrap()
            .contains("ringfence.io/owner"),
        "{found}"
    );
}

const LAX: &str = r#"[[policy]]
name = "lax"
namespace = "shop"
subject = ""
owner = " "

[[policy.ingress]]
ports = ["tcp/80"]
expires = 2020-01-01T00:00:00Z

[[policy.egress]]
to = [{ cidr = "10.0.0.1/8" }, { cidr = "::/0" }]
"#;

#[test]
fn every_finding_has_a_place_and_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "lax.toml", LAX);
    let output = ringfence(&["check", &path], "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found: Vec<String> = lines(&output.stdout)
        .iter()
        .map(|line| {
            assert!(line.contains(" — "), "{line}");
            let place = line.strip_prefix(&format!("{path}:")).unwrap();
            let mut parts = place.splitn(3, ": ");
            format!("{} {}", parts.next().unwrap(), parts.next().unwrap())
        })
        .collect();
    let wanted = [
        "1 missing-justification",
        "1 missing-owner",
        "7 any-peer",
        "7 expired-rule",
        "11 any-address",
        "11 internal-cidr",
        "11 no-ports",
        "11 wide-cidr",
        "12 host-bits",
    ];
    assert_eq!(found, wanted);

    let output = ringfence(&["check", &path, "-o", "json"], "");
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let codes: Vec<&str> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["code"].as_str().unwrap())
        .collect();
    assert!(
        wanted
            .iter()
            .zip(codes)
            .all(|(line, code)| line.ends_with(code)),
        "{found}"
    );
}

#[test]
fn an_invalid_file_is_named_with_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        &folder,
        "bad.toml",
        "[[policy]]\nname = \"a\"\nnamespace = \"shop\"\ncolour = 1\n",
    );
    let inventory = example("inventory.toml");
    let inventory = inventory.to_str().unwrap();
    for arguments in [
        vec!["check", &path],
        vec![
            "eval",
            "--policies",
            &path,
            "--inventory",
            inventory,
            "--queries",
            "-",
        ],
        vec![
            "eval",
            "--policies",
            &path,
            "--inventory",
            &path,
            "--queries",
            "-",
        ],
    ] {
        let output = ringfence(&arguments, "");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty());
        let error = lines(&output.stderr).remove(0);
        let first = error.strip_prefix(&format!("{path}:")).unwrap();
        assert!(first.starts_with(|c: char| c.is_ascii_digit()), "{error}");
    }
    let output = ringfence(&["check", &path, "-o", "json"], "");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &found[0]["code"]),
        (Some(2), &json!("invalid"))
    );
    assert_eq!(
        ringfence(&["check", "/nonexistent.toml"], "").status.code(),
        Some(2)
    );
}

fn eval(queries: &str, more: &[&str]) -> Output {
    let (policies, inventory) = (example("shop.toml"), example("inventory.toml"));
    let mut arguments = vec!["eval", "--policies", policies.to_str().unwrap()];
    arguments.extend(["--inventory", inventory.to_str().unwrap(), "--queries", "-"]);
    arguments.extend(more);
    ringfence(&arguments, queries)
}

#[test]
fn each_query_line_results_in_one_verdict_line() {
    let queries = concat!(
        r#"{"from":"shop/frontend-1","to":"shop/orders-1","port":"tcp/8080","family":4}"#,
        "\n",
        r#"{"from":"shop/frontend-1","to":"fd00:1::5","port":"http"}"#,
        "\n",
        r#"{"from":"203.0.113.9","to":"shop/frontend-1","port":"icmp"}"#,
        "\n",
        r#"{"to":"shop/orders-1","from":"10.1.0.4","port":"udp/9"}"#,
    );
    let output = eval(queries, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let verdicts: Vec<Value> = lines(&output.stdout)
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        verdicts[0],
        json!({
            "from": "shop/frontend-1", "to": "shop/orders-1", "port": "tcp/8080", "family": 4,
            "verdict": "allow",
            "egress": { "verdict": "allow", "rule": "egress[0]", "policy": "shop/frontend" },
            "ingress": { "verdict": "allow", "rule": "ingress[0]", "policy": "shop/orders" },
        })
    );
    assert_eq!(verdicts[1]["egress"]["rule"], "default-deny");
    assert_eq!(
        (&verdicts[1]["verdict"], &verdicts[1]["family"]),
        (&json!("deny"), &Value::Null)
    );
    assert_eq!(verdicts[2]["egress"]["rule"], "not-a-workload");
    assert_eq!(verdicts[2]["ingress"]["policy"], Value::Null);
    assert_eq!(verdicts[3]["ingress"]["rule"], "own-address");
    assert_eq!(verdicts.len(), 4);
}

#[test]
fn a_malformed_query_is_reported_after_the_verdicts_before_it() {
    let good = r#"{"from":"shop/frontend-1","to":"shop/orders-1","port":"tcp/8080"}"#;
    for (bad, reason) in [
        (r#"{"from":"shop/frontend-1","to":"shop/orders-1"}"#, "port"),
        (
            r#"{"from":"a/b","to":"shop/orders-1","port":"tcp/80","colour":1}"#,
            "colour",
        ),
        (
            r#"{"from":"shop/missing","to":"shop/orders-1","port":"tcp/80"}"#,
            "shop/missing",
        ),
        (
            r#"{"from":"shop","to":"shop/orders-1","port":"tcp/80"}"#,
            "neither a workload",
        ),
        (
            r#"{"from":"10.1.0.2","to":"fd00:1::5","port":"tcp/80"}"#,
            "family",
        ),
        (
            r#"{"from":"10.1.0.2","to":"10.1.0.3","port":"tcp/80","family":5}"#,
            "family 5",
        ),
        (
            r#"{"from":"10.1.0.2","to":"10.1.0.3","port":"tcp/80-90"}"#,
            "one port",
        ),
        (r#"{"from":"10.1.0.2","to":"10.1.0.3","port":"ssh"}"#, "ssh"),
        ("[]", "query"),
        ("\u{1b}[2J", "query"),
    ] {
        let output = eval(&format!("{good}\n\n{bad}\n{good}\n"), &[]);
        assert_eq!(output.status.code(), Some(2), "{bad}: {output:?}");
        assert_eq!(lines(&output.stdout).len(), 1, "{bad}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("-:3: ") && error.contains(reason), "{error}");
        assert!(
            !error.contains('\u{1b}') && error.lines().count() == 1,
            "{error}"
        );
    }
}

#[test]
fn now_sets_the_time_of_evaluation() {
    let folder = tempfile::tempdir().unwrap();
    let policies = file(
        &folder,
        "window.toml",
        "[[policy]]\nname = \"w\"\nnamespace = \"shop\"\nsubject = \"\"\n[[policy.ingress]]\n\
         not-before = 2026-01-01T00:00:00Z\nexpires = 2026-02-01T00:00:00Z\n",
    );
    let inventory = example("inventory.toml");
    let query = "{\"from\":\"192.0.2.1\",\"to\":\"shop/orders-1\",\"port\":\"tcp/1\"}\n";
    for (now, verdict) in [
        ("2025-12-31T23:59:59Z", "deny"),
        ("2026-01-01T01:00:00+01:00", "allow"),
        ("2026-01-31T23:59:59.999Z", "allow"),
        ("2026-02-01T00:00:00Z", "deny"),
    ] {
        let inventory = inventory.to_str().unwrap();
        let folder = Path::new(&policies).parent().unwrap().to_str().unwrap();
        let arguments = [
            "eval",
            "--policies",
            folder,
            "--inventory",
            inventory,
            "--queries",
            "-",
            "--now",
            now,
        ];
        let output = ringfence(&arguments, query);
        let response: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(response["verdict"], verdict, "{now}");
    }
}
