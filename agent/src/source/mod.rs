//! Where the desired state comes from: TOML files for inventory and policies, Kubernetes objects
//! for policies.
//!
//! A source turns outside text, which is hostile until parsed, into values of `model`. A file is
//! taken whole or not at all; a bad one leaves its last good content in force. Deciding what the
//! values mean for the kernel is not done here.

mod cidr_block;
pub mod document;
pub mod expected_flows;
pub mod files;
pub mod interfaces;
mod inventory_parts;
pub mod inventory_toml;
pub mod kubernetes;
pub(crate) mod limits;
pub mod policy_file;
mod policy_raw;
mod policy_scope;
pub mod policy_toml;
mod salvage;
mod toml_object;
mod tracked;
pub mod value;
pub mod watch;

pub use document::{Oddity, SourceError};
pub use expected_flows::ExpectedFlow;
pub use files::{FileSet, Reload};
pub use interfaces::Interfaces;
pub use inventory_toml::InventoryFragment;
pub use policy_file::PolicyFragment;
pub use watch::Watcher;
