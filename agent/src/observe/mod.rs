//! What the agent tells people about traffic: names, flow records, their history, log and metrics.
//!
//! Invariants: nothing here changes what the kernel enforces; whatever gets lost on the way is
//! counted. Reading the kernel's maps and serving the results are done elsewhere.

pub mod flow;
pub mod history;
pub mod hubble;
mod hubble_reason;
pub mod log;
pub mod metrics;
pub mod names;

pub use flow::{Decoder, FlowRecord, FlowVerdict};
pub use history::{Filter, Followed, Follower, History};
pub use log::FlowLog;
pub use metrics::{KernelTotals, LossStage, Metrics, State};
pub use names::{AddressBook, Directory, Owner, RuleName};
