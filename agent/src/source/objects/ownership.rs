//! Whose the objects of one kind are.
//!
//! Invariants: an object in force that is not noted here belongs to the files, so that they cost nothing;
//! an object that waits has a source after that of the one in force, unless that one is gone.

use std::hash::Hash;

use super::SourceId;
use crate::model::Change;
use crate::ordmap::Map;

#[derive(Debug, Clone)]
pub(super) struct Ownership<K, T> {
    /// The sources of objects in force, other than files.
    others: Map<K, SourceId>,
    /// Objects that are not in force, because an object of the same name is.
    waiting: Map<(K, SourceId), T>,
    /// Whether one of them may have nothing to wait for any more.
    is_vacant: bool,
}

impl<K, T> Default for Ownership<K, T> {
    fn default() -> Self {
        Self {
            others: Map::new(),
            waiting: Map::new(),
            is_vacant: false,
        }
    }
}

impl<K: Ord + Hash + Clone, T: Clone> Ownership<K, T> {
    /// The source of an object in force.
    pub(super) fn owner(&self, name: &K) -> SourceId {
        self.others.get(name).copied().unwrap_or(SourceId::FILES)
    }

    /// True if every object in force is the files'.
    pub(super) const fn is_of_files(&self) -> bool {
        self.others.is_empty()
    }

    /// Whether a source has delivered an object of this name, given whether one is in force.
    pub(super) fn is_of(&self, source: SourceId, name: &K, is_held: bool) -> bool {
        let waits = || self.waiting.contains_key(&(name.clone(), source));
        (is_held && self.owner(name) == source) || (!self.waiting.is_empty() && waits())
    }

    /// The changes of a source that change what is in force, given what is.
    pub(super) fn pass(
        &mut self,
        source: SourceId,
        changes: Vec<Change<K, T>>,
        held: impl Fn(&K) -> Option<T>,
    ) -> Vec<Change<K, T>> {
        let is_alone = self.others.is_empty() && self.waiting.is_empty();
        if is_alone && source == SourceId::FILES {
            return changes;
        }
        let changes = changes.into_iter();
        changes
            .filter_map(|(name, new)| {
                let held = held(&name);
                self.pass_one(source, name, new, held)
            })
            .collect()
    }

    fn pass_one(
        &mut self,
        source: SourceId,
        name: K,
        new: Option<T>,
        held: Option<T>,
    ) -> Option<Change<K, T>> {
        let key = (name.clone(), source);
        let owner = held.as_ref().map(|_| self.owner(&name));
        match (new, owner) {
            (Some(new), Some(owner)) if owner < source => {
                self.waiting.insert(key, new);
                None
            }
            (Some(new), _) => {
                if let (Some(held), Some(owner)) = (held, owner)
                    && owner != source
                {
                    self.waiting.insert((name.clone(), owner), held);
                }
                self.take(name.clone(), source);
                Some((name, Some(new)))
            }
            (None, Some(owner)) if owner == source => {
                self.others.remove(&name);
                self.is_vacant = true;
                Some((name, None))
            }
            (None, _) => {
                self.waiting.remove(&key);
                None
            }
        }
    }

    /// Notes that a source's object is in force.
    pub(super) fn take(&mut self, name: K, source: SourceId) {
        self.waiting.remove(&(name.clone(), source));
        if source == SourceId::FILES {
            self.others.remove(&name);
        } else {
            self.others.insert(name, source);
        }
    }

    /// The objects that have nothing to wait for, of each name the one of the first source.
    pub(super) fn next(&mut self, is_held: impl Fn(&K) -> bool) -> Vec<(K, SourceId, T)> {
        if !self.is_vacant {
            return Vec::new();
        }
        let mut found: Vec<(K, SourceId, T)> = Vec::new();
        for ((name, source), object) in &self.waiting {
            let is_next = found.last().is_none_or(|(last, ..)| last != name);
            if is_next && !is_held(name) {
                found.push((name.clone(), *source, object.clone()));
            }
        }
        // Those that cannot be put into force are looked at again.
        self.is_vacant = !found.is_empty();
        found
    }

    /// The objects that are not in force, each with its source and that of the one that is.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&K, SourceId, SourceId)> {
        let waiting = self.waiting.keys();
        waiting.map(|(name, source)| (name, *source, self.owner(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: SourceId = SourceId {
        rank: 1,
        name: "other",
    };
    const LAST: SourceId = SourceId {
        rank: 2,
        name: "last",
    };

    #[test]
    fn the_first_source_that_waits_follows_when_the_one_in_force_is_gone() {
        let mut owned = Ownership::default();
        let files = owned.pass(SourceId::FILES, vec![("a", Some(1))], |_| None);
        assert_eq!(files, [("a", Some(1))]);
        for (source, object) in [(LAST, 3), (OTHER, 2)] {
            let passed = owned.pass(source, vec![("a", Some(object))], |_| Some(1));
            assert_eq!(passed, [], "{source:?} waits");
        }
        assert_eq!(owned.next(|_| true), []);
        let gone = owned.pass(SourceId::FILES, vec![("a", None)], |_| Some(1));
        assert_eq!(gone, [("a", None)]);
        // Until it is taken, since it may not be possible to put it into force at once.
        for _ in 0..2 {
            assert_eq!(owned.next(|_| false), [("a", OTHER, 2)]);
        }
        owned.take("a", OTHER);
        assert_eq!(owned.owner(&"a"), OTHER);
        assert_eq!(owned.next(|_| true), []);
    }
}
