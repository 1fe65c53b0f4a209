//! The files that the backend writes for the agent, and the status that it reads back.
//!
//! Files are replaced by renaming; there is one file for each policy format. To make sure that the
//! agent has read all files, the backend changes the name of an empty namespace in the inventory.
//! The agent reads policies after inventories and handles no requests in between, so once it lists
//! the new name, policies written before are in force or refused.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Wire;
use crate::conformance::backend::Policies;
use crate::conformance::inventory_text;
use crate::wait::eventually;

/// The file that holds the Kubernetes objects.
pub(super) const OBJECTS: &str = "objects.yaml";

/// Deadline for the agent to read a file, on a busy machine.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// An empty namespace that alternates between two names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marker {
    second: bool,
}

impl Marker {
    fn names(self) -> (&'static str, &'static str) {
        let names = ["conformance-marker-1", "conformance-marker-2"];
        let [present, absent] = names;
        if self.second {
            (absent, present)
        } else {
            (present, absent)
        }
    }
}

impl Wire {
    /// Replaces the files whose content changes.
    pub(super) fn write_policies(&mut self, policies: &Policies) -> Result<()> {
        if self.policies.objects != policies.objects {
            self.agent.write_document(OBJECTS, &policies.objects)?;
        }
        if self.policies.toml != policies.toml {
            self.agent.write_policies(&policies.toml)?;
        }
        self.policies = policies.clone();
        Ok(())
    }

    /// Replaces the inventory.
    pub(super) fn write_inventory(&mut self) -> Result<()> {
        let cluster = self.cluster.as_ref().context("there is no cluster yet")?;
        let interface = |name: &_| Some(self.present.get(name)?.interface.clone());
        let (marker, _) = self.marker.names();
        let inventory = inventory_text::of(cluster, interface).namespace(marker, &[]);
        self.agent.write_inventory(&inventory.build())
    }

    /// Waits until the agent has read all files as they are now; returns the errors in its status.
    pub(super) fn error_after_reading(&mut self) -> Result<Option<String>> {
        self.marker.second = !self.marker.second;
        self.write_inventory()?;
        let (marker, former) = self.marker.names();
        let read = eventually(READ_DEADLINE, "the agent to read its files", || {
            let modes = self.agent.cli_json(&["mode", "get"])?;
            let lists = |name: &str| {
                let namespaces = modes.as_array().into_iter().flatten();
                namespaces
                    .filter_map(|it| it.get("namespace")?.as_str())
                    .any(|it| it == name)
            };
            Ok((lists(marker) && !lists(former)).then_some(()))
        });
        let agent_error = agent_error(&self.agent.cli_json(&["status"])?);
        if agent_error.is_none() {
            read?;
        }
        Ok(agent_error)
    }
}

/// All errors in an agent's status, in one text.
fn agent_error(status: &Value) -> Option<String> {
    let sources = status.get("sources").and_then(Value::as_array);
    let errors = sources.into_iter().flatten().map(|it| it.get("error"));
    let mut errors: Vec<&str> = errors
        .chain([status.get("last_error")])
        .filter_map(|error| error?.as_str())
        .collect();
    errors.dedup();
    (!errors.is_empty()).then(|| errors.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_of_a_status_are_reported() {
        let status = |text: &str| agent_error(&serde_json::from_str(text).unwrap());
        assert_eq!(status("{}"), None);
        assert_eq!(
            status(r#"{"sources":[{"error":null}],"last_error":null}"#),
            None
        );
        let both = r#"{"sources":[{"state":"ok"},{"error":"a"}],"last_error":"b"}"#;
        assert_eq!(status(both).as_deref(), Some("a; b"));
    }
}
