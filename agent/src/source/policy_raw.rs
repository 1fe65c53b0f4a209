//! The raw structure of a TOML policy file as serde deserializes it, before any checks.
//!
//! It includes keys that this version refuses, so that they are refused with a reason and not as
//! unknown keys.

use serde::Deserialize;
use toml::{Spanned, Value};

/// A string and its span.
pub(super) type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawFile {
    #[serde(default)]
    pub(super) policy: Vec<Spanned<RawPolicy>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawPolicy {
    pub(super) name: Text,
    pub(super) namespace: Option<Text>,
    pub(super) scope: Option<Text>,
    pub(super) tier: Option<Text>,
    pub(super) priority: Option<Spanned<i64>>,
    pub(super) subject_namespaces: Option<Text>,
    pub(super) host_ingress: Option<Spanned<Value>>,
    pub(super) subject: Option<Text>,
    pub(super) owner: Option<Text>,
    pub(super) justification: Option<Text>,
    pub(super) ticket: Option<Text>,
    pub(super) review_by: Option<Spanned<Value>>,
    pub(super) ingress: Option<Vec<Spanned<RawRule>>>,
    pub(super) egress: Option<Vec<Spanned<RawRule>>>,
    #[serde(default)]
    pub(super) test: Vec<Spanned<RawTest>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawRule {
    pub(super) action: Option<Text>,
    pub(super) from: Option<Spanned<Vec<Spanned<RawPeer>>>>,
    pub(super) to: Option<Spanned<Vec<Spanned<RawPeer>>>>,
    pub(super) ports: Option<Spanned<Vec<Text>>>,
    pub(super) not_before: Option<Spanned<Value>>,
    pub(super) expires: Option<Spanned<Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawPeer {
    pub(super) namespaces: Option<Text>,
    pub(super) pods: Option<Text>,
    pub(super) service_account: Option<Text>,
    pub(super) cidr: Option<Text>,
    pub(super) except: Option<Spanned<Vec<Text>>>,
    pub(super) entity: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawTest {
    pub(super) from: Text,
    pub(super) to: Text,
    pub(super) port: Text,
    pub(super) expect: Text,
}
