//! The links of a network namespace, as one list of the kernel shows them.
//!
//! Invariants: a name, or an alternative name, leads to at most one link, as in the kernel; a list in
//! whose course links changed removes none, because it may have skipped one that is still there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;

use super::{message::Address, unsuitable::ETHERNET};

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its alternative names (`ip link property add dev NAME altname ALTNAME`).
    pub altnames: Vec<String>,
    /// Its hardware type (`ARPHRD_…` in `<linux/if_arp.h>`).
    pub hardware: u16,
    /// Whether it is a loopback device.
    pub is_loopback: bool,
    /// The kind of virtual device, such as `veth` or `bridge`; empty for others.
    pub kind: String,
}

/// Every link, by index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    links: BTreeMap<u32, Link>,
    names: BTreeMap<String, u32>,
    /// The devices of default routes, unless they may be fenced.
    pub(super) uplinks: BTreeSet<u32>,
    /// Links that left for another network namespace.
    pub(super) left: BTreeSet<u32>,
    /// The addresses of the links.
    pub(super) addresses: LinkAddresses,
    /// Why they are those of an earlier list.
    pub(super) failure: Option<String>,
}

/// The addresses of all links together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkAddresses {
    /// Their own, those of groups that they answer for as any router does included.
    pub own: BTreeSet<IpAddr>,
    /// Networks of which every address is their own.
    pub own_ranges: BTreeSet<Ipv4Net>,
    /// Their broadcast addresses.
    pub broadcasts: BTreeSet<Ipv4Addr>,
}

impl LinkAddresses {
    /// Adds one of a link, and what comes with it.
    pub(super) fn add(&mut self, address: Address) {
        self.own.insert(address.own);
        self.own.extend(address.anycast.map(IpAddr::V6));
        self.own_ranges.extend(address.range);
        self.broadcasts.extend(address.broadcasts);
    }

    /// Adds those of another list.
    pub(super) fn extend(&mut self, other: Self) {
        self.own.extend(other.own);
        self.own_ranges.extend(other.own_ranges);
        self.broadcasts.extend(other.broadcasts);
    }
}

impl Links {
    /// The links of a list.
    #[must_use]
    pub fn new(links: BTreeMap<u32, Link>) -> Self {
        let names = links
            .iter()
            .flat_map(|(index, link)| {
                let names = std::iter::once(&link.name).chain(&link.altnames);
                names.map(|name| (name.clone(), *index))
            })
            .collect();
        Self {
            links,
            names,
            uplinks: BTreeSet::new(),
            left: BTreeSet::new(),
            addresses: LinkAddresses::default(),
            failure: None,
        }
    }

    /// Ethernet links with these names and indices, for callers that have no kernel to ask.
    #[must_use]
    pub fn ethernet(names: impl IntoIterator<Item = (String, u32)>) -> Self {
        let link = |name| Link {
            name,
            hardware: ETHERNET,
            ..Link::default()
        };
        Self::new(
            names
                .into_iter()
                .map(|(name, index)| (index, link(name)))
                .collect(),
        )
    }

    /// The index of the link with this name or alternative name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// The link with this index.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// Whether a link is as described.
    #[must_use]
    pub fn any(&self, is_so: impl FnMut(&Link) -> bool) -> bool {
        self.links.values().any(is_so)
    }

    /// The highest index; 0 without links.
    #[must_use]
    pub fn highest(&self) -> u32 {
        self.links.keys().next_back().copied().unwrap_or(0)
    }

    /// Whether the link that had this index left for another network namespace, rather than being
    /// removed.
    #[must_use]
    pub fn has_left(&self, index: u32) -> bool {
        self.left.contains(&index)
    }

    /// The addresses of the links.
    #[must_use]
    pub const fn addresses(&self) -> &LinkAddresses {
        &self.addresses
    }

    /// Why the kernel cannot list them any more; `None` if it can.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Adds the links of an earlier list that this one lacks, unless another link has their name now.
    pub(super) fn keep(&mut self, earlier: &Self) {
        let taken: BTreeSet<&String> = self.names.keys().collect();
        let kept = earlier
            .links
            .iter()
            .filter(|(index, link)| !self.links.contains_key(index) && !taken.contains(&link.name));
        let mut links: BTreeMap<u32, Link> = kept.map(|(i, link)| (*i, link.clone())).collect();
        links.append(&mut self.links);
        *self = Self {
            uplinks: std::mem::take(&mut self.uplinks),
            left: std::mem::take(&mut self.left),
            addresses: std::mem::take(&mut self.addresses),
            ..Self::new(links)
        };
    }
}

#[cfg(test)]
impl Links {
    pub(crate) fn lead_out(&mut self, name: &str) {
        self.uplinks.extend(self.names.get(name));
    }

    pub(crate) fn set_own<const N: usize>(&mut self, own: [IpAddr; N]) {
        self.addresses.own = own.into();
    }

    pub(crate) fn set_kind(&mut self, name: &str, kind: &str) {
        let index = self.names.get(name);
        if let Some(link) = index.and_then(|index| self.links.get_mut(index)) {
            kind.clone_into(&mut link.kind);
        }
    }

    pub(crate) fn leave(&mut self, name: &str) {
        let index = self.remove(name);
        self.left.extend(index);
    }

    pub(crate) fn insert(&mut self, name: String, index: u32) {
        self.remove(&name);
        let added = Self::ethernet([(name, index)]);
        self.keep(&added);
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<u32> {
        let index = self.names.get(name).copied()?;
        let mut links = std::mem::take(&mut self.links);
        links.remove(&index);
        self.names.remove(name);
        self.links = links;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(names: &[(&str, u32)]) -> Links {
        Links::ethernet(
            names
                .iter()
                .map(|(name, index)| ((*name).to_owned(), *index)),
        )
    }

    #[test]
    fn alternative_names_are_names() {
        let link = Link {
            name: "veth1".into(),
            altnames: vec!["orders".into(), "a-name-of-more-than-fifteen-bytes".into()],
            ..Link::default()
        };
        let links = Links::new([(7, link)].into());
        for name in ["veth1", "orders", "a-name-of-more-than-fifteen-bytes"] {
            assert_eq!(links.named(name), Some(7), "{name}");
        }
        assert_eq!(links.named("veth2"), None);
    }

    #[test]
    fn a_list_that_was_interrupted_removes_nothing() {
        let earlier = links(&[("lo", 1), ("a", 7), ("b", 8)]);
        let mut interrupted = links(&[("lo", 1), ("b", 9), ("c", 10)]);
        interrupted.keep(&earlier);
        assert_eq!(
            interrupted,
            links(&[("lo", 1), ("a", 7), ("b", 9), ("c", 10)]),
            "b has another index, so it was recreated"
        );
    }
}
