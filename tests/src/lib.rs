//! Ringfence's test bed: real network components for tests, the benchmark and the demo.
//!
//! Network namespaces, workloads behind veth pairs, probes that observe both ends, raw frames,
//! and the real agent as a child process. Nothing has a fixed name or port, everything is cleaned
//! up by RAII (also while unwinding), and waiting always means polling with a deadline.
//!
//! It needs root. It has no notion of policy: each test states what *should* be delivered.

pub mod agent;
pub mod attack;
pub mod bpffs;
pub mod chaos;
pub mod churn;
pub mod clients;
pub mod conformance;
pub mod fence_state;
pub mod flood;
pub mod frame;
pub mod http;
pub mod interrupt;
pub mod inventory;
pub mod kernel_drops;
pub mod load;
pub mod netns;
pub mod nonce;
pub mod other_layout;
pub mod probe;
mod program_run;
pub mod race;
pub mod server;
pub mod sizes;
pub mod stream;
pub mod topology;
pub mod wait;

pub use agent::{Agent, AgentSpec};
pub use bpffs::Bpffs;
pub use inventory::{Attributes, InventoryBuilder};
pub use load::{Load, LoadSpec, Totals};
pub use netns::NetNs;
pub use nonce::Nonce;
pub use probe::{Outcome, Probe};
pub use server::{Proto, Server};
pub use stream::{Delivery, End, Stream};
pub use topology::{Addresses, Node, Workload};
pub use wait::eventually;
