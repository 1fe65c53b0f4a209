//! The policy engine against an oracle that shares no code with it, and the limits of what a change
//! may affect.
//!
//! `crate::oracle` describes how to run more cases and how to repeat a run.

mod agreement;
mod attachments;
mod disputes;
mod everywhere;
mod explained;
mod kernel;
mod named;
mod named_ranges;
mod objects;
mod promises;
mod services;
mod shape;
mod transition;
