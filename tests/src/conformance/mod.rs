//! Conformance cases: a topology, policies as a user would write them, steps, and the expected
//! result of every probe after each step.
//!
//! [`run`] runs a folder of cases, on the wire (real interfaces in network namespaces, the real
//! agent, real sockets) or offline (through `ringfence policy eval`). A case is read and checked as
//! a whole before anything runs; then it runs against a [`backend::Backend`], which sets up the
//! cluster and probes it. Nothing in this module interprets policies.

mod backend;
mod case;
mod case_run;
mod cluster;
mod duration;
mod grid;
mod inventory_text;
mod name;
mod objects;
mod offline;
mod pattern;
mod port;
mod refusal;
mod report;
mod run;
mod substitution;
mod toml_blocks;
mod wire;

pub use case::Unreadable;
pub use run::{Options, run};
