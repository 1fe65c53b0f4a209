//! Policy files of every language: selects the parser for a file and defines the parsers' result.
//!
//! `*.yaml`, `*.yml` and `*.json` files are Kubernetes objects, all other files are TOML.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::document::SourceError;
use super::last_good::Kind;
use super::limits::{MAX_KUBERNETES_SIZE, MAX_TOML_POLICY_SIZE};
use super::tracked_files::Fragment;
use super::{kubernetes, policy_toml, refused_subjects, toml_error_names};
use crate::model::{Lockdown, Policy};

/// The content of one policy file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyFragment {
    /// Its policies in file order.
    pub policies: Vec<Arc<Policy>>,
    /// The warnings about the file.
    pub warnings: Vec<SourceError>,
}

impl Fragment for PolicyFragment {
    const KIND: Kind = Kind::Policies;
    const EXTENSIONS: &'static [&'static str] = &["toml", "yaml", "yml", "json"];

    fn max_size(file_name: &str) -> usize {
        if is_kubernetes(file_name) {
            MAX_KUBERNETES_SIZE
        } else {
            MAX_TOML_POLICY_SIZE
        }
    }

    fn parse(file_name: &str, text: &str) -> Result<Self, Vec<SourceError>> {
        if is_kubernetes(file_name) {
            kubernetes::parse(file_name, text)
        } else {
            policy_toml::parse(file_name, text)
                .map_err(|errors| toml_error_names::add_policy_names(text, errors))
        }
    }

    fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    fn refused_subjects(file_name: &str, text: &str) -> Vec<Lockdown> {
        let mut found = if is_kubernetes(file_name) {
            kubernetes::refused_subjects::subjects(file_name, text)
        } else {
            refused_subjects::in_toml(file_name, text)
        };
        found.sort();
        found.dedup();
        found
    }

    fn subjects(&self) -> Vec<Lockdown> {
        let policies = self.policies.iter();
        policies.map(|policy| Lockdown::of(policy)).collect()
    }

    fn reuse_equal(&mut self, older: &Self) {
        let known: HashMap<crate::model::PolicyId, &Arc<Policy>> = older
            .policies
            .iter()
            .map(|policy| (policy.id(), policy))
            .collect();
        for policy in &mut self.policies {
            if let Some(same) = known.get(&policy.id())
                && *same == policy
            {
                *policy = Arc::clone(same);
            }
        }
    }

    fn warnings(&self) -> &[SourceError] {
        &self.warnings
    }
}

fn is_kubernetes(file_name: &str) -> bool {
    let extension = Path::new(file_name).extension();
    extension.is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension == *known)
    })
}
