//! Objects of a Kubernetes API server: pods, namespaces, nodes, policies and ranges of Services.
//!
//! `object` and `pod` convert objects, `state` knows what has been said, `cluster_ranges` which ranges
//! are the cluster's and `local_pods` which interface a pod of this node has; all of them are pure. `source` delivers. `watch` asks the API server, and is the only
//! part that needs its client (cargo feature `kubernetes`).

mod cluster_ranges;
mod local_pods;
mod metadata;
mod object;
mod pod;
mod service;
mod services;
mod source;
mod state;
// What of it needs no client is tested without one.
#[cfg(any(test, feature = "kubernetes"))]
pub mod watch;

pub use cluster_ranges::PodRanges;
pub use object::{Converted, Key, Kind, Object, convert, key};
pub use pod::PodObject;
pub use source::{CAPACITY, KubernetesSource};
pub use state::{ApiState, KUBERNETES, Update};
