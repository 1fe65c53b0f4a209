//! Watches of the objects of an API server.
//!
//! `list_watch` knows what to ask for and what to do about every kind of failure, `server` asks, and `thread`
//! is where all watches run. Only the last two need the API server's client.

mod backoff;
mod list_watch;
#[cfg(feature = "kubernetes")]
mod server;
#[cfg(feature = "kubernetes")]
mod thread;

#[cfg(feature = "kubernetes")]
pub use thread::{Connection, start};
