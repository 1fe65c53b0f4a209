//! Maps whose copies share what they have in common.
//!
//! State is passed on as a whole, and yet a change of one entry among a hundred thousand must cost
//! what one entry costs. Pure; what the entries mean is not known here.

mod map;
mod node;

pub use map::{Change, Iter, Map};
