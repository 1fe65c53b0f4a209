//! `[budgets]`: what the policies of one namespace may need.
//!
//! Invariant: a budget is at least 1.

use serde::Deserialize;
use toml::Spanned;

use crate::model::{DEFAULT_BUDGET, Needs};
use crate::source::document::Document;

/// The table as it is in the file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBudgets {
    rules: Option<Spanned<u64>>,
    selectors: Option<Spanned<u64>>,
    cidrs: Option<Spanned<u64>>,
    rows: Option<Spanned<u64>>,
}

/// Checks values; refuses what is wrong in the document.
pub(super) fn read(document: &mut Document<'_>, raw: RawBudgets) -> Needs {
    let mut of = |budget: Option<Spanned<u64>>, default: u64| {
        let Some(budget) = budget else {
            return default;
        };
        if *budget.get_ref() == 0 {
            document.refuse(budget.span(), "not a budget: expected at least 1");
        }
        *budget.get_ref()
    };
    Needs {
        rules: of(raw.rules, DEFAULT_BUDGET.rules),
        selectors: of(raw.selectors, DEFAULT_BUDGET.selectors),
        cidrs: of(raw.cidrs, DEFAULT_BUDGET.cidrs),
        rows: of(raw.rows, DEFAULT_BUDGET.rows),
    }
}
