//! The policy engine against an oracle that shares no code with it, and against its own promises
//! about what a change may touch.
//!
//! `crate::oracle` says how to run more cases and how to repeat a run.

mod agreement;
mod everywhere;
mod explained;
mod kernel;
mod promises;
mod shape;
mod transition;
