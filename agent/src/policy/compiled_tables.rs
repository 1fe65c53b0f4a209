//! The rows of every table in force, updated as classes change.
//!
//! Invariants: a table's rows are those of its specification for the classes that match any of its
//! selectors. Unchanged rows keep their `Arc`, so that planning can skip them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use ringfence_common::ids::{ClassId, TableId};

use super::{
    classes::{Classes, ServicePorts},
    digest::Digest,
    rows::{self, Peers},
    table::TableSpec,
};
use crate::plan::TableRows;

struct CompiledTable {
    spec: Arc<TableSpec>,
    asked: HashSet<Digest>,
    classes: BTreeSet<ClassId>,
    /// The classes of Services whose rows are included.
    services: BTreeSet<ClassId>,
    rows: Arc<TableRows>,
}

/// The rows of all tables.
#[derive(Default)]
pub(crate) struct CompiledTables {
    compiled: BTreeMap<TableId, CompiledTable>,
}

impl CompiledTables {
    /// Whether exactly these tables are present.
    pub(crate) fn are(&self, tables: &BTreeMap<TableId, Arc<TableSpec>>) -> bool {
        self.compiled.keys().eq(tables.keys())
    }

    /// Adds new tables and removes those that are no longer wanted; returns both.
    pub(crate) fn turn(
        &mut self,
        tables: &BTreeMap<TableId, Arc<TableSpec>>,
    ) -> [Vec<Arc<TableSpec>>; 2] {
        let (mut came, mut gone) = (Vec::new(), Vec::new());
        self.compiled.retain(|id, compiled_table| {
            let stays = tables.contains_key(id);
            if !stays {
                gone.push(Arc::clone(&compiled_table.spec));
            }
            stays
        });
        for (id, spec) in tables {
            self.compiled.entry(*id).or_insert_with(|| {
                came.push(Arc::clone(spec));
                CompiledTable {
                    spec: Arc::clone(spec),
                    asked: spec.selectors().map(|selector| selector.digest).collect(),
                    classes: BTreeSet::new(),
                    services: BTreeSet::new(),
                    rows: Arc::new(rows::for_anyone(*id, spec)),
                }
            });
        }
        [came, gone]
    }

    /// Updates the rows for the current classes.
    pub(crate) fn update(&mut self, classes: &Classes) {
        let behind: Vec<(ClassId, &ServicePorts)> = (classes.services())
            .map(|(id, ports)| (id, &**ports))
            .collect();
        let services: BTreeSet<ClassId> = behind.iter().map(|(id, _)| *id).collect();
        for (id, compiled_table) in &mut self.compiled {
            let now = classes.matching(&compiled_table.asked);
            if now == compiled_table.classes && services == compiled_table.services {
                continue;
            }
            let rows = Arc::make_mut(&mut compiled_table.rows);
            let is_whole = compiled_table.classes.is_subset(&now)
                && compiled_table.services.is_subset(&services);
            if !is_whole {
                let stays = |class: &ClassId| now.contains(class) || services.contains(class);
                rows.retain(|(_, key), _| key.class == ClassId::ANY || stays(&key.class));
            }
            let new = now.difference(&compiled_table.classes).map(|class| Peers {
                id: *class,
                matched: classes.matched(*class),
            });
            rows::add_classes(rows, (*id, &compiled_table.spec), &new);
            let new = behind
                .iter()
                .filter(|(id, _)| !compiled_table.services.contains(id));
            let matched = |class| classes.matched(class);
            rows::add_services(rows, (*id, &compiled_table.spec), new.copied(), matched);
            compiled_table.classes = now;
            compiled_table.services.clone_from(&services);
        }
    }

    /// The rows by table.
    pub(crate) fn rows(&self) -> BTreeMap<TableId, Arc<TableRows>> {
        let rows = self.compiled.iter();
        rows.map(|(id, compiled_table)| (*id, Arc::clone(&compiled_table.rows)))
            .collect()
    }
}
