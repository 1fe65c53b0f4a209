//! Commands of the control API: each gets one answer, once it is in force or has failed.

use tracing::{info, warn};

use super::Agent;
use crate::{
    model::{ModeName, NamespaceName},
    server::Command,
    source::Known,
};

impl Agent {
    pub(super) fn handle_command(&mut self, command: Command) {
        match command {
            Command::SetMode {
                namespace,
                mode,
                reply,
            } => {
                let outcome = self.set_mode(&namespace, mode);
                // Fails if the client has disconnected.
                let _ = reply.send(outcome);
            }
            Command::Reload { reply } => {
                self.deliver(true);
                let outcome = self.publish_and_report();
                let problems = self.shared.applied().problems();
                let first = problems.first().map(ToString::to_string);
                let _ = reply.send(outcome.and(first.map_or(Ok(()), Err)));
            }
        }
    }

    fn set_mode(
        &mut self,
        namespace: &NamespaceName,
        mode: Option<ModeName>,
    ) -> Result<(), String> {
        let mut applied = self.shared.applied();
        // A source that has not named its objects yet may have it.
        let is_known = applied.inventory.namespaces.contains_key(namespace);
        if !is_known && self.sources.known() == Known::All {
            return Err(format!(
                "unknown namespace {namespace}: expected a namespace of the inventory"
            ));
        }
        applied.modes.set(namespace.clone(), mode);
        drop(applied);
        // First, because it must not wait for the disk.
        let mut outcome = self.publish_and_report();
        if mode == Some(ModeName::Lockdown) && self.reconciler.is_locked_down(namespace) {
            outcome = Ok(());
        }
        let mut applied = self.shared.applied();
        if let Err(error) = applied.modes.store() {
            warn!("{}: {error}", applied.modes.unstored_text(namespace));
        }
        drop(applied);
        self.shared.show();
        outcome
    }

    /// Stores the modes that could not be stored before.
    pub(super) fn store_modes(&mut self) {
        let mut applied = self.shared.applied();
        if let Err(error) = applied.modes.labels.store() {
            warn!(
                "cannot store what labels of namespaces say about modes: {error}; it is tried again"
            );
        }
        if !applied.modes.unstored().is_empty() && applied.modes.store().is_ok() {
            info!("the modes set at run time are stored again");
        }
    }

    fn publish_and_report(&mut self) -> Result<(), String> {
        self.publish();
        if self.sources.known() == Known::NotYet {
            let waits =
                "the API server has not named all of its objects yet: it takes effect when it has";
            return Err(waits.to_owned());
        }
        self.shared.applied().failure.clone().map_or(Ok(()), Err)
    }
}
