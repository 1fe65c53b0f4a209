//! The nodes of a treap: sorted by key from left to right, by weight from top to bottom.
//!
//! Invariants: a node's weight is a keyed hash of its key, and ties are broken by the key; so the
//! keys alone determine the shape of a tree, whatever the order of changes, and an attacker who
//! chooses keys cannot make it deep. A node that trees share is never changed: it is copied.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, LazyLock},
};

static WEIGHT_HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

pub(super) type Link<K, V> = Option<Arc<Node<K, V>>>;

#[derive(Clone)]
pub(super) struct Node<K, V> {
    pub(super) key: K,
    pub(super) value: V,
    weight: u32,
    size: u32,
    pub(super) left: Link<K, V>,
    pub(super) right: Link<K, V>,
}

pub(super) fn size<K, V>(link: &Link<K, V>) -> usize {
    link.as_ref().map_or(0, |node| node.size as usize)
}

fn weight<K: Hash>(key: &K) -> u32 {
    let hash = WEIGHT_HASHER.hash_one(key).to_le_bytes();
    let [a, b, c, d, ..] = hash;
    u32::from_le_bytes([a, b, c, d])
}

impl<K: Hash + Ord, V> Node<K, V> {
    fn new(key: K, value: V) -> Self {
        Self {
            weight: weight(&key),
            key,
            value,
            size: 1,
            left: None,
            right: None,
        }
    }

    /// Whether this node is above another in every tree that has both.
    pub(super) fn is_above(&self, other: &Self) -> bool {
        (self.weight, &self.key) > (other.weight, &other.key)
    }

    fn count(&mut self) {
        let below = size(&self.left) + size(&self.right);
        self.size = u32::try_from(below + 1).unwrap_or(u32::MAX);
    }
}

/// Builds a tree from entries that are sorted by key and have distinct keys.
pub(super) fn build<K: Hash + Ord, V>(sorted: impl IntoIterator<Item = (K, V)>) -> Link<K, V> {
    // The nodes from the root to the greatest key, still without their right subtrees.
    let mut spine: Vec<Node<K, V>> = Vec::new();
    for (key, value) in sorted {
        let mut node = Node::new(key, value);
        while let Some(last) = spine.pop_if(|last| node.is_above(last)) {
            node.left = Some(finish(last, node.left.take()));
        }
        spine.push(node);
    }
    let mut below = None;
    while let Some(last) = spine.pop() {
        below = Some(finish(last, below));
    }
    below
}

fn finish<K: Hash + Ord, V>(mut node: Node<K, V>, right: Link<K, V>) -> Arc<Node<K, V>> {
    node.right = right;
    node.count();
    Arc::new(node)
}

/// Inserts an entry and returns the value that it replaces.
pub(super) fn insert<K: Hash + Ord + Clone, V: Clone>(
    link: &mut Link<K, V>,
    key: K,
    value: V,
) -> Option<V> {
    put(link, Node::new(key, value))
}

fn put<K: Hash + Ord + Clone, V: Clone>(link: &mut Link<K, V>, mut new: Node<K, V>) -> Option<V> {
    let Some(held) = link else {
        *link = Some(Arc::new(new));
        return None;
    };
    if new.is_above(held) {
        (new.left, new.right) = split(link.take(), &new.key);
        new.count();
        *link = Some(Arc::new(new));
        return None;
    }
    let node = Arc::make_mut(held);
    let replaced = match new.key.cmp(&node.key) {
        Ordering::Equal => return Some(std::mem::replace(&mut node.value, new.value)),
        Ordering::Less => put(&mut node.left, new),
        Ordering::Greater => put(&mut node.right, new),
    };
    node.count();
    replaced
}

/// Splits a tree at a key that it does not have: the entries below, and those above.
fn split<K: Hash + Ord + Clone, V: Clone>(link: Link<K, V>, key: &K) -> (Link<K, V>, Link<K, V>) {
    let Some(mut held) = link else {
        return (None, None);
    };
    let node = Arc::make_mut(&mut held);
    if node.key < *key {
        let (below, above) = split(node.right.take(), key);
        node.right = below;
        node.count();
        (Some(held), above)
    } else {
        let (below, above) = split(node.left.take(), key);
        node.left = above;
        node.count();
        (below, Some(held))
    }
}

/// Removes a key that the tree has.
pub(super) fn remove<K, V, Q>(link: &mut Link<K, V>, key: &Q) -> Option<V>
where
    K: Hash + Ord + Clone + Borrow<Q>,
    V: Clone,
    Q: Ord + ?Sized,
{
    let held = link.as_mut()?;
    let order = key.cmp(held.key.borrow());
    if order == Ordering::Equal {
        let node = Arc::unwrap_or_clone(link.take()?);
        *link = join(node.left, node.right);
        return Some(node.value);
    }
    let node = Arc::make_mut(held);
    let removed = if order == Ordering::Less {
        remove(&mut node.left, key)
    } else {
        remove(&mut node.right, key)
    };
    node.count();
    removed
}

/// Joins two trees; all keys of `left` are less than those of `right`.
fn join<K: Hash + Ord + Clone, V: Clone>(left: Link<K, V>, right: Link<K, V>) -> Link<K, V> {
    let (Some(mut low), Some(mut high)) = (left.clone(), right.clone()) else {
        return left.or(right);
    };
    drop((left, right));
    if low.is_above(&high) {
        let node = Arc::make_mut(&mut low);
        node.right = join(node.right.take(), Some(high));
        node.count();
        Some(low)
    } else {
        let node = Arc::make_mut(&mut high);
        node.left = join(Some(low), node.left.take());
        node.count();
        Some(high)
    }
}
