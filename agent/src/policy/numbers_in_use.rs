//! The numbers that the compiler itself still refers to, in results and in what it keeps between
//! calls.
//!
//! Invariant: a number that is neither in such a set nor in a state can be freed: the compiler asks
//! for it again by content before it uses it.

use std::collections::HashSet;

use super::{compile::Compiler, numbers::Space, table::TableSpec};

impl Compiler {
    /// The numbers of a space in use.
    #[must_use]
    pub fn numbers_in_use(&self, space: Space) -> HashSet<u32> {
        let last = &self.last;
        let carried = || self.in_force.iter().chain(&self.latest);
        match space {
            Space::Identity => {
                let all = last.resolver.identities.all.keys();
                all.map(|id| id.0).collect()
            }
            Space::Class => last.classes.numbers().map(|id| id.0).collect(),
            Space::Table => {
                let known = last.layouts.specs().map(|(table, _)| table);
                let carried = carried().map(|(table, _)| *table);
                known.chain(carried).map(|id| id.0).collect()
            }
            Space::Rule => {
                let known = last.layouts.specs().map(|(_, spec)| spec);
                let specs = carried().map(|(_, spec)| &**spec).chain(known);
                let laid_out = specs.flat_map(TableSpec::rules).map(|rule| rule.slot);
                let rules = last.rulebook.rules.keys().copied();
                rules.chain(laid_out).map(|slot| slot.0).collect()
            }
            Space::Namespace => self.slots.values().map(|slot| slot.0).collect(),
        }
    }
}
