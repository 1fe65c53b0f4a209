//! Every dependency's licence must be one that `deny.toml` allows.
//!
//! Only `allow` in `[licenses]` of `deny.toml` is read: quoted names in brackets. Dependencies of
//! all platforms and features count. Bans and sources are checked by `cargo deny`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Finding, spdx};
use crate::workspace;

pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let rules = fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
    let accepted = accepted(&rules);
    ensure!(
        !accepted.is_empty(),
        "deny.toml allows no licence: give [licenses] an `allow` list"
    );
    let metadata = workspace::metadata(true)?;
    let packages = metadata.get("packages").and_then(Value::as_array);
    let packages = packages.context("`cargo metadata` lists no packages")?;
    Ok(packages
        .iter()
        .filter_map(|package| objection(package, &accepted))
        .collect())
}

fn objection(package: &Value, accepted: &[String]) -> Option<Finding> {
    let field = |name: &str| package.get(name).and_then(Value::as_str);
    let message = match field("license") {
        None => String::from("names no licence"),
        Some(licence) => match spdx::is_satisfied(licence, accepted) {
            Ok(true) => return None,
            Ok(false) => format!("licence `{licence}` is not allowed by deny.toml"),
            Err(error) => error.to_string(),
        },
    };
    let (name, version) = (
        field("name").unwrap_or("?"),
        field("version").unwrap_or("?"),
    );
    Some(Finding {
        place: format!("{name} {version}"),
        message,
    })
}

fn accepted(rules: &str) -> Vec<String> {
    let code: String = rules
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""))
        .collect();
    let section = code
        .split_once("[licenses]")
        .map_or("", |(_, section)| section);
    let list = section
        .split_once("allow")
        .and_then(|(_, rest)| rest.split_once('['));
    let list = list
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(list, _)| list);
    list.split('"')
        .skip(1)
        .step_by(2)
        .map(String::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_the_right_section_is_read() {
        let rules = "[bans]\nallow = [\"x\"]\n[licenses]\n# [not these]\nallow = [\n \"MIT\", # why\n \
                     \"Apache-2.0 WITH LLVM-exception\",\n]\n[sources]\nallow-git = [\"y\"]\n";
        assert_eq!(accepted(rules), ["MIT", "Apache-2.0 WITH LLVM-exception"]);
        assert!(accepted("[bans]\nallow = [\"x\"]").is_empty());
    }

    #[test]
    fn packages_without_an_allowed_licence_are_reported() {
        let accepted = [String::from("MIT")];
        let finding = |json: &str| {
            let package: Value = serde_json::from_str(json).unwrap();
            objection(&package, &accepted).map(|finding| finding.to_string())
        };
        let package = |licence: &str| {
            finding(&format!(
                r#"{{"name":"a","version":"1.0.0","license":{licence}}}"#
            ))
        };
        assert_eq!(package("\"MIT\""), None);
        assert_eq!(package("null").unwrap(), "a 1.0.0: names no licence");
        assert!(
            package("\"GPL-2.0-only\"")
                .unwrap()
                .contains("GPL-2.0-only")
        );
        assert!(package("\"MIT AND\"").unwrap().contains("malformed"));
    }
}
