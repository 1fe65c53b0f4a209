//! What the watches have said before every kind was listed whole once.
//!
//! Pure. Invariants: nothing of it is in force; once every kind was listed whole, it becomes one list of
//! each kind, in the order that a watch has, as if all of them had been listed at that moment. So what an earlier agent
//! left is replaced by all kinds together.

use std::collections::BTreeMap;

use super::object::{Converted, Key, Kind};
use super::state::Update;

/// What was said of one object.
#[derive(Debug, Clone, Default)]
struct Said {
    is: Option<Box<Converted>>,
    /// Why it cannot be read as it is now.
    unreadable: Option<String>,
}

type Objects = BTreeMap<Key, Said>;

/// What was said of one kind.
#[derive(Debug, Default)]
struct OfKind {
    /// The objects of the last whole list, as they are now.
    whole: Option<Objects>,
    /// The objects of a list that is not whole yet.
    listing: Option<Objects>,
}

impl OfKind {
    fn note(&mut self, key: &Key, change: impl Fn(&mut Said)) {
        if self.whole.is_none() {
            self.listing.get_or_insert_default();
        }
        for objects in self.whole.iter_mut().chain(&mut self.listing) {
            change(objects.entry(key.clone()).or_default());
        }
    }
}

/// The first lists of all kinds.
#[derive(Debug, Default)]
pub(super) struct FirstLists(BTreeMap<Kind, OfKind>);

impl FirstLists {
    /// Whether every kind was listed whole.
    pub(super) fn are_whole(&self) -> bool {
        let mut kinds = Kind::ALL.iter();
        kinds.all(|kind| self.0.get(kind).is_some_and(|it| it.whole.is_some()))
    }

    /// Takes over what a watch says; returns what is not about objects.
    pub(super) fn take(&mut self, update: Update) -> Option<Update> {
        match update {
            Update::Begins(kind) => self.of(kind).listing = Some(Objects::new()),
            Update::Is(converted) => {
                let of_kind = self.of(converted.key.kind());
                of_kind.note(&converted.key, |said| {
                    said.is = Some(converted.clone());
                    said.unreadable = None;
                });
            }
            Update::IsUnreadable(key, error) => {
                let of_kind = self.of(key.kind());
                of_kind.note(&key, |said| said.unreadable = Some(error.clone()));
            }
            Update::IsGone(key) => {
                let of_kind = self.of(key.kind());
                for objects in of_kind.whole.iter_mut().chain(&mut of_kind.listing) {
                    objects.remove(&key);
                }
            }
            Update::IsWhole(kind) => {
                let of_kind = self.of(kind);
                if let Some(listed) = of_kind.listing.take() {
                    of_kind.whole = Some(listed);
                }
                of_kind.whole.get_or_insert_default();
            }
            update @ (Update::Fails(..) | Update::Works(_)) => return Some(update),
        }
        None
    }

    fn of(&mut self, kind: Kind) -> &mut OfKind {
        self.0.entry(kind).or_default()
    }

    /// All of it, as one list of each kind, and the begin of another one where one has begun.
    pub(super) fn into_updates(self) -> impl Iterator<Item = Update> {
        self.0.into_iter().flat_map(|(kind, of_kind)| {
            let begins = || std::iter::once(Update::Begins(kind));
            let whole = of_kind.whole.unwrap_or_default();
            let listing = of_kind.listing;
            let begins_again = listing.is_some().then_some(Update::Begins(kind));
            begins()
                .chain(updates(whole))
                .chain([Update::IsWhole(kind)])
                .chain(begins_again)
                .chain(updates(listing.unwrap_or_default()))
        })
    }
}

fn updates(objects: Objects) -> impl Iterator<Item = Update> {
    objects.into_iter().flat_map(|(key, said)| {
        let unreadable = said.unreadable;
        let unreadable = unreadable.map(|error| Update::IsUnreadable(key, error));
        said.is.map(Update::Is).into_iter().chain(unreadable)
    })
}

#[cfg(test)]
mod tests;
