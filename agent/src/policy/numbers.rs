//! Numbers by content: the same identity, class, table, rule or namespace keeps its number as long
//! as it is recorded, across restarts too.
//!
//! Invariants: a number is allocated once per content and never to two contents at a time.
//! Allocations are reported, so that they can be written down *before* they are used in a map.
//! Writing them is the caller's task.

use std::{
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
};

use ringfence_common::{ids, maps};
use sha2::{Digest as _, Sha256};

/// First sixteen bytes of SHA-256 over the fields of a value, in the order of its `Hash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u128);

/// Feeds the fields of a value to SHA-256, with integers in one byte order.
struct Into256(Sha256);

impl Hasher for Into256 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_u16(&mut self, number: u16) {
        self.0.update(number.to_le_bytes());
    }

    fn write_u32(&mut self, number: u32) {
        self.0.update(number.to_le_bytes());
    }

    fn write_u64(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn write_u128(&mut self, number: u128) {
        self.0.update(number.to_le_bytes());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    /// Unused: the digest is taken from the whole sum.
    fn finish(&self) -> u64 {
        0
    }
}

/// The digest of a value whose `Hash` covers everything that its `Eq` compares: derived, over
/// sorted collections. Derived hashes include lengths and variants, so different values have
/// different input.
pub(crate) fn digest_of(value: &impl Hash) -> Digest {
    let mut hasher = Into256(Sha256::new());
    value.hash(&mut hasher);
    let bytes: [u8; 32] = hasher.0.finalize().into();
    Digest(
        bytes
            .iter()
            .take(16)
            .fold(0, |sum, byte| (sum << 8) | u128::from(*byte)),
    )
}

/// The number spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Identities.
    Identity,
    /// Peer classes.
    Class,
    /// Policy tables.
    Table,
    /// Rules.
    Rule,
    /// Namespaces.
    Namespace,
}

impl Space {
    /// Every space.
    pub const ALL: [Self; 5] = [
        Self::Identity,
        Self::Class,
        Self::Table,
        Self::Rule,
        Self::Namespace,
    ];

    /// Its name in the ledger.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Class => "class",
            Self::Table => "table",
            Self::Rule => "rule",
            Self::Namespace => "namespace",
        }
    }

    /// First number to allocate, and the first that no longer fits.
    const fn range(self) -> (u32, u32) {
        match self {
            Self::Identity => (ids::IdentityId::FIRST_FREE.0, maps::IDENTITIES),
            Self::Class | Self::Table => (1, u32::MAX),
            Self::Rule => (ids::RuleSlot::FIRST_FREE.0, maps::RULES),
            Self::Namespace => (1, maps::NAMESPACES),
        }
    }
}

/// One number allocated to one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// The number space.
    pub space: Space,
    /// The content.
    pub digest: Digest,
    /// The number.
    pub number: u32,
}

/// A space without a free number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node would need more than {limit} distinct values of type {}: reduce the number of \
     distinct label sets or rules in its policies", .space.name()
)]
pub struct Exhausted {
    /// The space.
    pub space: Space,
    /// Its size.
    pub limit: u32,
}

#[derive(Debug, Default)]
struct SpaceNumbers {
    numbers: HashMap<Digest, u32>,
    taken: HashSet<u32>,
    next: u32,
}

/// All numbers in use.
#[derive(Debug, Default)]
pub struct Numbers {
    books: HashMap<Space, SpaceNumbers>,
    fresh: Vec<Allocation>,
}

impl Numbers {
    /// Restores the allocations of an earlier run.
    pub fn restore(&mut self, allocations: impl IntoIterator<Item = Allocation>) {
        for allocation in allocations {
            let book = self.books.entry(allocation.space).or_default();
            if book.taken.insert(allocation.number) {
                book.numbers.insert(allocation.digest, allocation.number);
            }
        }
    }

    /// Reserves numbers that are in the maps but not in the ledger.
    pub fn reserve(&mut self, space: Space, numbers: impl IntoIterator<Item = u32>) {
        self.books.entry(space).or_default().taken.extend(numbers);
    }

    /// The number of a content, allocated if it has none.
    ///
    /// # Errors
    /// When the space is full.
    pub fn number(&mut self, space: Space, digest: Digest) -> Result<u32, Exhausted> {
        let book = self.books.entry(space).or_default();
        if let Some(number) = book.numbers.get(&digest) {
            return Ok(*number);
        }
        let (first, limit) = space.range();
        let span = limit - first;
        let start = book.next.max(first);
        // Round robin, so that a freed number is reused as late as possible.
        let number = (0..span)
            .map(|step| first + (start - first + step) % span)
            .find(|number| !book.taken.contains(number))
            .ok_or(Exhausted { space, limit: span })?;
        book.next = number + 1;
        book.taken.insert(number);
        book.numbers.insert(digest, number);
        self.fresh.push(Allocation {
            space,
            digest,
            number,
        });
        Ok(number)
    }

    /// Allocations since the last call, to be written down before they are used.
    pub fn take_fresh(&mut self) -> Vec<Allocation> {
        std::mem::take(&mut self.fresh)
    }

    /// Frees every number of a space that is no longer in use. Returns how many.
    pub fn retain(&mut self, space: Space, in_use: &HashSet<u32>) -> usize {
        let book = self.books.entry(space).or_default();
        let before = book.taken.len();
        book.numbers.retain(|_, number| in_use.contains(number));
        book.taken.retain(|number| in_use.contains(number));
        before - book.taken.len()
    }

    /// Every allocation in force, for a compact record.
    pub fn all(&self) -> impl Iterator<Item = Allocation> {
        self.books.iter().flat_map(|(space, book)| {
            book.numbers.iter().map(|(digest, number)| Allocation {
                space: *space,
                digest: *digest,
                number: *number,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_keeps_its_number_across_a_restart() {
        let mut first = Numbers::default();
        let a = first.number(Space::Class, Digest(1)).unwrap();
        let b = first.number(Space::Class, Digest(2)).unwrap();
        assert_ne!(a, b);
        let record = first.take_fresh();
        assert_eq!(record.len(), 2);

        let mut second = Numbers::default();
        second.restore(record);
        assert_eq!(second.number(Space::Class, Digest(2)).unwrap(), b);
        let c = second.number(Space::Class, Digest(3)).unwrap();
        assert!(c != a && c != b);
    }

    #[test]
    fn a_number_found_in_a_map_is_not_handed_out() {
        let mut numbers = Numbers::default();
        numbers.reserve(Space::Namespace, 1..=5);
        assert_eq!(numbers.number(Space::Namespace, Digest(9)).unwrap(), 6);
    }

    #[test]
    fn a_full_space_is_an_error_and_freed_numbers_are_reused() {
        let mut numbers = Numbers::default();
        numbers.reserve(Space::Namespace, 2..maps::NAMESPACES);
        let only = numbers.number(Space::Namespace, Digest(1)).unwrap();
        assert!(numbers.number(Space::Namespace, Digest(2)).is_err());
        numbers.retain(Space::Namespace, &(2..maps::NAMESPACES).collect());
        assert_eq!(numbers.number(Space::Namespace, Digest(2)).unwrap(), only);
    }

    #[test]
    fn digests_depend_on_content_alone() {
        assert_eq!(digest_of(&vec!["a", "b"]), digest_of(&vec!["a", "b"]));
        assert_ne!(digest_of(&vec!["a", "b"]), digest_of(&vec!["b", "a"]));
        assert_ne!(digest_of(&("ab", "c")), digest_of(&("a", "bc")));
        assert_ne!(
            digest_of(&(vec![1], vec![2, 3])),
            digest_of(&(vec![1, 2], vec![3]))
        );
        // Ledgers of this version contain it.
        let known = Digest(0x9d6f_66dc_ed34_52cf_5f0a_ac2e_e5f4_b051);
        assert_eq!(digest_of(&("namespace", "shop")), known);
    }
}
