//! The sources of objects, behind one trait, and what they have delivered together.
//!
//! Invariants: what is in force and what is reported do not depend on which source changed first; a source
//! that delivers nothing new holds nothing back.

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{LocalBoxFuture, select_all};
use ipnet::IpNet;

use super::document::SourceError;
use super::last_good::{self, Refused};
use super::objects::Objects;
use crate::model::{Inventory, Lockdown, NamespaceName, PolicySet, Service, ServiceId};
use crate::ordmap::Map;

/// How much the sources know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    /// Not all objects. Nothing is published.
    NotYet,
    /// What an earlier agent knew. Nothing is removed from the kernel.
    Restored,
    /// All objects.
    All,
}

/// What one source says besides its objects.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// All current errors of its own objects, including those reported before.
    pub errors: Vec<SourceError>,
    /// The warnings about its objects in force.
    pub warnings: Vec<SourceError>,
    /// How much of it is refused.
    pub refused: Refused,
    /// What is to be remembered for the next start otherwise than before.
    pub changes: Vec<last_good::Change>,
    /// The ranges of the cluster that it knows, in which addresses without an owner are not the world's.
    pub cluster_ranges: BTreeSet<IpNet>,
    /// The Services that it knows. One source at most has any.
    pub services: Map<ServiceId, Arc<Service>>,
    /// When what is in force was stored, in seconds since 1970, if an earlier agent stored it and its source
    /// cannot be asked.
    pub restored: Option<i64>,
    /// When to deliver again although nothing has changed.
    pub next_change: Option<Instant>,
}

/// A source of workloads, namespaces, nodes and policies.
pub trait ObjectSource {
    /// Waits until something may have changed. Safe to cancel.
    fn changed(&mut self) -> LocalBoxFuture<'_, io::Result<()>>;

    /// Says that the next delivery is to look at everything, though nothing may have changed.
    fn reread(&mut self);

    /// How much it knows of its objects. Until every source knows all, nothing is removed that a source may
    /// not have named yet.
    fn known(&self) -> Known {
        Known::All
    }

    /// Changes its objects to what they are now, as far as that contradicts no others, and says what is
    /// wrong with them. What is wrong with objects by their relation to those of other sources is not part
    /// of the report, see [`Objects::errors`].
    fn deliver(&mut self, objects: &mut Objects, now: Instant) -> Report;
}

/// What is in force after a delivery of all sources.
#[derive(Debug, Clone)]
pub struct Reload {
    /// True if the inventory, the policies, the locked-down subjects, the ranges or the Services have changed.
    pub changed: bool,
    /// The inventory in force.
    pub inventory: Arc<Inventory>,
    /// The namespaces that workloads are in and that no source declares.
    pub undeclared: Map<NamespaceName, ()>,
    /// The policies in force.
    pub policies: Arc<PolicySet>,
    /// The subjects of refused policies of which no content was ever in force.
    pub locked: Arc<Vec<Lockdown>>,
    /// All current errors, including those reported before.
    pub errors: Vec<SourceError>,
    /// The warnings about the objects in force.
    pub warnings: Vec<SourceError>,
    /// How much is refused.
    pub refused: Refused,
    /// The ranges of the cluster that sources know.
    pub cluster_ranges: BTreeSet<IpNet>,
    /// The Services that sources know.
    pub services: Map<ServiceId, Arc<Service>>,
    /// What is to be remembered otherwise than before.
    pub changes: Vec<last_good::Change>,
    /// When what is in force was stored, if an earlier agent stored it.
    pub restored: Option<i64>,
    /// When to deliver again although nothing has changed: content is removed then, or an error
    /// reported.
    pub next_change: Option<Instant>,
}

impl Reload {
    /// What is in force, what it was, and what the sources report.
    pub(super) fn new(before: &Objects, objects: &Objects, reports: Vec<Report>) -> Self {
        let mut reload = Self {
            changed: !is_same(before, objects),
            inventory: Arc::clone(objects.inventory()),
            undeclared: objects.store().undeclared().clone(),
            policies: Arc::clone(objects.policies()),
            locked: Arc::clone(objects.locked()),
            errors: objects.errors(),
            warnings: Vec::new(),
            refused: Refused::default(),
            cluster_ranges: BTreeSet::new(),
            services: Map::new(),
            changes: Vec::new(),
            restored: None,
            next_change: None,
        };
        for report in reports {
            reload.errors.extend(report.errors);
            reload.warnings.extend(report.warnings);
            reload.refused = reload.refused.plus(report.refused);
            reload.changes.extend(report.changes);
            reload.cluster_ranges.extend(report.cluster_ranges);
            if !report.services.is_empty() {
                reload.services = report.services;
            }
            reload.restored = reload.restored.or(report.restored);
            let times = [reload.next_change, report.next_change];
            reload.next_change = times.into_iter().flatten().min();
        }
        reload.errors.sort();
        reload.errors.dedup();
        reload
    }
}

fn is_same(before: &Objects, now: &Objects) -> bool {
    Arc::ptr_eq(before.inventory(), now.inventory())
        && Arc::ptr_eq(before.policies(), now.policies())
        && Arc::ptr_eq(before.locked(), now.locked())
}

/// All sources, and their objects.
pub struct ObjectSources {
    objects: Objects,
    sources: Vec<Box<dyn ObjectSource>>,
    cluster_ranges: BTreeSet<IpNet>,
    services: Map<ServiceId, Arc<Service>>,
}

impl ObjectSources {
    /// Sources that have delivered these objects so far.
    #[must_use]
    pub fn new(objects: Objects, sources: Vec<Box<dyn ObjectSource>>) -> Self {
        Self {
            objects,
            sources,
            cluster_ranges: BTreeSet::new(),
            services: Map::new(),
        }
    }

    /// Waits until something may have changed. Safe to cancel.
    ///
    /// # Errors
    /// When a source cannot tell any more.
    pub async fn changed(&mut self) -> io::Result<()> {
        if self.sources.is_empty() {
            return pending().await;
        }
        let sources = self.sources.iter_mut();
        let (changed, ..) = select_all(sources.map(|source| source.changed())).await;
        changed
    }

    /// How much every source knows.
    #[must_use]
    pub fn known(&self) -> Known {
        let known = self.sources.iter().map(|source| source.known());
        known.min().unwrap_or(Known::All)
    }

    /// Has every source deliver, and look at everything if asked to.
    pub fn deliver(&mut self, rereads: bool, now: Instant) -> Reload {
        let before = self.objects.clone();
        if rereads {
            self.sources.iter_mut().for_each(|source| source.reread());
        }
        let (mut reports, mut changes) = (Vec::new(), Vec::new());
        // What one source delivers may be what another one lacked, once for each of them.
        for _ in 0..self.sources.len() {
            let start = self.objects.clone();
            let objects = &mut self.objects;
            let sources = self.sources.iter_mut();
            reports = sources.map(|it| it.deliver(objects, now)).collect();
            let of_round = reports.iter_mut();
            of_round.for_each(|report| changes.append(&mut report.changes));
            if is_same(&start, &self.objects) {
                break;
            }
        }
        let mut reload = Reload::new(&before, &self.objects, reports);
        reload.changes = changes;
        if self.cluster_ranges != reload.cluster_ranges {
            self.cluster_ranges.clone_from(&reload.cluster_ranges);
            reload.changed = true;
        }
        if !self.services.is_same(&reload.services) {
            self.services = reload.services.clone();
            reload.changed = true;
        }
        reload
    }
}

#[cfg(test)]
mod tests {
    use super::Known::{All, NotYet, Restored};
    use super::*;
    use crate::model::DEFAULT_BUDGET;

    struct Fake(Known);

    impl ObjectSource for Fake {
        fn changed(&mut self) -> LocalBoxFuture<'_, io::Result<()>> {
            Box::pin(pending())
        }

        fn reread(&mut self) {}

        fn known(&self) -> Known {
            self.0
        }

        fn deliver(&mut self, _: &mut Objects, _: Instant) -> Report {
            Report {
                restored: (self.0 == Known::Restored).then_some(5),
                ..Report::default()
            }
        }
    }

    #[test]
    fn no_more_is_known_than_the_source_knows_that_knows_least() {
        let all = |known: &[Known]| {
            let sources = known
                .iter()
                .map(|it| Box::new(Fake(*it)) as Box<dyn ObjectSource>);
            let objects = Objects::new(DEFAULT_BUDGET);
            let mut sources = ObjectSources::new(objects, sources.collect());
            let restored = sources.deliver(false, Instant::now()).restored;
            (sources.known(), restored)
        };
        assert_eq!(all(&[]), (All, None));
        assert_eq!(all(&[All, All]), (All, None));
        assert_eq!(all(&[All, Restored]), (Restored, Some(5)));
        assert_eq!(all(&[NotYet, All, Restored]), (NotYet, Some(5)));
    }
}
