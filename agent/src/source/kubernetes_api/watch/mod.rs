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

/// A text as a part of a query (RFC 3986 §2.1).
#[cfg(feature = "kubernetes")]
pub(crate) fn query_part(text: &str) -> String {
    let escaped = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(escaped).collect()
}
