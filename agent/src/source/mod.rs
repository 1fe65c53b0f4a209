//! Where the desired state comes from: TOML files for inventory and policies, Kubernetes objects
//! for policies, and the Kubernetes API for both.
//!
//! A source parses untrusted text into values of `model`. A file is accepted as a whole or refused
//! as a whole; the last good content of a refused file stays in force. What the values mean for the
//! kernel is decided elsewhere.

mod cidr_block;
pub mod document;
pub mod expected_flows;
mod file_diff;
mod file_read;
mod file_source;
pub mod files;
pub mod interfaces;
mod inventory_errors;
mod inventory_file;
mod inventory_parts;
pub mod inventory_toml;
pub mod kubernetes;
pub mod kubernetes_api;
pub mod last_good;
pub(crate) mod limits;
pub mod object_sources;
pub mod objects;
pub mod pod_interfaces;
pub mod policy_file;
mod policy_raw;
mod policy_scope;
pub mod policy_toml;
mod refused_subjects;
mod selection;
mod toml_error_names;
mod tracked_files;
pub mod value;
pub mod watch;

pub use document::{SourceError, WarningKind};
pub use expected_flows::ExpectedFlow;
pub use file_read::FileId;
pub use file_source::FileSource;
pub use files::FileSet;
pub use interfaces::Interfaces;
pub use inventory_toml::InventoryFragment;
pub use object_sources::{Known, ObjectSource, ObjectSources, Reload, Report};
pub use objects::{ObjectChanges, Objects, SourceId};
pub use policy_file::PolicyFragment;
pub use watch::Watcher;
