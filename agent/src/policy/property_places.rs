//! Which namespaces have workloads with a property, so that only those are visited when policies start
//! or stop to name it.
//!
//! Invariant: a namespace is listed as long as a workload of it that was added, and not removed since, has
//! the property.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use super::named_properties::FlippedProperties;
use crate::model::{NamespaceName, ServiceAccountName, Workload};

/// The number of workloads with each property, by namespace.
#[derive(Debug, Default)]
pub(crate) struct PropertyPlaces {
    keys: HashMap<String, Counts>,
    accounts: HashMap<ServiceAccountName, Counts>,
}

type Counts = HashMap<NamespaceName, usize>;

impl PropertyPlaces {
    /// Adds a workload.
    pub(crate) fn add(&mut self, workload: &Workload) {
        let namespace = &workload.id.namespace;
        for (key, _) in workload.labels.iter() {
            // Only a new key is copied.
            if let Some(counts) = self.keys.get_mut(key) {
                count(counts, namespace);
            } else {
                count(self.keys.entry(key.to_owned()).or_default(), namespace);
            }
        }
        let account = &workload.service_account;
        if let Some(counts) = self.accounts.get_mut(account) {
            count(counts, namespace);
        } else {
            count(self.accounts.entry(account.clone()).or_default(), namespace);
        }
    }

    /// Removes a workload that was added.
    pub(crate) fn remove(&mut self, workload: &Workload) {
        let namespace = &workload.id.namespace;
        for (key, _) in workload.labels.iter() {
            remove(&mut self.keys, key, namespace);
        }
        remove(&mut self.accounts, &workload.service_account, namespace);
    }

    /// The namespaces of workloads with any of these properties.
    pub(crate) fn of(&self, flipped: &FlippedProperties) -> BTreeSet<&NamespaceName> {
        let keys = flipped.keys.iter().filter_map(|key| self.keys.get(key));
        let accounts = flipped.accounts.iter();
        let accounts = accounts.filter_map(|account| self.accounts.get(account));
        keys.chain(accounts).flat_map(HashMap::keys).collect()
    }
}

fn count(counts: &mut Counts, namespace: &NamespaceName) {
    match counts.get_mut(namespace) {
        Some(count) => *count += 1,
        None => _ = counts.insert(namespace.clone(), 1),
    }
}

fn remove<K, Q>(all: &mut HashMap<K, Counts>, property: &Q, namespace: &NamespaceName)
where
    K: Hash + Eq + std::borrow::Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    let Some(counts) = all.get_mut(property) else {
        return;
    };
    if let Some(count) = counts.get_mut(namespace) {
        *count -= 1;
        if *count == 0 {
            counts.remove(namespace);
        }
    }
    if counts.is_empty() {
        all.remove(property);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Labels, source::inventory_toml};

    fn workload(id: &str, labels: &str, account: &str) -> Workload {
        let (namespace, name) = id.split_once('/').unwrap();
        let text = format!(
            "[[workload]]\nname = \"{name}\"\nnamespace = \"{namespace}\"\nlabels = {{ {labels} }}\n\
             service-account = \"{account}\"\n"
        );
        let read = inventory_toml::parse("i.toml", &text).unwrap();
        Workload::clone(&read.workloads[0].item)
    }

    #[test]
    fn a_namespace_is_visited_for_a_property_while_a_workload_of_it_has_it() {
        let mut places = PropertyPlaces::default();
        let all = [
            workload("shop/a", "app = \"x\", tier = \"y\"", "default"),
            workload("shop/b", "app = \"z\"", "robot"),
            workload("lab/a", "app = \"x\"", "default"),
        ];
        assert_ne!(all[0].labels, Labels::new());
        all.iter().for_each(|it| places.add(it));
        let of = |places: &PropertyPlaces, keys: &[&str], accounts: &[&str]| -> Vec<String> {
            let accounts = accounts
                .iter()
                .map(|it| ServiceAccountName::new(it).unwrap());
            let flipped = FlippedProperties {
                keys: keys.iter().map(|it| (*it).to_owned()).collect(),
                accounts: accounts.collect(),
            };
            places
                .of(&flipped)
                .into_iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(of(&places, &["app"], &[]), ["lab", "shop"]);
        assert_eq!(of(&places, &["tier"], &[]), ["shop"]);
        assert_eq!(of(&places, &["x", "job"], &["robot"]), ["shop"]);
        assert_eq!(of(&places, &[], &["default"]), ["lab", "shop"]);
        places.remove(&all[2]);
        places.remove(&all[1]);
        assert_eq!(of(&places, &["app"], &["robot"]), ["shop"]);
        places.remove(&all[0]);
        assert_eq!(
            of(&places, &["app", "tier"], &["default", "robot"]),
            [""; 0]
        );
        assert!(places.keys.is_empty() && places.accounts.is_empty());
    }
}
