//! The YAML structure of a case file. Unknown keys are errors; values are interpreted elsewhere.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

/// Values by name; null removes an existing one.
pub(super) type Changes = BTreeMap<String, Option<String>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: Spanned<String>,
    pub(super) tag: Spanned<String>,
    #[serde(rename = "why")]
    pub(super) _why: String,
    pub(super) delta: Option<Delta>,
    pub(super) steps: Vec<Spanned<Step>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Delta {
    pub(super) namespaces: Option<BTreeMap<String, Spanned<Option<Namespace>>>>,
    pub(super) workloads: Option<BTreeMap<String, Spanned<Option<Workload>>>>,
    pub(super) grid: Option<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Namespace {
    pub(super) labels: Option<Changes>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Workload {
    pub(super) labels: Option<Changes>,
    pub(super) service_account: Option<String>,
    pub(super) ports: Option<Changes>,
    pub(super) ip4: Option<String>,
    pub(super) ip6: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Step {
    pub(super) apply: Option<String>,
    pub(super) apply_toml: Option<String>,
    pub(super) delete: Option<Vec<String>>,
    pub(super) label: Option<Label>,
    pub(super) add: Option<BTreeMap<String, Option<Workload>>>,
    pub(super) remove: Option<Vec<String>>,
    pub(super) move_address: Option<MoveAddress>,
    pub(super) mode: Option<BTreeMap<String, String>>,
    pub(super) wait: Option<String>,
    pub(super) restart_agent: Option<String>,
    pub(super) reject: Option<String>,
    pub(super) reject_toml: Option<String>,
    pub(super) expect: Option<Vec<Spanned<Expectation>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Label {
    pub(super) workload: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) labels: Changes,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MoveAddress {
    pub(super) from: String,
    pub(super) to: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expectation {
    pub(super) from: Option<OneOrMany>,
    pub(super) to: Option<OneOrMany>,
    pub(super) port: Option<OneOrMany>,
    pub(super) family: Option<OneOrMany>,
    pub(super) verdict: String,
}

/// A glob or a list of globs; numbers (families) are kept as written.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(Scalar),
    Many(Vec<Scalar>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Number(u64),
    Text(String),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl OneOrMany {
    pub(super) fn into_globs(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.into_text()],
            Self::Many(many) => many.into_iter().map(Scalar::into_text).collect(),
        }
    }
}
