//! What pure code may use: `model`, `policy` and `plan` in the agent, and all of `common`.
//!
//! Pure code uses no file system, network, clock, environment, threads or processes, so it can run
//! under property tests, fuzzing and miri; the current time is an argument. Only names are checked,
//! not what an allowed crate does internally.

use std::collections::BTreeSet;

use super::Finding;
use super::paths::{self, UsedPath};
use super::source::SourceFile;

/// The pure modules, each with the other modules that it may use.
const MODULES: [(&str, &[&str]); 4] = [
    ("ordmap", &[]),
    ("model", &["ordmap"]),
    ("plan", &["ordmap"]),
    ("policy", &["model", "ordmap", "plan"]),
];
/// Crates that only compute.
const CRATES: [&str; 5] = ["ipnet", "ringfence_common", "serde", "sha2", "thiserror"];
/// Uses std, but only with a feature that no shipped binary is built with.
const SEEDED_BUGS: &str = "common/src/mutant.rs";
/// Parts of std with side effects.
const OUTSIDE: [&str; 5] = ["env", "fs", "os", "process", "thread"];
/// Plain data types in std modules that are otherwise not allowed.
const PLAIN: [(&str, &[&str]); 2] = [
    (
        "net",
        &[
            "AddrParseError",
            "IpAddr",
            "Ipv4Addr",
            "Ipv6Addr",
            "SocketAddr",
            "SocketAddrV4",
            "SocketAddrV6",
        ],
    ),
    ("time", &["Duration"]),
];

pub(crate) fn is_pure(module: &str) -> bool {
    MODULES.iter().any(|(name, _)| *name == module)
}

/// Checks a file of one of the agent's pure modules.
pub(crate) fn check_agent(
    file: &SourceFile,
    module: &[String],
    dependencies: &BTreeSet<String>,
) -> Vec<Finding> {
    let tokens = file.product_tokens();
    let own_child = |name: &str| {
        tokens
            .windows(2)
            .any(|pair| matches!(pair, [m, n] if m.is("mod") && n.is(name)))
    };
    let objection = |path: &UsedPath| {
        let first = path.segment(0)?;
        if let Some(target) = path.below_root(module) {
            return module_objection(module, target);
        }
        if matches!(first, "std" | "core" | "alloc") {
            return std_objection(path);
        }
        let foreign = dependencies.contains(first) && !CRATES.contains(&first);
        (foreign && !own_child(first)).then(|| format!("the crate `{first}` is not pure"))
    };
    let finding = |path: &UsedPath| {
        let message = format!("pure module: {}", objection(path)?);
        Some(Finding::at(file, path.line, message))
    };
    paths::of(&tokens).iter().filter_map(finding).collect()
}

/// Checks a file of `common`, which agent and kernel programs share.
pub(crate) fn check_common(file: &SourceFile) -> Vec<Finding> {
    if file.path == SEEDED_BUGS {
        return Vec::new();
    }
    let used = paths::of(&file.product_tokens());
    let std = used.iter().filter(|path| path.segment(0) == Some("std"));
    std.map(|path| {
        let message = String::from("common has no std: use core, or put it in the agent");
        Finding::at(file, path.line, message)
    })
    .collect()
}

fn module_objection(module: &[String], target: &str) -> Option<String> {
    let own = module.first().map_or("", String::as_str);
    let (_, allowed) = MODULES.iter().find(|(name, _)| *name == own)?;
    if target == own || allowed.contains(&target) {
        return None;
    }
    Some(format!("`{own}` may not use `crate::{target}`"))
}

fn std_objection(path: &UsedPath) -> Option<String> {
    let whole = path.segments.join("::");
    let part = path.segment(1).unwrap_or("*");
    if part == "*" {
        return Some(format!("`{whole}` is too broad: name each item"));
    }
    if OUTSIDE.contains(&part) {
        return Some(format!(
            "`{whole}` has side effects: call it in an outer layer and pass the result"
        ));
    }
    let (_, plain) = PLAIN.iter().find(|(name, _)| *name == part)?;
    if path.segment(2).is_some_and(|item| plain.contains(&item)) {
        return None;
    }
    Some(format!(
        "only {} may be used of `std::{part}`, each by name",
        plain.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        let file = SourceFile::new(path, text);
        let dependencies = ["tokio", "aya", "jiff", "toml", "ipnet", "serde"]
            .map(String::from)
            .into();
        let found = check_agent(&file, &paths::module_of(&file), &dependencies);
        found
            .into_iter()
            .map(|finding| finding.to_string())
            .collect()
    }

    #[test]
    fn pure_modules_use_only_the_listed_modules() {
        assert_eq!(
            findings("agent/src/model.rs", "use crate::policy::Rule;").len(),
            1
        );
        assert_eq!(
            findings(
                "agent/src/plan/table.rs",
                "use super::super::policy::Compiled;"
            )
            .len(),
            1
        );
        assert_eq!(
            findings("agent/src/plan.rs", "use crate::datapath::Maps;").len(),
            1
        );
        assert_eq!(findings("agent/src/plan.rs", "use crate::Error;").len(), 1);
        let text = "use crate::{model::Workload, policy}; use crate::plan::action::Action;";
        assert!(findings("agent/src/policy/compile.rs", text).is_empty());
    }

    #[test]
    fn impure_crates_are_found_wherever_they_appear() {
        let found = findings("agent/src/policy.rs", "\nfn f() { tokio::spawn(g()) }");
        assert_eq!(
            found,
            ["agent/src/policy.rs:2: pure module: the crate `tokio` is not pure"]
        );
        assert_eq!(findings("agent/src/policy.rs", "use aya;").len(), 1);
        assert_eq!(
            findings("agent/src/policy.rs", "#[jiff::test] fn f() {}").len(),
            1
        );
        assert!(
            findings(
                "agent/src/policy.rs",
                "use ipnet::IpNet; use serde::Serialize;"
            )
            .is_empty()
        );
        assert!(findings("agent/src/policy.rs", "mod toml; fn f() { toml::parse() }").is_empty());
    }

    #[test]
    fn std_is_allowed_except_for_side_effects() {
        for text in [
            "use std::fs;",
            "use std::{fmt, env::var};",
            "use std::net::{IpAddr, TcpStream};",
            "use std::time;",
            "use std::*;",
            "use std as s;",
            "fn f() { std::time::Instant::now(); }",
            "fn f() { std::thread::spawn(g); }",
        ] {
            assert_eq!(findings("agent/src/plan.rs", text).len(), 1, "{text}");
        }
        let text =
            "use std::{collections::BTreeMap, fmt::{self, Display}, net::IpAddr, time::Duration};";
        assert!(findings("agent/src/plan.rs", text).is_empty());
    }

    #[test]
    fn common_may_not_use_std() {
        let found = |text: &str| check_common(&SourceFile::new("common/src/ids.rs", text)).len();
        assert_eq!(found("use std::fmt;"), 1);
        assert_eq!(found("extern crate std;"), 1);
        assert_eq!(
            found("use core::fmt; #[cfg(test)] mod tests { use std::fmt; }"),
            0
        );
    }
}
