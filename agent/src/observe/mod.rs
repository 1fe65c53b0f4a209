//! Telemetry for users: names, flow records, their history, the flow log and metrics.
//!
//! Invariants: nothing here changes what the kernel enforces; every lost record is counted.
//! `datapath` reads the kernel's maps, `server` serves the results.

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
pub use names::{Directory, RuleName};
