//! Which Services keep their backends when not everything fits into the kernel's maps.
//!
//! Pure, except for the question whether an inventory fits. Invariants: policies go before Services, because a Service
//! without backends is denied, and a policy that is not in force may allow; Services of the namespaces with the most ports
//! go first, so that one that asks for too much takes the room of no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Inventory, NamespaceName, Service};

/// An inventory that fits.
#[derive(Debug)]
pub(super) struct Reduced {
    pub(super) inventory: Arc<Inventory>,
    /// The namespaces whose Services have no backends in it.
    pub(super) namespaces: Vec<NamespaceName>,
}

/// Leaves out the backends of Services until the inventory fits; `None` if it does not without any.
pub(super) fn reduce(
    inventory: &Inventory,
    mut fits: impl FnMut(&Arc<Inventory>) -> bool,
) -> Option<Reduced> {
    let namespaces = by_ports(inventory);
    let mut count = 1;
    while !namespaces.is_empty() {
        let left_out = namespaces.get(..count).unwrap_or(&namespaces);
        let reduced = without_backends(inventory, left_out);
        if fits(&reduced) {
            return Some(Reduced {
                inventory: reduced,
                namespaces: left_out.to_vec(),
            });
        }
        if count >= namespaces.len() {
            break;
        }
        count *= 2;
    }
    None
}

/// An inventory in which no Service has backends.
pub(super) fn without_any(inventory: &Inventory) -> Reduced {
    let namespaces = by_ports(inventory);
    Reduced {
        inventory: without_backends(inventory, &namespaces),
        namespaces,
    }
}

/// The namespaces with Services, those with the most ports first.
fn by_ports(inventory: &Inventory) -> Vec<NamespaceName> {
    let mut ports: BTreeMap<&NamespaceName, usize> = BTreeMap::new();
    for service in inventory.services.values() {
        *ports.entry(&service.id.namespace).or_default() += service.ports.len();
    }
    let mut namespaces: Vec<_> = ports.into_iter().collect();
    namespaces.sort_by_key(|(_, ports)| std::cmp::Reverse(*ports));
    namespaces
        .into_iter()
        .map(|(name, _)| name.clone())
        .collect()
}

fn without_backends(inventory: &Inventory, namespaces: &[NamespaceName]) -> Arc<Inventory> {
    let mut reduced = inventory.clone();
    for (id, service) in &inventory.services {
        if namespaces.contains(&id.namespace) && !service.ports.is_empty() {
            let service = Service {
                ports: BTreeMap::new(),
                ..Service::clone(service)
            };
            reduced.services.insert(id.clone(), Arc::new(service));
        }
    }
    Arc::new(reduced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ServiceId, ServiceName, ServicePort};

    fn inventory(services: &[(&str, &str, u16)]) -> Inventory {
        let mut inventory = Inventory::default();
        for (namespace, name, ports) in services {
            let id = ServiceId {
                namespace: namespace.parse().unwrap(),
                name: ServiceName::new(name).unwrap(),
            };
            let ports = (0..*ports).map(|port| (ServicePort { protocol: 6, port }, [].into()));
            let service = Service {
                id: id.clone(),
                addresses: Vec::new(),
                ports: ports.collect(),
            };
            inventory.services.insert(id, Arc::new(service));
        }
        inventory
    }

    fn ports(inventory: &Inventory) -> usize {
        let services = inventory.services.values();
        services.map(|service| service.ports.len()).sum()
    }

    #[test]
    fn the_namespaces_with_the_most_ports_go_first() {
        let full = inventory(&[("a", "x", 3), ("b", "x", 5), ("b", "y", 5), ("c", "x", 4)]);
        for (room, expected, left) in [
            (17, &["b"][..], 7),
            (7, &["b"], 7),
            (6, &["b", "c"], 3),
            (3, &["b", "c"], 3),
            (2, &["b", "c", "a"], 0),
        ] {
            let found = reduce(&full, |it| ports(it) <= room).unwrap();
            let names: Vec<&str> = found.namespaces.iter().map(NamespaceName::as_str).collect();
            assert_eq!(
                (names.as_slice(), ports(&found.inventory)),
                (expected, left),
                "{room}"
            );
            assert_eq!(found.inventory.services.len(), 4, "all of them stay");
        }
        assert!(reduce(&full, |_| false).is_none());
        assert!(reduce(&Inventory::default(), |_| true).is_none());
    }
}
