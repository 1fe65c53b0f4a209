//! Conformance cases: a topology, policies as a user would write them, steps, and what every probe
//! must show after each step.
//!
//! [`run`] plays a folder of them, on the wire (real interfaces in network namespaces, the real
//! agent, real sockets) or offline (through `ringfence policy eval`). A case is read and checked
//! whole before anything runs; it is then played by one script on a stage that knows how to bring
//! a world about and how to look at it. Nothing in here knows what a policy means.

mod case;
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
mod script;
mod stage;
mod substitution;
mod toml_blocks;
mod wire;
mod world;

pub use case::Unreadable;
pub use run::{Options, run};
