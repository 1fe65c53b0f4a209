//! What the stage tells the agent through files, and what it hears back.
//!
//! Files are replaced by renaming, each kind of policy in one file of its own. To know that the
//! agent has read everything up to now, the stage changes the name of an empty namespace in the
//! inventory: the agent reads policies after inventories and answers nobody in between, so when
//! it lists the new name, policies written before are in force or refused.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Wire;
use crate::conformance::inventory_text;
use crate::conformance::stage::Policies;
use crate::wait::eventually;

/// The file that holds the Kubernetes objects.
pub(super) const OBJECTS: &str = "objects.yaml";

/// By when the agent has read a file, on a busy machine.
const READ: Duration = Duration::from_secs(10);

/// An empty namespace that comes and goes under two names.
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
    /// Replaces the files that differ.
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
        let world = self.world.as_ref().context("an inventory of no world")?;
        let interface = |name: &_| Some(self.present.get(name)?.interface.clone());
        let (marker, _) = self.marker.names();
        let inventory = inventory_text::of(world, interface).namespace(marker, &[]);
        self.agent.write_inventory(&inventory.build())
    }

    /// Waits until the agent has read all files as they are now; then what it says is wrong.
    pub(super) fn complaint_once_read(&mut self) -> Result<Option<String>> {
        self.marker.second = !self.marker.second;
        self.write_inventory()?;
        let (marker, former) = self.marker.names();
        let read = eventually(READ, "the agent to read its files", || {
            let modes = self.agent.cli_json(&["mode", "get"])?;
            let lists = |name: &str| {
                let namespaces = modes.as_array().into_iter().flatten();
                namespaces
                    .filter_map(|it| it.get("namespace")?.as_str())
                    .any(|it| it == name)
            };
            Ok((lists(marker) && !lists(former)).then_some(()))
        });
        let complaint = complaint(&self.agent.cli_json(&["status"])?);
        if complaint.is_none() {
            read?;
        }
        Ok(complaint)
    }
}

/// Every error in an agent's status, in one text.
fn complaint(status: &Value) -> Option<String> {
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
    fn every_error_of_a_status_is_told() {
        let status = |text: &str| complaint(&serde_json::from_str(text).unwrap());
        assert_eq!(status("{}"), None);
        assert_eq!(
            status(r#"{"sources":[{"error":null}],"last_error":null}"#),
            None
        );
        let both = r#"{"sources":[{"state":"ok"},{"error":"a"}],"last_error":"b"}"#;
        assert_eq!(status(both).as_deref(), Some("a; b"));
    }
}
