//! What the agent answers: the control API on a Unix socket, metrics and health on loopback.
//!
//! Invariants: the server owns no state; it shows views that the application hands it and passes
//! commands on, so a request can never change a map by itself. It knows nothing of how the state
//! is applied.

mod api;
pub mod client;
pub mod control;
mod explain;
mod flows;
pub mod health;
mod listener;
pub mod view;

pub use client::{Client, ClientError};
pub use control::{Command, Control, Views};
pub use health::{Health, HealthServer};
pub use listener::{ControlListener, ListenError};
