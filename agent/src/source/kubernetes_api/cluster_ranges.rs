//! The ranges of the cluster, as objects of the API name them.
//!
//! Pure. Invariants: ServiceCIDR objects always count, ranges of nodes only if the configuration says so,
//! because not every network plugin uses them; an object that cannot be read as a whole takes no range away,
//! because the addresses in it would be the world's.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::object::{Key, Kind};
use crate::model::{cluster_range, quote};

/// Which ranges are those of pods.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PodRanges {
    /// None are known.
    #[default]
    Off,
    /// `spec.podCIDRs` of every node.
    NodeSpec,
    /// These.
    Listed(BTreeSet<IpNet>),
}

/// The ranges by the object that names them.
#[derive(Debug, Default)]
pub(super) struct ClusterRanges {
    pods: PodRanges,
    named: BTreeMap<Key, BTreeSet<IpNet>>,
}

impl ClusterRanges {
    /// No range of an object yet.
    pub(super) fn new(pods: PodRanges) -> Self {
        Self {
            pods,
            named: BTreeMap::new(),
        }
    }

    /// Takes over what an object names.
    pub(super) fn take(&mut self, key: &Key, mut ranges: BTreeSet<IpNet>, is_whole: bool) {
        let counts = match key.kind() {
            Kind::ServiceCidrs => true,
            Kind::Nodes => self.pods == PodRanges::NodeSpec,
            _ => false,
        };
        if !counts {
            return;
        }
        if !is_whole && let Some(before) = self.named.get(key) {
            ranges.extend(before);
        }
        self.named.insert(key.clone(), ranges);
    }

    /// Forgets what an object that is gone named.
    pub(super) fn remove(&mut self, key: &Key) {
        self.named.remove(key);
    }

    /// All ranges.
    pub(super) fn all(&self) -> BTreeSet<IpNet> {
        let mut ranges: BTreeSet<_> = self.named.values().flatten().copied().collect();
        if let PodRanges::Listed(listed) = &self.pods {
            ranges.extend(listed);
        }
        ranges
    }
}

/// Reads a list of ranges.
pub(super) fn read(texts: &[String], errors: &mut Vec<String>) -> BTreeSet<IpNet> {
    let mut ranges = BTreeSet::new();
    for text in texts {
        match cluster_range(text) {
            Some(range) => _ = ranges.insert(range),
            None => errors.push(format!("{} is no range of a cluster", quote(text))),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeName, ServiceCidrName};

    fn ranges(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn nodes_name_ranges_only_if_configured() {
        let services = Key::ServiceCidr(ServiceCidrName::new("kubernetes").unwrap());
        let node = Key::Node(NodeName::new("n1").unwrap());
        let listed = PodRanges::Listed(ranges(&["10.0.0.0/8"]));
        for (pods, expected) in [
            (PodRanges::Off, ranges(&["10.96.0.0/16"])),
            (
                PodRanges::NodeSpec,
                ranges(&["10.96.0.0/16", "10.244.1.0/24"]),
            ),
            (listed, ranges(&["10.96.0.0/16", "10.0.0.0/8"])),
        ] {
            let mut all = ClusterRanges::new(pods);
            all.take(&services, ranges(&["10.96.0.0/16"]), true);
            all.take(&node, ranges(&["10.244.1.0/24"]), true);
            assert_eq!(all.all(), expected);
            all.remove(&services);
            assert!(!all.all().contains(&"10.96.0.0/16".parse().unwrap()));
        }
    }

    #[test]
    fn what_cannot_be_read_takes_no_range_away() {
        let key = Key::ServiceCidr(ServiceCidrName::new("kubernetes").unwrap());
        let mut all = ClusterRanges::default();
        all.take(&key, ranges(&["10.96.0.0/16"]), true);
        all.take(&key, ranges(&["fd00::/108"]), false);
        assert_eq!(all.all(), ranges(&["10.96.0.0/16", "fd00::/108"]));
        all.take(&key, ranges(&["fd00::/108"]), true);
        assert_eq!(all.all(), ranges(&["fd00::/108"]), "the control");
    }

    #[test]
    fn ranges_are_masked_and_never_everything() {
        let texts = ["10.96.1.2/16", "::/0", "0.0.0.0/0", "x\u{1b}", "10.0.0.1"];
        let mut errors = Vec::new();
        let read = read(&texts.map(str::to_owned), &mut errors);
        assert_eq!(read, ranges(&["10.96.0.0/16"]));
        assert_eq!(errors.len(), 4);
        assert_eq!(errors[2], "\"x\\u{1b}\" is no range of a cluster");
    }
}
