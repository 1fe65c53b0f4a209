//! The agent's servers: the control API on a Unix socket, metrics and health on loopback.
//!
//! Invariants: the servers own no state; they return views from the application and pass commands
//! to it, so a request can never change a map by itself.

mod api;
pub mod client;
pub mod control;
mod explain;
mod flows;
pub mod health;
mod http;
mod listener;
pub mod view;

pub use client::{Client, ClientError};
pub use control::{Command, Control, Views};
pub use health::{Health, HealthServer};
pub use listener::{ControlListener, ListenError};
