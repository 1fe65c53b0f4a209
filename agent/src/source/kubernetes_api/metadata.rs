//! `metadata` of an object of the Kubernetes API, as far as the agent needs it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::model::Labels;

/// The metadata of an object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    pub(super) uid: String,
    pub(super) creation_timestamp: Option<String>,
    pub(super) deletion_timestamp: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

impl Metadata {
    /// The labels. One that is none is left out, and is an error: an object without all of its labels is
    /// still better known than no object.
    pub(super) fn labels(&self, errors: &mut Vec<String>) -> Labels {
        let mut labels = Labels::new();
        for (key, value) in self.labels.iter().flatten() {
            if let Err(error) = labels.insert(key.clone(), value.clone()) {
                errors.push(error.to_string());
            }
        }
        labels
    }

    /// When it was created, in seconds since 1970; 0 if that is not known.
    pub(super) fn created(&self) -> i64 {
        let time = self.creation_timestamp.as_deref();
        let time = time.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        time.map_or(0, jiff::Timestamp::as_second)
    }
}
