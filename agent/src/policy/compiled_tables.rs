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
    classes::Classes,
    numbers::Digest,
    rows::{self, Peers},
    table::TableSpec,
};
use crate::plan::TableRows;

struct CompiledTable {
    spec: Arc<TableSpec>,
    asked: HashSet<Digest>,
    classes: BTreeSet<ClassId>,
    rows: Arc<TableRows>,
}

/// The rows of all tables.
#[derive(Default)]
pub(crate) struct CompiledTables {
    sheets: BTreeMap<TableId, CompiledTable>,
}

impl CompiledTables {
    /// Whether exactly these tables are present.
    pub(crate) fn are(&self, tables: &BTreeMap<TableId, Arc<TableSpec>>) -> bool {
        self.sheets.keys().eq(tables.keys())
    }

    /// Adds new tables and removes those that are no longer wanted; returns both.
    pub(crate) fn turn(
        &mut self,
        tables: &BTreeMap<TableId, Arc<TableSpec>>,
    ) -> [Vec<Arc<TableSpec>>; 2] {
        let (mut came, mut gone) = (Vec::new(), Vec::new());
        self.sheets.retain(|id, sheet| {
            let stays = tables.contains_key(id);
            if !stays {
                gone.push(Arc::clone(&sheet.spec));
            }
            stays
        });
        for (id, spec) in tables {
            self.sheets.entry(*id).or_insert_with(|| {
                came.push(Arc::clone(spec));
                CompiledTable {
                    spec: Arc::clone(spec),
                    asked: spec.selectors().map(|selector| selector.digest).collect(),
                    classes: BTreeSet::new(),
                    rows: Arc::new(rows::for_anyone(*id, spec)),
                }
            });
        }
        [came, gone]
    }

    /// Updates the rows for the current classes.
    pub(crate) fn update(&mut self, classes: &Classes) {
        for (id, sheet) in &mut self.sheets {
            let now = classes.matching(&sheet.asked);
            if now == sheet.classes {
                continue;
            }
            let rows = Arc::make_mut(&mut sheet.rows);
            if !sheet.classes.is_subset(&now) {
                rows.retain(|(_, key), _| key.class == ClassId::ANY || now.contains(&key.class));
            }
            let new = now.difference(&sheet.classes).map(|class| Peers {
                id: *class,
                matched: classes.matched(*class),
            });
            rows::add_classes(rows, (*id, &sheet.spec), &new);
            sheet.classes = now;
        }
    }

    /// The rows by table.
    pub(crate) fn rows(&self) -> BTreeMap<TableId, Arc<TableRows>> {
        let rows = self.sheets.iter();
        rows.map(|(id, sheet)| (*id, Arc::clone(&sheet.rows)))
            .collect()
    }
}
