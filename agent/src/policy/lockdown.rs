//! Which workloads a refused policy locks down.
//!
//! Only if the namespace enforces: in `observe` nothing is ever dropped, and `lockdown` drops
//! everything anyway.

use ringfence_common::mode::Mode;

use crate::model::{Inventory, Lockdown, Workload};

/// The refused policy that locks a workload down, if any.
#[must_use]
pub fn locked_by<'a>(
    locked: &'a [Lockdown],
    inventory: &Inventory,
    workload: &Workload,
    mode: Mode,
) -> Option<&'a Lockdown> {
    if mode != Mode::Enforce {
        return None;
    }
    let namespace = inventory.namespaces.get(&workload.id.namespace)?;
    locked.iter().find(|lockdown| {
        lockdown.selects(&workload.id.namespace, namespace.labels(), &workload.labels)
    })
}

/// The resulting override of an endpoint's mode as a map byte; 0 for none.
pub(super) fn mode_override(
    locked: &[Lockdown],
    inventory: &Inventory,
    workload: &Workload,
    mode: Mode,
) -> u8 {
    locked_by(locked, inventory, workload, mode).map_or(0, |_| Mode::Lockdown as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LabelSelector, LockedScope, NamespaceName, Origin};
    use crate::source::inventory_toml;

    const INVENTORY: &str = r#"
[[namespace]]
name = "shop"
labels = { env = "prod" }
[[namespace]]
name = "lab"
[[workload]]
name = "web"
namespace = "shop"
labels = { app = "web" }
addresses = ["10.0.0.1"]
[[workload]]
name = "db"
namespace = "shop"
labels = { app = "db" }
addresses = ["10.0.0.2"]
[[workload]]
name = "web"
namespace = "lab"
labels = { app = "web" }
addresses = ["10.0.0.3"]
"#;

    fn inventory() -> Inventory {
        let read = inventory_toml::parse("i.toml", INVENTORY).unwrap();
        Inventory::build(
            read.namespaces.into_iter().map(|d| d.item).collect(),
            read.workloads.into_iter().map(|d| d.item).collect(),
            Vec::new(),
        )
        .unwrap()
    }

    fn locked(scope: LockedScope, subject: &str, mode: Mode) -> Vec<String> {
        let inventory = inventory();
        let origin = Origin {
            file: "p.yaml".into(),
            line: 3,
        };
        let locked = [Lockdown {
            scope,
            subject: subject.parse().unwrap(),
            origin,
        }];
        inventory
            .workloads
            .values()
            .filter(|workload| locked_by(&locked, &inventory, workload, mode).is_some())
            .map(|workload| workload.id.to_string())
            .collect()
    }

    #[test]
    fn the_subjects_of_an_enforcing_namespace_are_locked_down() {
        let shop = || LockedScope::Namespace(NamespaceName::new("shop").unwrap());
        assert_eq!(locked(shop(), "app=web", Mode::Enforce), ["shop/web"]);
        assert_eq!(locked(shop(), "", Mode::Enforce), ["shop/db", "shop/web"]);
        let all = || LockedScope::Namespaces(LabelSelector::everything());
        assert_eq!(
            locked(all(), "app=web", Mode::Enforce),
            ["lab/web", "shop/web"]
        );
        let prod = LockedScope::Namespaces("env=prod".parse().unwrap());
        assert_eq!(locked(prod, "app=web", Mode::Enforce), ["shop/web"]);
        for mode in [Mode::Observe, Mode::Lockdown] {
            assert_eq!(locked(all(), "", mode), Vec::<String>::new());
        }
    }
}
