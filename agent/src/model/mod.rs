//! The desired state: workloads, namespaces, nodes and policies.
//!
//! The module is pure: it uses only std, `ipnet`, `thiserror` and serde derives, and has no clock,
//! no file system and no runtime. `source` reads files, talks to Kubernetes and constructs the
//! values. Every value has passed the checks of its type, so that its users need not repeat them.

pub mod budget;
pub mod dispute;
pub mod endpoint;
pub mod inventory;
pub mod labels;
pub mod lockdown;
pub mod mode;
pub mod name;
pub mod node_network;
pub mod owner;
pub mod policy;
pub mod policy_set;
pub mod policy_store;
pub mod protocol;
pub mod quote;
pub mod rule;
pub mod selector;
pub mod selector_parser;
pub mod service;
pub mod special_range;
pub mod workload;

pub use budget::{DEFAULT_BUDGET, Needs, OverBudget};
pub use dispute::{Claim, Claimant, Confirmation, Dispute, Recency};
pub use endpoint::{Attachment, EndpointId};
pub use inventory::{
    Change, Inventory, InventoryChanges, InventoryError, InventoryFault, InventoryStore, Item,
};
pub use labels::{LabelError, Labels};
pub use lockdown::{Lockdown, LockedScope};
pub use mode::{ModeName, ModeNameError};
pub use name::{
    EndpointSliceName, NameError, NamespaceName, NodeName, PolicyName, PortName,
    ServiceAccountName, ServiceCidrName, ServiceName, WorkloadId, WorkloadName,
};
pub use node_network::{
    NodeNetwork, TUNNEL_PORTS, TUNNEL_PROTOCOLS, Unlisted, cluster_range, is_tunnel,
};
pub use owner::Owner;
pub use policy::{
    About, BadPriority, Origin, Policy, PolicyId, PolicyKind, PolicyTest, Priority, Scope, TestEnd,
    Tier,
};
pub use policy_set::{DuplicatePolicy, PolicySet, UnknownNamespace, check_namespaces};
pub use policy_store::PolicyStore;
pub use protocol::Protocol;
pub use quote::{Quoted, quote};
pub use rule::{
    Entity, NamespaceMatch, Peer, Peers, PortMatch, Ports, Rule, RuleAction, WallTime, Window,
};
pub use selector::{LabelSelector, Operator, Requirement};
pub use selector_parser::SelectorError;
pub use service::{Backend, Service, ServiceId, ServicePort};
pub use special_range::{SPECIAL_RANGES, special_range, special_range_name, special_range_of};
pub use workload::{NamedPort, Namespace, NodeEntry, Workload};
