//! The identities in use, with their numbers and the number of addresses and prefixes that have
//! each.
//!
//! Invariant: after `settle` an identity exists exactly if something has it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ipnet::IpNet;
use ringfence_common::ids::IdentityId;

use super::{
    digest::{Digest, digest_of},
    identity::{Identity, Kind, ServiceBackends, WorkloadKind},
    numbers::{Exhausted, Numbers, Space},
    resolve::Resolved,
    workload_kinds::KindNumber,
};
use crate::{model::ServicePort, ordmap::Map};

/// The owner of an address.
#[derive(Debug, Clone)]
pub(crate) enum Owner {
    Host,
    RemoteNode,
    /// Unknown clients to which this node gave an address with this identity.
    BehindNode(IdentityId),
    World,
    Special,
    Cluster,
    Workload(KindNumber, Arc<WorkloadKind>),
    Service(Arc<ServiceBackends>),
}

/// Where an address lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Around {
    /// The policy prefixes that contain it, sorted.
    pub(crate) cidrs: Vec<IpNet>,
    /// The special range that contains it.
    pub(crate) special: Option<IpNet>,
}

/// What distinguishes identities, without comparing the contents of workload kinds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    owner: (u8, Option<KindNumber>),
    backends: Option<Arc<ServiceBackends>>,
    around: Around,
}

struct Entry {
    key: Key,
    owner: Owner,
    holders: usize,
}

/// Every identity in use.
#[derive(Default)]
pub(crate) struct Identities {
    numbers: HashMap<Key, IdentityId>,
    held: HashMap<IdentityId, Entry>,
    /// Those with a holder now or since the last `settle`.
    pub(crate) all: Map<IdentityId, Arc<Identity>>,
    came: BTreeSet<IdentityId>,
    idle: BTreeSet<IdentityId>,
}

impl Identities {
    /// The identity of an owner at this place; adds one holder. With an identity of this node, that of
    /// the clients behind it ([`IdentityId::behind_node`]) exists as well.
    pub(crate) fn take(
        &mut self,
        owner: Owner,
        around: Around,
        numbers: &mut Numbers,
    ) -> Result<IdentityId, Exhausted> {
        if !matches!(owner, Owner::Host) {
            return self.hold(owner, around, numbers);
        }
        let id = self.hold(owner, around.clone(), numbers)?;
        // An address of another node may have the same identity, and is placed by its owner again.
        let behind = match id {
            IdentityId::HOST => Owner::RemoteNode,
            id => Owner::BehindNode(id),
        };
        self.hold(behind, around, numbers)?;
        Ok(id)
    }

    fn hold(
        &mut self,
        owner: Owner,
        around: Around,
        numbers: &mut Numbers,
    ) -> Result<IdentityId, Exhausted> {
        let owner_key = match &owner {
            Owner::Host => (0, None),
            Owner::RemoteNode => (1, None),
            Owner::BehindNode(_) => (4, None),
            Owner::World => (2, None),
            Owner::Workload(number, _) => (3, Some(*number)),
            Owner::Special => (5, None),
            Owner::Cluster => (6, None),
            Owner::Service(_) => (7, None),
        };
        let backends = match &owner {
            Owner::Service(backends) => Some(Arc::clone(backends)),
            _ => None,
        };
        let key = Key {
            owner: owner_key,
            backends,
            around,
        };
        if let Some(id) = self.numbers.get(&key) {
            if let Some(held) = self.held.get_mut(id) {
                held.holders += 1;
            }
            return Ok(*id);
        }
        let identity = Identity {
            kind: match &owner {
                Owner::Host => Kind::Host,
                Owner::RemoteNode | Owner::BehindNode(_) => Kind::RemoteNode,
                Owner::World => Kind::World,
                Owner::Special => Kind::Special,
                Owner::Cluster => Kind::Cluster,
                Owner::Workload(_, kind) => Kind::Workload(Arc::clone(kind)),
                Owner::Service(backends) => Kind::Service(Arc::clone(backends)),
            },
            cidrs: key.around.cidrs.clone(),
            special: key.around.special,
        };
        let is_plain = identity.cidrs.is_empty() && identity.special.is_none();
        let id = match (&owner, is_plain) {
            (Owner::Host, true) => IdentityId::HOST,
            (Owner::Host, false) => IdentityId(numbers.node_number(digest_of(&identity))?),
            (Owner::BehindNode(node), _) => node.behind_node(),
            (Owner::RemoteNode, true) => IdentityId::REMOTE_NODE,
            (Owner::World, true) => IdentityId::WORLD,
            _ => IdentityId(numbers.number(Space::Identity, self.digest(&identity))?),
        };
        let held = Entry {
            key: key.clone(),
            owner,
            holders: 1,
        };
        // The same content under a workload kind that is newer than its last holder: the old entry
        // is idle and is replaced.
        if let Some(idle) = self.held.insert(id, held) {
            self.numbers.remove(&idle.key);
        } else {
            self.came.insert(id);
        }
        self.numbers.insert(key, id);
        self.all.insert(id, Arc::new(identity));
        Ok(id)
    }

    /// Names an identity by its content: of a Service, by that of its backends, because their numbers may be those of
    /// others later.
    fn digest(&self, identity: &Identity) -> Digest {
        let Some(ports) = identity.service() else {
            return digest_of(identity);
        };
        let content: BTreeMap<&ServicePort, BTreeSet<(Option<Digest>, u16)>> = ports
            .iter()
            .map(|(port, backends)| {
                let digest = |id| self.all.get(id).map(|it| digest_of(&**it));
                let backends = backends.iter();
                (
                    port,
                    backends.map(|(id, port)| (digest(id), *port)).collect(),
                )
            })
            .collect();
        digest_of(&("service", content))
    }

    /// Removes one holder.
    pub(crate) fn give_back(&mut self, id: IdentityId) {
        self.release(id);
        if id.is_node() {
            self.release(id.behind_node());
        }
    }

    fn release(&mut self, id: IdentityId) {
        if let Some(held) = self.held.get_mut(&id) {
            held.holders -= 1;
            if held.holders == 0 {
                self.idle.insert(id);
            }
        }
    }

    /// The owner of an identity that has a holder.
    pub(crate) fn owner(&self, id: IdentityId) -> Option<Owner> {
        self.held.get(&id).map(|held| held.owner.clone())
    }

    /// Removes identities without a holder; returns what was added and removed since the last call.
    pub(crate) fn settle(&mut self) -> Resolved {
        let mut resolved = Resolved {
            came: std::mem::take(&mut self.came),
            gone: Vec::new(),
        };
        for id in std::mem::take(&mut self.idle) {
            if self.held.get(&id).is_none_or(|held| held.holders > 0) {
                continue;
            }
            if let Some(held) = self.held.remove(&id) {
                self.numbers.remove(&held.key);
            }
            let identity = self.all.remove(&id);
            if !resolved.came.remove(&id) {
                resolved
                    .gone
                    .extend(identity.map(|identity| (id, identity)));
            }
        }
        resolved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identity_of_the_node_has_one_of_the_clients_behind_it() {
        let (mut identities, mut numbers) = (Identities::default(), Numbers::default());
        let nets: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let mut take = |owner, cidrs: &[IpNet]| {
            let around = Around {
                cidrs: cidrs.to_vec(),
                special: None,
            };
            identities.take(owner, around, &mut numbers).unwrap()
        };
        let host = take(Owner::Host, &[]);
        let inside = take(Owner::Host, &nets);
        let remote = take(Owner::RemoteNode, &nets);
        assert_eq!(host, IdentityId::HOST);
        assert!(inside.is_node() && inside != host);
        assert!(!remote.is_node() && remote != inside.behind_node());
        for (id, cidrs) in [(host, &[][..]), (inside, &nets)] {
            let behind = identities.all.get(&id.behind_node()).unwrap();
            assert_eq!(
                (&behind.kind, behind.cidrs.as_slice()),
                (&Kind::RemoteNode, cidrs)
            );
        }
        identities.settle();
        identities.give_back(inside);
        let gone: Vec<IdentityId> = identities.settle().gone.iter().map(|it| it.0).collect();
        assert_eq!(gone, [inside, inside.behind_node()]);
    }

    #[test]
    fn an_address_of_another_node_is_placed_again_as_one() {
        let (mut identities, mut numbers) = (Identities::default(), Numbers::default());
        let around = |nets: &[IpNet]| Around {
            cidrs: nets.to_vec(),
            special: None,
        };
        let mut take = |identities: &mut Identities, owner, nets: &[IpNet]| {
            let id = identities.take(owner, around(nets), &mut numbers);
            id.unwrap()
        };
        take(&mut identities, Owner::Host, &[]);
        let before = take(&mut identities, Owner::RemoteNode, &[]);
        assert_eq!(before, IdentityId::HOST.behind_node());
        let owner = identities.owner(before).unwrap();
        let after = take(&mut identities, owner, &["10.0.0.0/8".parse().unwrap()]);
        assert_ne!(after, before);
        identities.give_back(before);
        identities.settle();
        assert_eq!(
            identities.all.len(),
            3,
            "the node, clients behind it, the other node"
        );
    }
}
