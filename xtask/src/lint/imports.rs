//! The import rule: dependencies between the agent's modules point in one direction.
//!
//! Every top-level module is in [`LAYERS`] or is pure, and uses nothing from an outer layer.
//! `purity` checks what else pure modules and `common` may use. Crate roots, which only declare
//! modules, and tests are not checked.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::paths::{self, UsedPath};
use super::source::SourceFile;
use super::{Finding, purity};
use crate::workspace;

/// From outermost to innermost; modules of one layer may use each other.
const LAYERS: [&[&str]; 6] = [
    &["main"],
    &["cli"],
    &["app"],
    &["config", "source", "reconcile", "observe", "server"],
    &["datapath"],
    &["netlink"],
];

pub(crate) fn check(root: &Path, files: &[SourceFile]) -> Result<Vec<Finding>> {
    let dependencies = agent_dependencies(&workspace::metadata(false)?);
    anyhow::ensure!(
        !dependencies.is_empty(),
        "cargo lists no dependencies of the agent in {}",
        root.display()
    );
    Ok(files
        .iter()
        .flat_map(|file| check_file(file, &dependencies))
        .collect())
}

fn check_file(file: &SourceFile, dependencies: &BTreeSet<String>) -> Vec<Finding> {
    if file.is_test() {
        return Vec::new();
    }
    if file.path.starts_with("common/src/") {
        return purity::check_common(file);
    }
    if !file.path.starts_with("agent/src/") || file.path == "agent/src/lib.rs" {
        return Vec::new();
    }
    let module = paths::module_of(file);
    let top = module.first().map_or("", String::as_str);
    if purity::is_pure(top) {
        return purity::check_agent(file, &module, dependencies);
    }
    let Some(own) = layer(top) else {
        let message =
            format!("module `{top}` is not in LAYERS: add it in xtask/src/lint/imports.rs");
        return vec![Finding::at(file, 1, message)];
    };
    let used = paths::of(&file.product_tokens());
    used.iter()
        .filter_map(|path| outward_use(file, path, &module, own))
        .collect()
}

/// The finding if `path` leads to a layer outside of `own`.
fn outward_use(
    file: &SourceFile,
    path: &UsedPath,
    module: &[String],
    own: usize,
) -> Option<Finding> {
    let target = path.below_root(module)?;
    if layer(target)? >= own {
        return None;
    }
    let user = module.first().map_or("", String::as_str);
    let message = format!("`{user}` may not use `{target}`, which is in an outer layer");
    Some(Finding::at(file, path.line, message))
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The crates that agent code can name.
fn agent_dependencies(metadata: &Value) -> BTreeSet<String> {
    let packages = metadata.get("packages").and_then(Value::as_array);
    let is_agent =
        |package: &&Value| package.get("name").and_then(Value::as_str) == Some("ringfence");
    let agent = packages.and_then(|packages| packages.iter().find(is_agent));
    let listed = agent
        .and_then(|agent| agent.get("dependencies"))
        .and_then(Value::as_array);
    let names = listed.into_iter().flatten().filter_map(|dependency| {
        let renamed = dependency.get("rename").and_then(Value::as_str);
        renamed.or_else(|| dependency.get("name").and_then(Value::as_str))
    });
    names.map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        let dependencies = ["tokio", "ipnet", "ringfence_common"]
            .map(String::from)
            .into();
        check_file(&SourceFile::new(path, text), &dependencies).len()
    }

    #[test]
    fn inner_layers_may_not_use_outer_ones() {
        assert_eq!(
            findings("agent/src/datapath/maps.rs", "use crate::reconcile::Plan;"),
            1
        );
        assert_eq!(
            findings("agent/src/server.rs", "use crate::{app::App, datapath};"),
            1
        );
        assert_eq!(
            findings(
                "agent/src/server/flows.rs",
                "fn f(x: super::super::cli::Args) {}"
            ),
            1
        );
        assert_eq!(findings("agent/src/app.rs", "use super::cli;"), 1);
    }

    #[test]
    fn outer_layers_may_use_inner_ones() {
        assert_eq!(findings("agent/src/main.rs", "use ringfence::cli;"), 0);
        assert_eq!(
            findings("agent/src/app.rs", "use crate::{datapath, policy, server};"),
            0
        );
        assert_eq!(
            findings(
                "agent/src/observe.rs",
                "use crate::source::Event; use tokio::fs;"
            ),
            0
        );
        let test = "#[cfg(test)] mod tests { use crate::app::App; }";
        assert_eq!(findings("agent/src/datapath.rs", test), 0);
        assert_eq!(
            findings("agent/src/datapath/tests.rs", "use crate::app::App;"),
            0
        );
        assert_eq!(
            findings("agent/src/datapath/app.rs", "use super::app::App;"),
            0
        );
    }

    #[test]
    fn a_module_without_a_layer_is_reported() {
        assert_eq!(findings("agent/src/misc.rs", ""), 1);
        assert_eq!(findings("agent/src/lib.rs", "pub mod misc;"), 0);
    }

    #[test]
    fn dependencies_have_the_names_that_code_uses() {
        let text = r#"{"packages":[{"name":"ringfence","dependencies":[
            {"name":"ringfence-common","rename":null},{"name":"serde","rename":"sd"}]}]}"#;
        let metadata = serde_json::from_str(text).unwrap();
        let names: Vec<String> = agent_dependencies(&metadata).into_iter().collect();
        assert_eq!(names, ["ringfence_common", "sd"]);
    }
}
