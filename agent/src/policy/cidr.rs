//! The prefixes that policies name, and which of them contain an address.
//!
//! Invariant: answers are sorted and complete; a prefix contains itself.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::model::{Peer, Peers, PolicySet};

/// Every prefix that occurs in a policy, as a network or as an exception.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Prefixes {
    all: BTreeSet<IpNet>,
    /// Networks by prefix length, so that a look-up costs one probe per length in use.
    by_length: BTreeMap<(bool, u8), HashSet<IpNet>>,
}

impl Prefixes {
    /// Collects the prefixes of all policies.
    pub(crate) fn of(policies: &PolicySet) -> Self {
        let mut prefixes = Self::default();
        for policy in policies.iter() {
            for rule in policy.ingress.iter().chain(&policy.egress).flatten() {
                let Peers::Of(peers) = &rule.peers else {
                    continue;
                };
                peers.iter().for_each(|peer| prefixes.add_peer(peer));
            }
        }
        prefixes
    }

    /// Adds the prefixes that a peer names.
    pub(crate) fn add_peer(&mut self, peer: &Peer) {
        let Peer::Cidr { net, except } = peer else {
            return;
        };
        self.add(*net);
        except.iter().for_each(|net| self.add(*net));
    }

    fn add(&mut self, net: IpNet) {
        let net = net.trunc();
        self.all.insert(net);
        let length = (matches!(net, IpNet::V6(_)), net.prefix_len());
        self.by_length.entry(length).or_default().insert(net);
    }

    /// Every prefix.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.all.iter()
    }

    /// The prefixes that contain an address, sorted.
    pub(crate) fn containing(&self, address: IpAddr) -> Vec<IpNet> {
        self.of_lengths(address, u8::MAX)
    }

    /// The prefixes that contain a network, itself included if it is one of them, sorted.
    pub(crate) fn covering(&self, net: &IpNet) -> Vec<IpNet> {
        self.of_lengths(net.network(), net.prefix_len())
    }

    fn of_lengths(&self, address: IpAddr, longest: u8) -> Vec<IpNet> {
        let lengths = (address.is_ipv6(), 0)..=(address.is_ipv6(), longest);
        self.by_length
            .range(lengths)
            .filter_map(|((_, length), nets)| {
                let net = IpNet::new(address, *length).ok()?.trunc();
                nets.contains(&net).then_some(net)
            })
            .collect()
    }
}
