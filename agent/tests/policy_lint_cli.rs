//! `ringfence policy check` on the examples in `policies/lint`: each reports its own code and
//! nothing else, and reports nothing once it is fixed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests: a failure is the test's"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ringfence::policy::LintCode;
use serde_json::Value;

/// The examples do not depend on the current date; this is an arbitrary day.
const NOW: &str = "2026-11-22T00:00:00Z";

/// Codes that are not reported without an inventory.
const OF_INVENTORY: [LintCode; 2] = [LintCode::UnmatchedSelector, LintCode::UnresolvedPort];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/lint")
}

/// The path of an example; codes that only Kubernetes objects can have are in YAML.
fn example(name: &str) -> String {
    let paths = ["toml", "yaml"].map(|kind| examples().join(format!("{name}.{kind}")));
    let path = paths.iter().find(|path| path.exists());
    let path = path.unwrap_or_else(|| panic!("{name} has no example"));
    path.to_str().unwrap().to_owned()
}

fn check(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["policy", "check"])
        .args(arguments)
        .output()
        .unwrap()
}

fn codes(arguments: &[&str]) -> Vec<String> {
    let mut arguments = arguments.to_vec();
    arguments.extend(["-o", "json"]);
    let output = check(&arguments);
    let findings: Vec<BTreeMap<String, Value>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(i32::from(!findings.is_empty())),
        "{output:?}"
    );
    let codes = findings.iter().map(|finding| finding["code"].as_str());
    codes.map(|code| code.unwrap().to_owned()).collect()
}

#[test]
fn every_code_has_an_example_that_reports_it_and_nothing_else() {
    let inventory = example("inventory");
    for code in LintCode::ALL {
        let file = example(code.name());
        let with = codes(&[&file, "--inventory", &inventory, "--now", NOW]);
        assert_eq!(with, [code.name()], "with the inventory");
        for alone in [codes(&[&file, "--now", NOW]), codes(&[&file])] {
            if OF_INVENTORY.contains(code) {
                assert_eq!(alone, [""; 0], "{code} needs the inventory");
            } else {
                assert_eq!(alone, [code.name()], "without an inventory");
            }
        }
        let head = fs::read_to_string(&file).unwrap();
        assert!(head.starts_with(&format!("# {code}: ")), "{file}");
        assert!(head.contains("\n# Fix: "), "{file}");
    }
}

#[test]
fn every_file_among_the_examples_belongs_to_a_code() {
    let known: BTreeSet<String> = LintCode::ALL
        .iter()
        .map(|code| code.name())
        .chain(["clean", "inventory"])
        .map(example)
        .collect();
    let present: BTreeSet<String> = fs::read_dir(examples())
        .unwrap()
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(present, known);
}

/// The text to replace in each example, and its replacement, to fix it.
fn fix(code: LintCode) -> (&'static str, &'static str) {
    const LAST_RULE: &str =
        "[[policy.ingress]]\nfrom = [{ pods = \"app in (web)\" }]\nports = [\"http\"]\n";
    const NO_DNS: &str = "egress = []\n";
    const DNS_ALLOWED: &str =
        "[[policy.egress]]\nto = [{ entity = \"host\" }]\nports = [\"udp/53\"]\n";
    const V4: &str = "\"203.0.113.0/24\" }";
    match code {
        LintCode::MissingOwner => (
            "subject = \"app=orders\"",
            "subject = \"app=orders\"\nowner = \"a\"",
        ),
        LintCode::MissingJustification => (
            "subject = \"app=orders\"",
            "subject = \"app=orders\"\njustification = \"a\"",
        ),
        LintCode::ReviewOverdue => ("2020-01-31", "2026-11-22"),
        LintCode::ExpiredRule => ("2020-01-31", "2026-12-31"),
        LintCode::LongExpiry => ("2100-01-31", "2027-02-20"),
        LintCode::NoPorts => ("\"app=web\" }]", "\"app=web\" }]\nports = [\"http\"]"),
        LintCode::AnyPeer => (
            "ports = [\"http\"]",
            "from = [{ pods = \"app=web\" }]\nports = [\"http\"]",
        ),
        LintCode::EmptySelector => ("namespaces = \"\"", "pods = \"app=web\""),
        LintCode::AnyAddress => (
            "{ cidr = \"0.0.0.0/0\" }, { cidr = \"::/0\" }",
            "{ entity = \"world\" }",
        ),
        LintCode::WideCidr => (
            "11.0.0.0/8\" }, { cidr = \"2600::/16",
            "11.0.0.0/9\" }, { cidr = \"2600::/25",
        ),
        LintCode::MetadataAddress => (
            "169.254.169.254/32\" }, { cidr = \"fd00:ec2::254/128",
            "203.0.113.7/32\" }, { cidr = \"2001:db8::7/128",
        ),
        LintCode::InternalCidr => (
            "{ cidr = \"10.2.0.0/24\" }, { cidr = \"fd00:2::/64\" }",
            "{ pods = \"app=orders\" }",
        ),
        LintCode::OneFamily => (V4, "\"203.0.113.0/24\" }, { cidr = \"2001:db8:113::/48\" }"),
        LintCode::DnsForgotten => (NO_DNS, DNS_ALLOWED),
        LintCode::NoDefaultDeny => (
            "[[policy]]\n",
            "[[policy]]\nname = \"default\"\nnamespace = \"shop\"\nsubject = \"\"\nowner = \"a\"\njustification = \"a\"\ningress = []\negress = []\n\n[[policy]]\n",
        ),
        LintCode::UnmatchedSelector => ("app=wbe", "app=web"),
        LintCode::UnresolvedPort => ("[\"web\"]", "[\"http\"]"),
        LintCode::ShadowedRule => ("pods = \"app\"", "pods = \"app!=web\""),
        LintCode::DuplicateRule => (LAST_RULE, ""),
        LintCode::DuplicatePolicy => (
            "name = \"orders-again\"\nnamespace = \"shop\"\nsubject = \"app=orders\"",
            "name = \"orders-again\"\nnamespace = \"shop\"\nsubject = \"app=web\"",
        ),
        LintCode::EqualPriority => ("priority = 10", "priority = 20"),
        LintCode::HostBits => ("203.0.113.7/24", "203.0.113.7/32"),
        LintCode::IgnoredRules => ("[Egress]", "[Ingress, Egress]"),
        LintCode::NoPodSelector => ("  policyTypes", "  podSelector: {}\n  policyTypes"),
        LintCode::FailsClosed => (
            "domainNames: [\"partner.example\"]",
            "networks: [203.0.113.0/24, \"2001:db8:113::/48\"]",
        ),
    }
}

#[test]
fn a_fixed_example_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    for code in LintCode::ALL {
        let text = fs::read_to_string(example(code.name())).unwrap();
        let (wrong, right) = fix(*code);
        // Replace only after the comment at the head of the file.
        let (head, body) = text.split_at(text.find("\n\n").unwrap());
        assert!(body.contains(wrong), "{code}");
        let path = folder
            .path()
            .join(Path::new(&example(code.name())).file_name().unwrap());
        fs::write(&path, format!("{head}{}", body.replacen(wrong, right, 1))).unwrap();
        let inventory = example("inventory");
        let path = path.to_str().unwrap();
        let found = codes(&[path, "--inventory", &inventory, "--now", NOW]);
        assert_eq!(found, [""; 0], "{code}");
    }
    let clean = codes(&[&example("clean"), "--inventory", &example("inventory")]);
    assert_eq!(clean, [""; 0]);
}

#[test]
fn the_shipped_policies_are_clean_except_for_the_lab_without_default_deny() {
    let policies = examples().join("..");
    for set in ["shop.toml", "kubernetes"] {
        let set = policies.join(set);
        let set = set.to_str().unwrap();
        assert_eq!(codes(&[set]), [""; 0]);
        let inventory = policies.join("inventory.toml");
        let inventory = ["--inventory", inventory.to_str().unwrap()];
        assert_eq!(
            codes(&[&[set], &inventory[..]].concat()),
            ["no-default-deny"]
        );
    }
}

#[test]
fn a_code_can_be_allowed_or_denied() {
    let file = example("no-ports");
    for (arguments, status) in [
        (vec![], 1),
        (vec!["--allow", "any-peer"], 1),
        (vec!["--allow", "no-ports"], 0),
        (vec!["--deny", "any-peer"], 1),
        (vec!["--deny", "no-ports"], 2),
        (vec!["--deny", "any-peer", "--deny", "no-ports"], 2),
        (vec!["--deny", "no-ports", "--allow", "no-ports"], 2),
    ] {
        let mut all = vec![file.as_str()];
        all.extend(&arguments);
        let output = check(&all);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {output:?}"
        );
    }
    let denied = check(&[&file, "--deny", "no-ports"]);
    let text = String::from_utf8(denied.stdout).unwrap();
    assert!(text.contains(": no-ports (denied): "), "{text}");
}

#[test]
fn an_unknown_code_is_refused_with_all_codes() {
    for flag in ["--allow", "--deny"] {
        let output = check(&[&example("clean"), flag, "no-port"]);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        for code in LintCode::ALL {
            assert!(error.contains(code.name()), "{flag}: {code}: {error}");
        }
    }
    let help = String::from_utf8(check(&["--help"]).stdout).unwrap();
    for code in LintCode::ALL {
        assert!(help.contains(code.name()), "{code}: {help}");
    }
}

#[test]
fn the_manual_has_every_code_with_its_remedy() {
    let manual = examples().join("../../docs/policy.md");
    let manual = fs::read_to_string(manual).unwrap();
    for code in LintCode::ALL {
        let row = format!("\n| `{code}` | {} | {} |\n", code.about(), code.remedy());
        assert!(manual.contains(&row), "docs/policy.md lacks {row}");
    }
}

/// Checks what SARIF 2.1.0, and GitHub beyond that, require of the objects in use.
fn assert_is_sarif(log: &Value) {
    assert_eq!(log["version"], "2.1.0");
    assert!(
        log["$schema"]
            .as_str()
            .unwrap()
            .ends_with("sarif-2.1.0.json")
    );
    let runs = log["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1);
    let driver = &runs[0]["tool"]["driver"];
    assert_eq!(driver["name"], "ringfence");
    let rules = driver["rules"].as_array().unwrap();
    let levels = ["none", "note", "warning", "error"];
    for rule in rules {
        for text in ["shortDescription", "fullDescription", "help"] {
            assert!(rule[text]["text"].is_string(), "{rule}");
        }
        let level = rule["defaultConfiguration"]["level"].as_str().unwrap();
        assert!(levels.contains(&level));
    }
    for result in runs[0]["results"].as_array().unwrap() {
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        assert!(levels.contains(&result["level"].as_str().unwrap()));
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().unwrap();
        assert!(!uri.is_empty() && !uri.contains([' ', '\\']));
        if let Some(region) = place.get("region") {
            assert!(region["startLine"].as_u64().unwrap() >= 1);
        }
    }
}

#[test]
fn sarif_has_every_rule_and_each_finding_at_its_line() {
    let output = check(&[
        &example("no-ports"),
        &example("missing-owner"),
        "-o",
        "sarif",
    ]);
    // Both files declare the same policies, which makes them invalid together.
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_is_sarif(&log);
    assert_eq!(log["runs"][0]["results"][0]["ruleId"], "invalid");
    assert_eq!(log["runs"][0]["results"][0]["level"], "error");

    let output = check(&[&example("no-ports"), "-o", "sarif", "--deny", "no-ports"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_is_sarif(&log);
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    for code in LintCode::ALL {
        assert!(rules.iter().any(|rule| rule["id"] == code.name()), "{code}");
    }
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 1);
    assert_eq!(
        (&results[0]["ruleId"], &results[0]["level"]),
        (&"no-ports".into(), &"error".into())
    );
    let line = results[0]["locations"][0]["physicalLocation"]["region"]["startLine"].as_u64();
    let text = fs::read_to_string(example("no-ports")).unwrap();
    let wanted = text
        .lines()
        .position(|line| line == "[[policy.ingress]]")
        .unwrap();
    assert_eq!(line, Some(wanted as u64 + 1));

    let output = check(&[&example("clean"), "-o", "sarif"]);
    assert_eq!(output.status.code(), Some(0));
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_is_sarif(&log);
    assert_eq!(log["runs"][0]["results"].as_array().unwrap().len(), 0);
}
