//! The policy engine: from inventory and policies to identities, classes and policy tables.
//!
//! Pure: no clock (the time is an argument), no I/O. Resolve gives every address an identity;
//! selectors sort identities into classes; each endpoint's policies make a policy table; tables and
//! classes make policy rows. `evaluate` looks up the same rows on the host as the kernel does in
//! its maps.

mod candidates;
mod cidr;
mod classes;
mod compile;
mod compiled_tables;
mod desired;
pub mod difference;
mod digest;
mod endpoint_without_policy;
mod evaluate;
pub mod explain;
mod flow;
mod host_table;
mod identities;
mod identity;
mod inventory_reduction;
mod layouts;
mod lint;
mod lockdown;
mod named_properties;
mod numbers;
mod numbers_in_use;
mod outcome;
mod peer_groups;
mod port_list;
mod port_verdicts;
mod ports;
mod property_places;
pub mod reach;
mod resolve;
mod rows;
mod rulebook;
mod schedules;
mod selector;
mod service_places;
mod table;
mod tunnels;
mod workload_kinds;

#[cfg(test)]
mod tests;

pub use compile::Compiler;
pub(crate) use compile::own_addresses;
pub use desired::{Clock, Compiled, EndpointInfo, Inputs, LocalEndpoint, Modes, RuleInfo};
pub use digest::Digest;
pub(crate) use digest::digest_of;
pub use evaluate::{Answer, End, Evaluator, Query, QueryError, Side};
pub use explain::{Explanation, explain};
pub use identity::{Identity, Kind, ServiceBackends, WorkloadKind};
pub use lint::{Finding, LintCode, LintInput, UnknownCode, lint};
pub use lockdown::locked_by;
pub use numbers::{Allocation, Exhausted, Numbers, Space};
pub use table::{Fence, TableSpec};
