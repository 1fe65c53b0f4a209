//! The prefixes in policies, and which of them contain an address.
//!
//! Invariants: results are sorted and complete; a prefix contains itself. A prefix is kept until
//! every user that added it has removed it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::model::{Peer, Peers, Policy, PolicySet};

/// Every prefix that occurs in a policy, as a network or as an exception.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefixes {
    /// How often each prefix was added.
    counts: HashMap<IpNet, usize>,
    /// The number of prefixes of each length, so that a lookup costs one probe per length in use.
    lengths: BTreeMap<(bool, u8), usize>,
    /// Prefixes that were added or removed since the last call of `take_changed`.
    flipped: BTreeSet<IpNet>,
}

impl Prefixes {
    /// Collects the prefixes of all policies.
    pub(crate) fn of(policies: &PolicySet) -> Self {
        let mut prefixes = Self::default();
        for policy in policies.iter() {
            prefixes_in_policy(policy).for_each(|net| prefixes.add(net));
        }
        prefixes
    }

    /// Adds a prefix.
    pub(crate) fn add(&mut self, net: IpNet) {
        let net = net.trunc();
        let count = self.counts.entry(net).or_default();
        *count += 1;
        if *count == 1 {
            *self.lengths.entry(length(&net)).or_default() += 1;
            self.flip(net);
        }
    }

    /// Removes a prefix once.
    pub(crate) fn remove(&mut self, net: IpNet) {
        let net = net.trunc();
        let Entry::Occupied(mut count) = self.counts.entry(net) else {
            return;
        };
        *count.get_mut() -= 1;
        if *count.get() > 0 {
            return;
        }
        count.remove();
        if let Some(of_length) = self.lengths.get_mut(&length(&net)) {
            *of_length -= 1;
            if *of_length == 0 {
                self.lengths.remove(&length(&net));
            }
        }
        self.flip(net);
    }

    fn flip(&mut self, net: IpNet) {
        if !self.flipped.remove(&net) {
            self.flipped.insert(net);
        }
    }

    /// The prefixes that were added or removed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<IpNet> {
        std::mem::take(&mut self.flipped)
    }

    /// Whether the prefix is in the set.
    pub(crate) fn contains(&self, net: &IpNet) -> bool {
        self.counts.contains_key(net)
    }

    /// Every prefix, unordered.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.counts.keys()
    }

    /// The prefixes that contain an address, sorted.
    pub(crate) fn containing(&self, address: IpAddr) -> Vec<IpNet> {
        self.of_lengths(address, u8::MAX)
    }

    /// The prefixes that contain a network, including the network itself, sorted.
    pub(crate) fn covering(&self, net: &IpNet) -> Vec<IpNet> {
        self.of_lengths(net.network(), net.prefix_len())
    }

    fn of_lengths(&self, address: IpAddr, longest: u8) -> Vec<IpNet> {
        let lengths = (address.is_ipv6(), 0)..=(address.is_ipv6(), longest);
        self.lengths
            .range(lengths)
            .filter_map(|((_, length), _)| {
                let net = IpNet::new(address, *length).ok()?.trunc();
                self.contains(&net).then_some(net)
            })
            .collect()
    }
}

fn length(net: &IpNet) -> (bool, u8) {
    (matches!(net, IpNet::V6(_)), net.prefix_len())
}

/// The prefixes in a policy.
pub(crate) fn prefixes_in_policy(policy: &Policy) -> impl Iterator<Item = IpNet> {
    let rules = policy.ingress.iter().chain(&policy.egress).flatten();
    let peers = rules.filter_map(|rule| match &rule.peers {
        Peers::Of(peers) => Some(peers),
        Peers::Any | Peers::NoPeer => None,
    });
    peers.flatten().flat_map(prefixes_in_peer)
}

/// The prefixes in a peer.
pub(crate) fn prefixes_in_peer(peer: &Peer) -> impl Iterator<Item = IpNet> {
    let named = match peer {
        Peer::Cidr { net, except } => Some(std::iter::once(net).chain(except)),
        Peer::Workloads { .. } | Peer::Entity(_) => None,
    };
    named.into_iter().flatten().copied()
}
