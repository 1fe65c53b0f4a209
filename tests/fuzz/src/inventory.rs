//! Inventory files: accepted ones are consistent, and the example policies compile with them.

use std::sync::Arc;

use ringfence::model::{Inventory, check_namespaces};
use ringfence::source::{InventoryFragment, inventory_toml};

use crate::example::POLICIES;
use crate::{message, policy};

/// An inventory file.
pub fn inventory(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match inventory_toml::parse("f", text) {
        Ok(fragment) => {
            message::check_all(&fragment.warnings);
            check_accepted(fragment);
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a reason");
            message::check_all(&errors);
        }
    }
}

fn check_accepted(fragment: InventoryFragment) {
    let namespaces = fragment.namespaces.into_iter().map(|found| found.item);
    let workloads = fragment.workloads.into_iter().map(|found| found.item);
    let nodes = fragment.nodes.into_iter().map(|found| found.item);
    match Inventory::build(namespaces.collect(), workloads.collect(), nodes.collect()) {
        Ok(inventory) => match check_namespaces(&POLICIES, &inventory) {
            Ok(()) => policy::check_compiled(&Arc::new(inventory), &POLICIES),
            Err(unknown) => unknown.iter().for_each(message::check),
        },
        Err(errors) => {
            assert!(!errors.is_empty(), "inconsistent without a reason");
            errors.iter().for_each(message::check);
        }
    }
}
