//! What happens to agents, under traffic: kills, upgrades and downgrades, and faults of what is around
//! them.
//!
//! Three kinds of run, with the same traffic: connections and datagrams that policy allows must
//! continue without a stall, and what it denies must never arrive. Before, all that is denied is sent once while
//! nothing is enforced, and must arrive.

mod connections;
mod datagrams;
mod denied_packets;
mod denied_probes;
mod desired;
pub mod faults;
mod hosts;
pub mod kills;
mod network;
mod phase;
mod progress;
mod revoked;
mod traffic;
pub mod upgrades;

pub use denied_packets::Packets;
pub use phase::Phase;
pub use traffic::{Outcome, Stall, TrafficSpec};
