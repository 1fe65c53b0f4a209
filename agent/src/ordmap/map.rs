//! A sorted map with cheap copies and cheap differences.
//!
//! A copy increments a reference count. A change of a copy costs the logarithm of its size and does
//! not affect the original. A comparison of two copies costs as much as they differ, because shared
//! parts are skipped. Maps that share nothing can be compared, too, at a cost of their size.

use std::{borrow::Borrow, cmp::Ordering, fmt, hash::Hash, sync::Arc};

use super::node::{self, Link, Node};

/// If at most one entry in this many has changed, [`Map::based_on`] changes a copy of the older map
/// entry by entry; otherwise it shares nothing.
const FEW: usize = 8;

/// A sorted map; see the module documentation.
pub struct Map<K, V> {
    root: Link<K, V>,
}

/// An entry that differs between two maps.
#[derive(Debug, PartialEq, Eq)]
pub struct Change<'a, K, V> {
    /// Its key.
    pub key: &'a K,
    /// Its value in the older map.
    pub old: Option<&'a V>,
    /// Its value in the newer map.
    pub new: Option<&'a V>,
}

impl<K, V> Map<K, V> {
    /// An empty map.
    #[must_use]
    pub const fn new() -> Self {
        Self { root: None }
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        node::size(&self.root)
    }

    /// Whether there are no entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Whether the other map is an unchanged copy of this one.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        same(self.root.as_deref(), other.root.as_deref())
    }

    /// All entries in the order of their keys.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, K, V> {
        let mut iter = Iter { ahead: Vec::new() };
        iter.descend(self.root.as_deref());
        iter
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> Map<K, V> {
    /// The value of a key.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut link = self.root.as_deref();
        while let Some(node) = link {
            link = match key.cmp(node.key.borrow()) {
                Ordering::Equal => return Some(&node.value),
                Ordering::Less => node.left.as_deref(),
                Ordering::Greater => node.right.as_deref(),
            };
        }
        None
    }

    /// Whether the map has a key.
    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries from a key onwards, in the order of their keys.
    #[must_use]
    pub fn from(&self, first: &K) -> Iter<'_, K, V> {
        self.skip_below(|key| key < first)
    }

    /// The entries without those at the beginning for which `is_below` is true, in the order of their
    /// keys. It must not be true after it was false.
    #[must_use]
    pub fn skip_below(&self, is_below: impl Fn(&K) -> bool) -> Iter<'_, K, V> {
        let mut ahead = Vec::new();
        let mut link = self.root.as_deref();
        while let Some(node) = link {
            link = if is_below(&node.key) {
                node.right.as_deref()
            } else {
                ahead.push(node);
                node.left.as_deref()
            };
        }
        Iter { ahead }
    }

    /// The number of keys that are less than this one.
    #[must_use]
    pub fn count_below(&self, key: &K) -> usize {
        let (mut count, mut link) = (0, self.root.as_deref());
        while let Some(node) = link {
            link = if node.key < *key {
                count += 1 + node::size(&node.left);
                node.right.as_deref()
            } else {
                node.left.as_deref()
            };
        }
        count
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Map<K, V> {
    /// Inserts an entry and returns the value that it replaces.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        node::insert(&mut self.root, key, value)
    }

    /// Removes an entry and returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // Without the key, `node::remove` would copy the path to its place in vain.
        if !self.contains_key(key) {
            return None;
        }
        node::remove(&mut self.root, key)
    }
}

impl<K: Ord + Hash, V: PartialEq> Map<K, V> {
    /// Shows every entry that differs from an older map, in the order of their keys.
    pub fn since<'a>(&'a self, older: &'a Self, mut show: impl FnMut(Change<'a, K, V>)) {
        compare(Part::whole(older), Part::whole(self), &mut show);
    }
}

impl<K: Ord + Hash + Clone, V: PartialEq + Clone> Map<K, V> {
    /// The same entries, sharing the unchanged parts with an older map, unless too many entries
    /// have changed.
    #[must_use]
    pub fn based_on(&self, older: &Self) -> Self {
        let mut changes = Vec::new();
        self.since(older, |change| changes.push(change));
        if changes.len() > self.len() / FEW {
            return self.clone();
        }
        let mut based = older.clone();
        for change in changes {
            match change.new {
                Some(value) => based.insert(change.key.clone(), value.clone()),
                None => based.remove(change.key),
            };
        }
        based
    }
}

fn same<K, V>(one: Option<&Node<K, V>>, other: Option<&Node<K, V>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => std::ptr::eq(one, other),
        _ => false,
    }
}

/// The part of a tree between two keys, both excluded. A bound is `None` if all nodes below `link`
/// are within it anyway.
struct Part<'a, K, V> {
    link: Option<&'a Node<K, V>>,
    after: Option<&'a K>,
    before: Option<&'a K>,
}

impl<K, V> Clone for Part<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K, V> Copy for Part<'_, K, V> {}

impl<'a, K, V> Part<'a, K, V> {
    fn whole(map: &'a Map<K, V>) -> Self {
        Self {
            link: map.root.as_deref(),
            after: None,
            before: None,
        }
    }
}

impl<'a, K: Ord, V> Part<'a, K, V> {
    /// The same part, with `link` at its topmost node.
    fn narrowed(mut self) -> Self {
        while let Some(node) = self.link {
            if self.after.is_some_and(|after| node.key <= *after) {
                self.link = node.right.as_deref();
            } else if self.before.is_some_and(|before| node.key >= *before) {
                self.link = node.left.as_deref();
            } else {
                break;
            }
        }
        self
    }

    /// The part below a key; `is_top` if it is the topmost node's key.
    fn below(self, key: &'a K, is_top: bool) -> Self {
        match self.link {
            Some(node) if is_top => Self {
                link: node.left.as_deref(),
                before: None,
                ..self
            },
            _ => Self {
                before: Some(key),
                ..self
            },
        }
    }

    /// The part above a key; `is_top` if it is the topmost node's key.
    fn above(self, key: &'a K, is_top: bool) -> Self {
        match self.link {
            Some(node) if is_top => Self {
                link: node.right.as_deref(),
                after: None,
                ..self
            },
            _ => Self {
                after: Some(key),
                ..self
            },
        }
    }
}

fn compare<'a, K: Ord + Hash, V: PartialEq>(
    old: Part<'a, K, V>,
    new: Part<'a, K, V>,
    show: &mut dyn FnMut(Change<'a, K, V>),
) {
    let (old, new) = (old.narrowed(), new.narrowed());
    if same(old.link, new.link) {
        return;
    }
    // The keys determine the shape: the topmost node of one tree is either the topmost of the other
    // tree, too, or missing there.
    let (was, is) = match (old.link, new.link) {
        (Some(old), Some(new)) if old.key == new.key => (Some(old), Some(new)),
        (Some(old), Some(new)) if old.is_above(new) => (Some(old), None),
        (was, None) => (was, None),
        (_, Some(new)) => (None, Some(new)),
    };
    let Some(key) = is.or(was).map(|node| &node.key) else {
        return;
    };
    compare(
        old.below(key, was.is_some()),
        new.below(key, is.is_some()),
        show,
    );
    let (value, before) = (is.map(|node| &node.value), was.map(|node| &node.value));
    if value != before {
        show(Change {
            key,
            old: before,
            new: value,
        });
    }
    compare(
        old.above(key, was.is_some()),
        new.above(key, is.is_some()),
        show,
    );
}

/// Entries in the order of their keys.
pub struct Iter<'a, K, V> {
    /// The nodes still to visit; each is followed by its right subtree.
    ahead: Vec<&'a Node<K, V>>,
}

impl<'a, K, V> Iter<'a, K, V> {
    fn descend(&mut self, mut link: Option<&'a Node<K, V>>) {
        while let Some(node) = link {
            self.ahead.push(node);
            link = node.left.as_deref();
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.ahead.pop()?;
        self.descend(node.right.as_deref());
        Some((&node.key, &node.value))
    }
}

impl<'a, K, V> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Ord + Hash, V> FromIterator<(K, V)> for Map<K, V> {
    /// Of several entries with the same key, the last one is kept.
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut entries: Vec<(K, V)> = entries.into_iter().collect();
        // Stable: the last of equal keys is the last one given.
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        entries.dedup_by(|later, kept| {
            let again = later.0 == kept.0;
            if again {
                std::mem::swap(later, kept);
            }
            again
        });
        Self {
            root: node::build(entries),
        }
    }
}

impl<K: Ord + Hash, V, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self {
            root: self.root.as_ref().map(Arc::clone),
        }
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Hash, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let mut equal = self.len() == other.len();
        if equal && !self.is_same(other) {
            self.since(other, |_| equal = false);
        }
        equal
    }
}
impl<K: Ord + Hash, V: Eq> Eq for Map<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_map().entries(self).finish()
    }
}

#[cfg(test)]
mod tests;
