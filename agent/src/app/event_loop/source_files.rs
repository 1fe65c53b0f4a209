//! The sources in the event loop: the first read of files, and what all sources deliver then.
//!
//! Invariant: nothing is published before every source knows all of its objects, or what an earlier agent knew.

use std::{io, path::PathBuf, time::Instant};

use tracing::{error, warn};

use super::{Agent, api};
use crate::{
    app::{
        AppError,
        last_good_store::{self, Found, Unusable},
        object_store::Unstored,
    },
    config::Config,
    source::{
        FileSet, FileSource, Known, ObjectSource, ObjectSources, Objects, Reload, SourceError,
        kubernetes_api::KUBERNETES, last_good::Change,
    },
};

/// The configured files, read before anything is changed.
pub(in crate::app) struct Sources {
    files: FileSet,
    objects: Objects,
    first: Reload,
    /// The records of last good content that cannot be used.
    unusable: Vec<(PathBuf, Unusable)>,
    api: Option<api::Api>,
}

impl Sources {
    pub(in crate::app) fn load(config: &Config) -> Result<Self, AppError> {
        let api = api::Api::new(config)?;
        let Found { stored, unusable } =
            last_good_store::read(&last_good_store::directory(&config.state_dir));
        let (inventory, policies) = (config.inventory.clone(), config.policies.clone());
        let loaded = FileSet::load_lenient(inventory, policies, config.budget, &stored);
        let (files, objects, first) = loaded.map_err(AppError::Invalid)?;
        for problem in &first.errors {
            log(problem);
        }
        for warning in &first.warnings {
            warn!("{warning}");
        }
        Ok(Self {
            files,
            objects,
            first,
            unusable,
            api,
        })
    }

    /// Why objects of the API server are not stored.
    pub(super) fn unstored_objects(&self) -> Unstored {
        self.api
            .as_ref()
            .map(api::Api::unstored)
            .unwrap_or_default()
    }

    /// Watches the files, with what was read of them so far, and the API server if there is one.
    pub(super) fn watch(self) -> io::Result<(ObjectSources, Reload)> {
        let files: Box<dyn ObjectSource> = Box::new(FileSource::watch(self.files)?);
        let mut sources = vec![files];
        if let Some(api) = self.api {
            sources.push(api.watch()?);
        }
        Ok((ObjectSources::new(self.objects, sources), self.first))
    }

    /// Sets aside the records that cannot be used. Call it when no other agent uses the state.
    pub(super) fn set_aside(&mut self) {
        for (path, why) in self.unusable.drain(..) {
            let outcome = match last_good_store::set_aside(&path) {
                Ok(aside) => format!("set aside as {}", aside.display()),
                Err(error) => format!("cannot be set aside: {error}"),
            };
            warn!(
                "{}: last good content cannot be used: {why}; {outcome}",
                path.display()
            );
        }
    }
}

fn log(problem: &SourceError) {
    if problem.line == 0 {
        // It says itself what is in force.
        error!("{problem}");
    } else {
        error!("{problem}; any last good content of it stays in force");
    }
}

impl Agent {
    /// Publishes what the sources have changed, if they have.
    pub(super) fn deliver_and_publish(&mut self) {
        let has_changed = self.deliver(false);
        // The first pass waits for all sources, which may have nothing; once they know all objects, there may
        // be something to remove that none of them has ever named.
        let know_more = self.sources.known() > self.known;
        if has_changed || know_more {
            self.publish();
        }
        self.shared.show();
    }

    /// Has the sources deliver, and look at everything if asked to. Returns whether anything changed.
    pub(super) fn deliver(&mut self, rereads: bool) -> bool {
        let mut reload = self.sources.deliver(rereads, Instant::now());
        let about_labels = self.shared.applied().modes.labels.follow(
            &reload.inventory.namespaces,
            &reload.undeclared,
            self.sources.known() == Known::All,
        );
        reload.errors.extend(about_labels.iter().cloned());
        self.next_reload = reload.next_change;
        self.remember(reload.changes);
        self.shared
            .metrics
            .set_refused_files(reload.refused.by_name());
        for problem in &reload.errors {
            if !self.shared.applied().errors.contains(problem) {
                log(problem);
                let is_of_api = *problem.file == *KUBERNETES.name;
                let source = if is_of_api { KUBERNETES.name } else { "files" };
                self.shared.metrics.count_reload_error(source);
            }
        }
        for warning in &reload.warnings {
            if !self.shared.applied().warnings.contains(warning) {
                warn!("{warning}");
            }
        }
        let mut applied = self.shared.applied();
        applied.restored = reload.restored;
        applied.errors = reload.errors;
        applied.warnings = reload.warnings;
        self.surroundings.set_ranges(reload.cluster_ranges);
        self.surroundings.set_services(reload.services);
        applied.inventory = self
            .surroundings
            .around(reload.inventory, &applied.interfaces);
        applied.policies = reload.policies;
        applied.locked = reload.locked;
        reload.changed
    }

    /// Takes over the interfaces as they are now, with the node's addresses.
    pub(super) fn take_links(&mut self) {
        let links = self.interfaces.links();
        let mut applied = self.shared.applied();
        applied.inventory = self.surroundings.on(&links);
        applied.interfaces = links;
    }

    /// Has what is known of the files stored.
    pub(super) fn remember(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.last_good.write(changes);
        }
    }
}
