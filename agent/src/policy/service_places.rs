//! The addresses of Services, with identities that follow from their backends.
//!
//! Invariants: an address that a workload or node has, or that several of them claim, is never a Service's; one that
//! several Services claim is unknown. The identities of a Service's backends are those of this update. The cost of an
//! update follows what changed, except when prefixes change: then every Service is looked at.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use ringfence_common::ids::IdentityId;

use super::{
    identities::{Around, Identities, Owner},
    identity::ServiceBackends,
    numbers::{Exhausted, Numbers},
    resolve::owner_hash,
};
use crate::{
    model::{Backend, Service, ServiceId},
    ordmap::Map,
    plan::Addresses,
};

type Services = Map<ServiceId, Arc<Service>>;

/// What has an address without Services.
#[derive(Clone, Copy)]
pub(crate) struct Others<'a> {
    pub(crate) addresses: &'a Addresses,
    pub(crate) owners: &'a Map<IpAddr, u64>,
    pub(crate) prefixes: &'a Map<IpNet, IdentityId>,
}

/// All addresses, with those of Services.
#[derive(Default)]
pub(crate) struct ServicePlaces {
    services: Services,
    /// The Services that claim an address.
    claims: BTreeMap<IpAddr, BTreeSet<ServiceId>>,
    /// The Services with a backend of this address.
    of_backend: HashMap<IpAddr, BTreeSet<ServiceId>>,
    /// The addresses that Services have now.
    placed: HashMap<IpAddr, IdentityId>,
    /// What the others were at the last update.
    before: (Addresses, Map<IpAddr, u64>, Map<IpNet, IdentityId>),
    pub(crate) addresses: Addresses,
    pub(crate) owners: Map<IpAddr, u64>,
}

impl ServicePlaces {
    /// Updates to these Services among these others.
    pub(crate) fn update(
        &mut self,
        services: &Services,
        others: Others<'_>,
        identities: &mut Identities,
        numbers: &mut Numbers,
    ) -> Result<(), Exhausted> {
        let mut changed: BTreeSet<IpAddr> = BTreeSet::new();
        let mut concerned = self.take_services(services, &mut changed);
        self.follow(others, &mut changed);
        if others.prefixes.is_same(&self.before.2) {
            let behind = changed.iter().filter_map(|it| self.of_backend.get(it));
            concerned.extend(behind.flatten().cloned());
        } else {
            concerned.extend(self.services.keys().cloned());
        }
        let concerned = concerned.iter().filter_map(|id| self.services.get(id));
        let mut again: BTreeSet<IpAddr> = concerned.flat_map(|it| it.addresses.clone()).collect();
        let is_service =
            |it: &&IpAddr| self.claims.contains_key(it) || self.placed.contains_key(it);
        again.extend(changed.iter().filter(is_service));
        for address in again {
            self.place(address, others, identities, numbers)?;
        }
        self.before = (
            others.addresses.clone(),
            others.owners.clone(),
            others.prefixes.clone(),
        );
        Ok(())
    }

    /// Takes over the Services; returns those that came or changed, and adds the addresses of all that did.
    fn take_services(
        &mut self,
        services: &Services,
        changed: &mut BTreeSet<IpAddr>,
    ) -> BTreeSet<ServiceId> {
        let mut concerned = BTreeSet::new();
        let before = std::mem::replace(&mut self.services, services.clone());
        services.since(&before, |change| {
            let id = change.key;
            if let Some(old) = change.old {
                for address in &old.addresses {
                    forget(self.claims.entry(*address), id);
                    changed.insert(*address);
                }
                for backend in backends_of(old) {
                    if let Some(services) = self.of_backend.get_mut(&backend) {
                        services.remove(id);
                        if services.is_empty() {
                            self.of_backend.remove(&backend);
                        }
                    }
                }
            }
            let Some(new) = change.new else {
                return;
            };
            for address in &new.addresses {
                self.claims.entry(*address).or_default().insert(id.clone());
                changed.insert(*address);
            }
            for backend in backends_of(new) {
                let services = self.of_backend.entry(backend).or_default();
                services.insert(id.clone());
            }
            concerned.insert(id.clone());
        });
        concerned
    }

    /// Takes over what the others have changed, and adds those addresses.
    fn follow(&mut self, others: Others<'_>, changed: &mut BTreeSet<IpAddr>) {
        if self.placed.is_empty() {
            // As long as no Service has an address, all is shared with the others.
            self.addresses = others.addresses.clone();
            self.owners = others.owners.clone();
            if self.services.is_empty() {
                return;
            }
            others.addresses.since(&self.before.0, |change| {
                changed.insert(*change.key);
            });
            return;
        }
        let addresses = &mut self.addresses;
        others.addresses.since(&self.before.0, |change| {
            changed.insert(*change.key);
            match change.new {
                Some(identity) => addresses.insert(*change.key, *identity),
                None => addresses.remove(change.key),
            };
        });
        let owners = &mut self.owners;
        others.owners.since(&self.before.1, |change| {
            match change.new {
                Some(owner) => owners.insert(*change.key, *owner),
                None => owners.remove(change.key),
            };
        });
    }

    /// Gives an address the identity of its Service, or of what has it now.
    fn place(
        &mut self,
        address: IpAddr,
        others: Others<'_>,
        identities: &mut Identities,
        numbers: &mut Numbers,
    ) -> Result<(), Exhausted> {
        let claimants = self.claims.get(&address);
        let mut claimants = claimants.into_iter().flatten();
        let first = claimants.next().and_then(|id| self.services.get(id));
        let now = match first {
            _ if others.addresses.contains_key(&address) => None,
            None => None,
            Some(_) if claimants.next().is_some() => Some((IdentityId::UNKNOWN, None)),
            Some(service) => {
                let backends = self.backends(service, address, others);
                let nowhere = Around {
                    cidrs: Vec::new(),
                    special: None,
                };
                let owner = Owner::Service(Arc::new(backends));
                let identity = identities.take(owner, nowhere, numbers)?;
                Some((identity, Some(owner_hash(&service.id))))
            }
        };
        let before = match now {
            Some((identity, owner)) => {
                self.addresses.insert(address, identity);
                let owner = owner.unwrap_or_else(|| owner_hash(&"no owner"));
                self.owners.insert(address, owner);
                self.placed.insert(address, identity)
            }
            None => {
                let before = self.placed.remove(&address);
                if before.is_some() && !others.addresses.contains_key(&address) {
                    self.addresses.remove(&address);
                    self.owners.remove(&address);
                }
                before
            }
        };
        if let Some(before) = before.filter(|it| *it != IdentityId::UNKNOWN) {
            identities.give_back(before);
        }
        Ok(())
    }

    /// The identities behind an address of a Service.
    fn backends(&self, service: &Service, through: IpAddr, others: Others<'_>) -> ServiceBackends {
        let ports = service.through(through).map(|(port, backends)| {
            let of = |it: &Backend| match it.is_unknown() {
                true => IdentityId::UNKNOWN,
                false => self.identity(it.address, others),
            };
            let backends = backends.iter().map(|it| (of(it), it.port));
            (port, backends.collect())
        });
        ports.collect()
    }

    /// The identity of a backend.
    fn identity(&self, address: IpAddr, others: Others<'_>) -> IdentityId {
        if let Some(identity) = others.addresses.get(&address) {
            return *identity;
        }
        // What a Service stands for is not translated once more.
        if self.claims.contains_key(&address) {
            return IdentityId::UNKNOWN;
        }
        let longest = if address.is_ipv6() { 128 } else { 32 };
        let around = (0..=longest).rev();
        around
            .filter_map(|length| IpNet::new(address, length).ok())
            .find_map(|net| others.prefixes.get(&net.trunc()))
            .copied()
            .unwrap_or(IdentityId::UNKNOWN)
    }
}

fn backends_of(service: &Service) -> BTreeSet<IpAddr> {
    let backends = service.ports.values().flatten();
    backends.map(|it| it.address).collect()
}

fn forget(
    entry: std::collections::btree_map::Entry<'_, IpAddr, BTreeSet<ServiceId>>,
    id: &ServiceId,
) {
    if let std::collections::btree_map::Entry::Occupied(mut claimants) = entry {
        claimants.get_mut().remove(id);
        if claimants.get().is_empty() {
            claimants.remove();
        }
    }
}
