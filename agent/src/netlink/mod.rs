//! The kernel's routing netlink family: messages, and one request with its answer.
//!
//! What the messages are about is known to the modules that use them: interfaces and routes
//! (`source::interfaces`), qdiscs and filters (`datapath::filters`).

pub(crate) mod message;
pub(crate) mod request;
