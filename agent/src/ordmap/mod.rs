//! Sorted maps whose copies share their common parts.
//!
//! The agent passes its state on as a whole, but a change of one entry among a hundred thousand
//! must cost only what one entry costs. Pure data structure.

mod map;
mod node;

pub use map::{Change, Iter, Map};
