//! The context in which inputs are evaluated: the example inventory and policies.

use std::sync::{Arc, LazyLock};

use ringfence::model::{Inventory, PolicySet};
use ringfence::source::{inventory_toml, policy_toml};

/// The inventory of `policies/`.
pub(crate) static INVENTORY: LazyLock<Arc<Inventory>> = LazyLock::new(|| {
    let text = include_str!("../../../policies/inventory.toml");
    let parts = inventory_toml::parse("inventory.toml", text).expect("the example is valid");
    let namespaces = parts.namespaces.into_iter().map(|declared| declared.item);
    let workloads = parts.workloads.into_iter().map(|declared| declared.item);
    let nodes = parts.nodes.into_iter().map(|declared| declared.item);
    let built = Inventory::build(namespaces.collect(), workloads.collect(), nodes.collect());
    Arc::new(built.expect("the example is consistent"))
});

/// The policies of `policies/`.
pub(crate) static POLICIES: LazyLock<Arc<PolicySet>> = LazyLock::new(|| {
    let text = include_str!("../../../policies/shop.toml");
    let parts = policy_toml::parse("shop.toml", text).expect("the example is valid");
    Arc::new(PolicySet::build(parts.policies).expect("no name is used twice"))
});
