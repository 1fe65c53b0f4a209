//! Plans: the ordered writes from the kernel's actual state to the desired one.
//!
//! Pure data: a plan can be printed, tested and replayed. The order of writes makes publishing
//! atomic for each endpoint (design "Publish and revoke"); `reconcile` decides when to execute
//! them.

mod action;
mod capacity;
mod diff;
mod retire_queue;
mod state;

pub use action::Action;
pub use capacity::{Capacities, CapacityError, check};
pub use diff::{Plan, plan};
pub use retire_queue::{GRACE, RetireQueue};
pub use state::{Addresses, Row, State, TableRows};
