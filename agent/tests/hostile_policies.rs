//! Malicious policy files: each is refused with a reason, quickly, and in bounded memory.
//!
//! This is a single test, because the kernel only reports the peak memory over all child processes.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]

use std::{
    fs,
    io::{BufWriter, Write as _},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

/// The maximum memory for checking a file, in KiB.
const MAX_MEMORY: i64 = 64 * 1024;
/// The maximum time for checking a file. The goal is one second, but builds without optimisation
/// and busy machines are slow.
const MAX_TIME: Duration = Duration::from_secs(if cfg!(debug_assertions) { 60 } else { 5 });

const KUBERNETES: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: \
                          p, namespace: shop}\nspec:\n  podSelector: {}\n";
const TOML: &str = "[[policy]]\nname = \"p\"\nnamespace = \"shop\"\nsubject = \"\"\n";

/// A part of the expected error; `None` if the file is valid.
type Refusal = Option<&'static str>;

/// A file, written in small pieces: memory of this process would count towards its children's peak.
struct Attack {
    name: &'static str,
    head: String,
    count: usize,
    item: fn(usize) -> String,
    tail: String,
    refusal: Refusal,
}

fn repeated(
    name: &'static str,
    head: &str,
    (count, item): (usize, fn(usize) -> String),
    tail: &str,
    refusal: &'static str,
) -> Attack {
    Attack {
        name,
        head: head.to_owned(),
        count,
        item,
        tail: tail.to_owned(),
        refusal: Some(refusal),
    }
}

fn small(name: &'static str, text: &str, refusal: &'static str) -> Attack {
    repeated(name, text, (0, |_| String::new()), "", refusal)
}

impl Attack {
    fn valid(self) -> Self {
        Self {
            refusal: None,
            ..self
        }
    }

    fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut file = BufWriter::new(fs::File::create(path)?);
        file.write_all(self.head.as_bytes())?;
        for index in 0..self.count {
            file.write_all((self.item)(index).as_bytes())?;
        }
        file.write_all(self.tail.as_bytes())?;
        file.flush()
    }
}

fn cidr(i: usize) -> String {
    format!("10.{}.{}.{}/32", i >> 16 & 255, i >> 8 & 255, i & 255)
}

fn ip_block(i: usize) -> String {
    format!("{{ipBlock: {{cidr: {}}}}},", cidr(i))
}

/// Anchors: alias bombs, and anchors nested in anchors.
fn aliases() -> Vec<Attack> {
    let level = |i: usize| match i {
        0 => "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(),
        _ => {
            let alias = format!("*a{}", i - 1);
            format!("a{i}: &a{i} [{}]\n", [alias.as_str(); 9].join(","))
        }
    };
    let many = "more than 400000 values, counting aliases";
    let nest: String = (0..60).map(|i| format!("&a{i} [")).collect();
    vec![
        repeated("bomb.yaml", "", (20, level), "", many),
        repeated(
            "anchors.yaml",
            &nest,
            (20_000, |_| "x,".into()),
            &"]".repeat(60),
            many,
        ),
    ]
}

/// YAML files that exceed a limit.
fn yaml() -> Vec<Attack> {
    let in_rule = |head: &str| format!("{KUBERNETES}  ingress: [{{{head}: [");
    let (too_large, too_deep) = (
        "the file is too large",
        "not YAML: recursion limit exceeded",
    );
    let too_many = "more than 400000 values";
    vec![
        repeated("deep.yaml", "", (200_000, |_| "[".into()), "", too_deep),
        repeated(
            "blocks.yaml",
            "",
            (1500, |i| " ".repeat(i) + "a:\n"),
            "",
            too_deep,
        ),
        repeated(
            "values.yaml",
            "[",
            (900_000, |_| "a,".into()),
            "]",
            too_many,
        ),
        repeated(
            "lists.yaml",
            "[",
            (600_000, |_| "[],".into()),
            "]",
            too_many,
        ),
        repeated(
            "large.yaml",
            "",
            (17_000_000, |_| "# \n".into()),
            "",
            too_large,
        ),
        repeated(
            "million.yaml",
            &in_rule("from"),
            (1_000_000, ip_block),
            "]}]",
            too_large,
        ),
        repeated(
            "cidrs.yaml",
            &in_rule("from"),
            (40_000, ip_block),
            "]}]",
            "from has 40000 items: expected at most 20000",
        ),
        repeated(
            "ten-thousand.yaml",
            &in_rule("from"),
            (10_000, ip_block),
            "]}]",
            "",
        )
        .valid(),
        repeated(
            "ports.yaml",
            &in_rule("ports"),
            (65_535, |i| format!("{{port: {}}},", i + 1)),
            "]}]",
            "ports has 65535 items: expected at most 1000",
        ),
        repeated(
            "documents.yaml",
            "",
            (100_000, |_| "--- 1\n".into()),
            "",
            "more errors are not shown",
        ),
        repeated(
            "empty-documents.yaml",
            "",
            (100_000, |_| "---\n".into()),
            "",
            "more than 10000 documents",
        ),
        repeated(
            "rules.yaml",
            &format!("{KUBERNETES}  ingress: ["),
            (90_000, |_| "{x: 1},".into()),
            "]",
            "ingress has 90000 items",
        ),
        repeated(
            "keys.yaml",
            &format!("{KUBERNETES}  ingress: [{{"),
            (150_000, |i| format!("k{i}: 1,")),
            "}]",
            "unknown field \"k0\"",
        ),
        repeated(
            "key.yaml",
            "",
            (1_900_000, |_| "x".into()),
            ": 1\n",
            "not YAML",
        ),
        repeated(
            "number.yaml",
            &format!("{KUBERNETES}  ingress: [{{ports: [{{port: "),
            (100_000, |_| "9".into()),
            "}]}]",
            "port is a number: expected a decimal integer",
        ),
    ]
}

/// TOML files that exceed a limit.
fn toml() -> Vec<Attack> {
    let rule = format!("{TOML}[[policy.ingress]]\n");
    let in_rule = |head: &str| format!("{rule}{head} = [");
    let toml_cidr = |i: usize| format!("\n  {{ cidr = \"{}\" }},", cidr(i));
    let too_large = "the file is too large";
    vec![
        repeated(
            "large.toml",
            "",
            (17_000_000, |_| "# \n".into()),
            "",
            too_large,
        ),
        repeated(
            "ten-thousand.toml",
            &in_rule("from"),
            (10_000, toml_cidr),
            "]",
            "",
        )
        .valid(),
        repeated(
            "ports.toml",
            &in_rule("ports"),
            (60_000, |i| format!("\"tcp/{}\",", i + 1)),
            "]",
            "60000 ports of one rule: expected at most 1000",
        ),
        repeated(
            "errors.toml",
            &in_rule("ports"),
            (250_000, |_| "\"\",".into()),
            "]",
            "250000 ports of one rule",
        ),
        repeated(
            "rules.toml",
            TOML,
            (40_000, |_| "[[policy.ingress]]\n".into()),
            "",
            "40000 rules of one direction",
        ),
        repeated(
            "tables.toml",
            "",
            (70_000, |_| "[[policy]]\n".into()),
            "",
            "missing field `name`",
        ),
        repeated(
            "lists.toml",
            "a = [",
            (250_000, |_| "[],".into()),
            "]",
            "unknown field `a`",
        ),
        repeated("deep.toml", "a = ", (300_000, |_| "[".into()), "", "recurs"),
        repeated(
            "dotted.toml",
            "a",
            (300_000, |_| ".a".into()),
            " = 1",
            "recursion limit",
        ),
        repeated(
            "text.toml",
            &format!("{TOML}owner = \""),
            (700_000, |_| "x".into()),
            "\"",
            "the text has 700000 characters: expected at most 1000",
        ),
        repeated(
            "selector.toml",
            &TOML.replace("\"\"\n", "\"k"),
            (90_000, |i| format!(",k{i}")),
            "\"\n",
            "90001 requirements in a selector: expected at most 100",
        ),
    ]
}

/// Small files with deceptive content.
fn deceptions() -> Vec<Attack> {
    let named = |name: &str| KUBERNETES.replace("name: p", name);
    let label = "podSelector: {matchLabels: {a: \"\u{202e}\"}}";
    vec![
        small(
            "twice.yaml",
            &format!("{KUBERNETES}  ingress: []\n  ingress: []\n"),
            "key \"ingress\" is already given in line 6",
        ),
        small(
            "twice.toml",
            &format!("{TOML}subject = \"\"\n"),
            "duplicate key",
        ),
        small(
            "nul.yaml",
            &named("name: \"p\\0\""),
            "\"p\\u{0}\" is not a policy name",
        ),
        small("raw-nul.yaml", &named("name: p\0"), "not YAML"),
        small(
            "bidi.toml",
            &format!("{TOML}owner = \"a\u{202e}b\"\n"),
            "the text contains \\u{202e}",
        ),
        small(
            "bidi.yaml",
            &KUBERNETES.replace("podSelector: {}", label),
            "\"\\u{202e}\" is not a label value",
        ),
    ]
}

/// Checks a file; returns the exit code and the combined output.
fn check(path: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["policy", "check"])
        .arg(path)
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(printed).unwrap())
}

fn children_peak() -> i64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss()
}

#[test]
fn hostile_files_are_refused_quickly_and_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("good.toml"), TOML).unwrap();
    check(&path("good.toml"));
    let base = children_peak();
    let attacks = [aliases(), yaml(), toml(), deceptions()];
    for attack in attacks.into_iter().flatten() {
        let (name, refusal) = (attack.name, attack.refusal);
        attack.write(&path(name)).unwrap();
        let start = Instant::now();
        let (code, printed) = check(&path(name));
        let taken = start.elapsed();
        // All files together would fill a small disk.
        fs::remove_file(path(name)).unwrap();
        let peak = children_peak() - base;
        println!("{name}: {taken:?}, at most {peak} KiB so far");
        let expected = if refusal.is_some() { 2 } else { 1 };
        let head: String = printed.chars().take(300).collect();
        assert_eq!(code, Some(expected), "{name}: {head}");
        assert!(
            refusal.is_none_or(|text| printed.contains(text)),
            "{name}: {head}"
        );
        assert!(
            printed.len() < 200_000,
            "{name}: {} bytes printed",
            printed.len()
        );
        assert!(
            !printed.contains(|c: char| c.is_control() && c != '\n'),
            "{name}: {head}"
        );
        assert!(taken < MAX_TIME, "{name} took {taken:?}");
        assert!(peak < MAX_MEMORY, "{name} took {peak} KiB");
    }
    fs::write(path("bytes.yaml"), b"a: \xff\n").unwrap();
    let (code, printed) = check(&path("bytes.yaml"));
    assert_eq!(code, Some(2));
    assert!(
        printed.contains("1:4: a byte that is not UTF-8"),
        "{printed}"
    );
}
