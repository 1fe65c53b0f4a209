//! The desired state as Ringfence understands it: workloads, namespaces, nodes and policies.
//!
//! Pure: only std, `ipnet`, `thiserror` and serde derives. No clock, no file system, no runtime;
//! whatever reads files or talks to Kubernetes lives in `source` and hands finished values to this
//! module. A value of a type in here has passed its type's checks, so later stages need not repeat
//! them.

pub mod inventory;
pub mod labels;
pub mod lockdown;
pub mod mode;
pub mod name;
pub mod policy;
pub mod policy_set;
pub mod protocol;
pub mod quote;
pub mod rule;
pub mod selector;
pub mod selector_parser;
pub mod workload;

pub use inventory::{Inventory, InventoryError, InventoryFault, Item};
pub use labels::{LabelError, Labels};
pub use lockdown::{Lockdown, LockedScope};
pub use mode::{ModeName, ModeNameError};
pub use name::{
    NameError, NamespaceName, NodeName, PolicyName, PortName, ServiceAccountName, WorkloadId,
    WorkloadName,
};
pub use policy::{
    About, BadPriority, Origin, Policy, PolicyId, PolicyKind, PolicyTest, Priority, Scope, TestEnd,
    Tier,
};
pub use policy_set::{DuplicatePolicy, PolicySet, UnknownNamespace, check_namespaces};
pub use protocol::Protocol;
pub use quote::{Quoted, quote};
pub use rule::{
    Entity, NamespaceMatch, Peer, Peers, PortMatch, Ports, Rule, RuleAction, WallTime, Window,
};
pub use selector::{LabelSelector, Operator, Requirement};
pub use selector_parser::SelectorError;
pub use workload::{NamedPort, Namespace, NodeEntry, Workload};
