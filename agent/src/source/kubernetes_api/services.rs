//! The Services of the model, each put together from its object and its EndpointSlices.
//!
//! Pure. Invariants: the result does not depend on the order in which objects come; an update costs what the Services
//! of changed objects have. The backends of a port are those that a node's proxy may choose: the ready ones, or if
//! there are none those that end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::object::SliceId;
use super::service::{Endpoint, ServiceObject, SliceObject};
use crate::model::{Backend, Service, ServiceId, ServicePort};
use crate::ordmap::Map;

/// Every Service.
#[derive(Debug, Default)]
pub(super) struct Services {
    objects: BTreeMap<ServiceId, Arc<ServiceObject>>,
    slices: BTreeMap<SliceId, Arc<SliceObject>>,
    /// The slices of each Service.
    of: BTreeMap<ServiceId, BTreeSet<SliceId>>,
    changed: BTreeSet<ServiceId>,
    all: Map<ServiceId, Arc<Service>>,
}

impl Services {
    /// Takes over a Service; `None` if it is gone.
    pub(super) fn set(&mut self, id: &ServiceId, object: Option<Arc<ServiceObject>>) {
        match object {
            Some(object) => self.objects.insert(id.clone(), object),
            None => self.objects.remove(id),
        };
        self.changed.insert(id.clone());
    }

    /// Takes over a slice; `None` if it is gone.
    pub(super) fn set_slice(&mut self, id: &SliceId, slice: Option<Arc<SliceObject>>) {
        if let Some(before) = self.slices.remove(id).and_then(|it| owner(id, &it)) {
            if let Some(slices) = self.of.get_mut(&before) {
                slices.remove(id);
                if slices.is_empty() {
                    self.of.remove(&before);
                }
            }
            self.changed.insert(before);
        }
        let Some(slice) = slice else {
            return;
        };
        if let Some(service) = owner(id, &slice) {
            self.of
                .entry(service.clone())
                .or_default()
                .insert(id.clone());
            self.changed.insert(service);
        }
        self.slices.insert(id.clone(), slice);
    }

    /// All of them, as they are now.
    pub(super) fn all(&mut self) -> Map<ServiceId, Arc<Service>> {
        for id in std::mem::take(&mut self.changed) {
            match self.service(&id) {
                Some(service) if self.all.get(&id).is_some_and(|it| **it == service) => {}
                Some(service) => _ = self.all.insert(id, Arc::new(service)),
                None => _ = self.all.remove(&id),
            }
        }
        self.all.clone()
    }

    fn service(&self, id: &ServiceId) -> Option<Service> {
        let object = self.objects.get(id)?;
        if object.addresses.is_empty() {
            return None;
        }
        let mut ports: BTreeMap<ServicePort, BTreeSet<Backend>> = BTreeMap::new();
        for (name, port) in &object.ports {
            let backends = ports.entry(*port).or_default();
            for is_ipv4 in [true, false] {
                backends.extend(self.backends(id, object, (name, *port), is_ipv4));
            }
        }
        Some(Service {
            id: id.clone(),
            addresses: object.addresses.clone(),
            ports,
        })
    }

    /// The backends of a port in one family.
    fn backends(
        &self,
        id: &ServiceId,
        object: &ServiceObject,
        (name, port): (&String, ServicePort),
        is_ipv4: bool,
    ) -> Vec<Backend> {
        let slices = self.of.get(id).into_iter().flatten();
        let slices = slices.filter_map(|it| self.slices.get(it));
        let (mut ready, mut ending) = (Vec::new(), Vec::new());
        for slice in slices {
            if slice.is_unreadable {
                ready.push(Backend::unknown(is_ipv4));
            }
            let is_same = |it: &&(String, ServicePort)| {
                let (other, target) = it;
                other == name && target.protocol == port.protocol
            };
            for (_, target) in slice.ports.iter().filter(is_same) {
                let is_reached = |it: &&Endpoint| {
                    it.address.is_ipv4() == is_ipv4 && (it.is_local || !object.is_local)
                };
                for endpoint in slice.endpoints.iter().filter(is_reached) {
                    let backend = match target.port {
                        0 => Backend::unknown(is_ipv4),
                        port => Backend {
                            address: endpoint.address,
                            port,
                        },
                    };
                    if endpoint.is_ready {
                        ready.push(backend);
                    } else if endpoint.is_terminating {
                        ending.push(backend);
                    }
                }
            }
        }
        if ready.is_empty() { ending } else { ready }
    }
}

fn owner(id: &SliceId, slice: &SliceObject) -> Option<ServiceId> {
    Some(ServiceId {
        namespace: id.namespace.clone(),
        name: slice.service.clone()?,
    })
}

#[cfg(test)]
mod tests;
