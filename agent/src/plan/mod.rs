//! From what the kernel holds and what it should hold to the ordered writes between the two.
//!
//! Pure data: a plan can be printed, tested and replayed. The order of writes is what makes
//! publishing atomic for each endpoint (design "Publish and revoke"); who executes them, and when,
//! is not decided here.

mod action;
mod capacity;
mod diff;
mod retiring;
mod state;

pub use action::Action;
pub use capacity::{Capacities, CapacityError, check};
pub use diff::{Plan, plan};
pub use retiring::{GRACE, Retiring};
pub use state::{Addresses, Row, State, TableRows};
