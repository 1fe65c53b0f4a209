//! The Ringfence agent as a library: everything behind the `ringfence` binary.

pub mod config;
pub mod model;
pub mod source;
