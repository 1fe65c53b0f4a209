//! Numbers by content: the same identity, class, table, rule or namespace keeps its number as long
//! as it is recorded, across restarts too.
//!
//! Invariants: a number is never given to two contents at a time, and a table number never to a
//! second content at all: cached verdicts in conntrack are compared by it. Other numbers are free
//! again after they were retired, that is, referred to by no state, and after the caller found that
//! the kernel does not hold them either. Allocations are reported, so that they can be written down
//! *before* they are used in a map. Writing them is the caller's task.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use ringfence_common::{ids, maps};

use super::digest::Digest;

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
            Self::Identity => (ids::IdentityId::FIRST_FREE.0, ids::IdentityId::FIRST_NODE.0),
            Self::Class | Self::Table => (1, u32::MAX),
            Self::Rule => (ids::RuleSlot::FIRST_FREE.0, maps::RULES),
            Self::Namespace => (1, maps::NAMESPACES),
        }
    }

    /// Whether a number may be given again once nothing holds it.
    const fn is_reused(self) -> bool {
        !matches!(self, Self::Table)
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Table => "run `ringfence cleanup` and start the agent again",
            Self::Namespace => "reduce the number of namespaces in the inventory",
            Self::Identity | Self::Class | Self::Rule => {
                "reduce the number of distinct label sets or rules in its policies"
            }
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

/// No number is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// A space is full.
    #[error(
        "this node would need more than {limit} distinct values of type {}: {}",
        .space.name(), .space.remedy()
    )]
    Space {
        /// The space.
        space: Space,
        /// Its size.
        limit: u32,
    },
    /// The part of the identities for this node's own addresses is full.
    #[error(
        "the addresses of this node lie in more than {limit} different sets of policy prefixes: \
         reduce the number of prefixes in policies (cidr, except, ipBlock) that contain some of \
         this node's addresses"
    )]
    NodePairs {
        /// How many pairs there are.
        limit: u32,
    },
}

#[derive(Debug, Default)]
struct SpaceNumbers {
    numbers: HashMap<Digest, u32>,
    /// Every number that must not be given out, with and without a known content.
    taken: HashSet<u32>,
    /// Taken numbers that nothing refers to, and since when.
    retired: HashMap<u32, u64>,
    /// Where the search for a free number starts.
    next: u32,
}

/// All numbers in use.
#[derive(Debug, Default)]
pub struct Numbers {
    books: HashMap<Space, SpaceNumbers>,
    fresh: Vec<Allocation>,
}

impl Numbers {
    /// Restores the allocations of an earlier run, oldest first: of two contents with one number,
    /// the later has it, because the number was free in between. Of two numbers of one content it has the
    /// later, and the earlier is taken: it may have been given up without being free, because the content
    /// no longer fitted its range, so that the kernel may hold it.
    pub fn restore(&mut self, allocations: impl IntoIterator<Item = Allocation>) {
        let mut contents = HashMap::new();
        for Allocation {
            space,
            digest,
            number,
        } in allocations
        {
            let book = self.books.entry(space).or_default();
            if let Some(before) = contents.insert((space, number), digest) {
                book.numbers.remove(&before);
            }
            if let Some(before) = book.numbers.insert(digest, number)
                && before != number
            {
                contents.remove(&(space, before));
            }
            book.take(space, number);
        }
        if let Some(book) = self.books.get_mut(&Space::Identity) {
            book.keep_whole_pairs();
        }
    }

    /// Reserves numbers that the kernel holds but the ledger does not.
    pub fn reserve(&mut self, space: Space, numbers: impl IntoIterator<Item = u32>) {
        let book = self.books.entry(space).or_default();
        for number in numbers {
            book.take(space, number);
        }
    }

    /// The first table number that was never given out.
    #[must_use]
    pub fn next_table(&self) -> u32 {
        let (first, _) = Space::Table.range();
        let book = self.books.get(&Space::Table);
        book.map_or(first, |book| book.next.max(first))
    }

    /// Gives no table number below this one any more.
    pub fn skip_tables_below(&mut self, number: u32) {
        let book = self.books.entry(Space::Table).or_default();
        book.next = book.next.max(number);
    }

    /// The number of a content, allocated if it has none.
    ///
    /// # Errors
    /// When the space is full.
    pub fn number(&mut self, space: Space, digest: Digest) -> Result<u32, Exhausted> {
        let (_, limit) = space.range();
        let book = self.books.entry(space).or_default();
        if let Some(number) = book.numbers.get(&digest).filter(|number| **number < limit) {
            book.retired.remove(number);
            return Ok(*number);
        }
        let number = book.free_number(space)?;
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

    /// The number of an identity of this node in policy prefixes, allocated if it has none; the next
    /// number is taken with it ([`ids::IdentityId::behind_node`]).
    ///
    /// # Errors
    /// When there is no free pair.
    pub fn node_number(&mut self, digest: Digest) -> Result<u32, Exhausted> {
        let space = Space::Identity;
        let book = self.books.entry(space).or_default();
        let known = book.numbers.get(&digest).copied();
        let mut pairs = NODE_PAIRS.step_by(2);
        let number = match known.filter(|number| is_node_number(*number)) {
            Some(number) => number,
            None => pairs
                .find(|node| !(book.taken.contains(node) || book.taken.contains(&(node + 1))))
                .ok_or(Exhausted::NodePairs {
                    limit: (NODE_PAIRS.end - NODE_PAIRS.start) / 2,
                })?,
        };
        for number in [number, number + 1] {
            book.retired.remove(&number);
            book.taken.insert(number);
        }
        if known != Some(number) {
            book.numbers.insert(digest, number);
            self.fresh.push(Allocation {
                space,
                digest,
                number,
            });
        }
        Ok(number)
    }

    /// The number of a content, if it has one that is written down.
    #[must_use]
    pub fn written_number(&self, space: Space, digest: Digest) -> Option<u32> {
        let number = *self.books.get(&space)?.numbers.get(&digest)?;
        let mut fresh = self.fresh.iter();
        let is_fresh = fresh.any(|of| of.space == space && of.number == number);
        (!is_fresh).then_some(number)
    }

    /// Allocations that are not written down yet; that must be done before they are used.
    #[must_use]
    pub fn fresh(&self) -> &[Allocation] {
        &self.fresh
    }

    /// Says that the fresh allocations are written down.
    pub fn written(&mut self) {
        self.fresh.clear();
    }

    /// Retires the numbers that are not in use, and takes back those that are. `now` is the time of
    /// a clock of the caller's choice, in nanoseconds.
    pub fn retire_unused(&mut self, space: Space, in_use: &HashSet<u32>, now: u64) {
        let book = self.books.entry(space).or_default();
        book.retired.retain(|number, _| !in_use.contains(number));
        for number in book.taken.difference(in_use) {
            if let Entry::Vacant(entry) = book.retired.entry(*number) {
                entry.insert(now);
            }
        }
    }

    /// The numbers that have been retired since this time or longer.
    #[must_use]
    pub fn retired_since(&self, space: Space, time: u64) -> HashSet<u32> {
        let retired = self.books.get(&space).into_iter();
        retired
            .flat_map(|book| &book.retired)
            .filter_map(|(number, since)| (*since <= time).then_some(*number))
            .collect()
    }

    /// Whether any number is retired.
    #[must_use]
    pub fn has_retired(&self) -> bool {
        self.books.values().any(|book| !book.retired.is_empty())
    }

    /// Frees retired numbers; others are left alone. Tables are only forgotten: their numbers are
    /// not given again.
    pub fn free(&mut self, space: Space, mut numbers: HashSet<u32>) {
        let book = self.books.entry(space).or_default();
        numbers.retain(|number| book.retired.remove(number).is_some());
        book.numbers.retain(|_, number| !numbers.contains(number));
        book.taken.retain(|number| !numbers.contains(number));
        self.fresh
            .retain(|of| of.space != space || !numbers.contains(&of.number));
    }

    /// How many contents have a number.
    #[must_use]
    pub fn count(&self) -> usize {
        self.books.values().map(|book| book.numbers.len()).sum()
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

/// The numbers for identities of this node, in pairs: one for an address, the next for clients behind it.
const NODE_PAIRS: std::ops::Range<u32> = ids::IdentityId::FIRST_NODE.0..maps::IDENTITIES;

/// Whether it is the first number of a pair.
fn is_node_number(number: u32) -> bool {
    NODE_PAIRS.contains(&number) && ids::IdentityId(number).is_node()
}

impl SpaceNumbers {
    /// Takes the contents from numbers in the range of pairs that are not the first of a whole pair, as
    /// those of a version with another range may be. The numbers stay taken.
    fn keep_whole_pairs(&mut self) {
        let given: HashSet<u32> = self.numbers.values().copied().collect();
        self.numbers.retain(|_, number| {
            *number < NODE_PAIRS.start
                || (is_node_number(*number) && !given.contains(&(*number + 1)))
        });
    }

    fn take(&mut self, space: Space, number: u32) {
        self.taken.insert(number);
        if !space.is_reused() {
            self.next = self.next.max(number.saturating_add(1));
        }
    }

    fn free_number(&self, space: Space) -> Result<u32, Exhausted> {
        let (first, limit) = space.range();
        let span = limit - first;
        let start = self.next.max(first);
        let free = if space.is_reused() {
            // Round robin, so that a freed number is reused as late as possible.
            (0..span)
                .map(|step| first + (start - first + step) % span)
                .find(|number| !self.taken.contains(number))
        } else {
            (start < limit).then_some(start)
        };
        free.ok_or(Exhausted::Space { space, limit: span })
    }
}

#[cfg(test)]
mod tests;
