//! Objects of a Kubernetes API server: pods, namespaces, nodes, policies and ranges of Services.
//!
//! `object` and `pod` convert objects, `state` knows what has been said, `cluster_ranges` which ranges
//! are the cluster's and `local_pods` which interface a pod of this node has; all of them are pure. `kept` is what
//! is kept of an object for a start without the API server, `stored` the file of it, `restored` what is in force then, and
//! `first_lists` what the server has said of it before it has said everything. `source` delivers. `watch` asks the API server, and is the only
//! part that needs its client (cargo feature `kubernetes`).

mod cluster_ranges;
mod first_lists;
mod kept;
mod local_pods;
mod metadata;
mod object;
mod pod;
mod restored;
mod service;
mod services;
mod source;
mod state;
mod stored;
#[cfg(test)]
mod test_objects;
// What of it needs no client is tested without one.
#[cfg(any(test, feature = "kubernetes"))]
pub mod watch;

pub use cluster_ranges::PodRanges;
pub use kept::Kept;
pub use object::{Converted, Key, Kind, Object, convert, key};
pub use pod::PodObject;
pub use restored::PEERS;
pub use source::{CAPACITY, KubernetesSource, LISTS, ObjectStore};
pub use state::{ApiState, KUBERNETES, Update};
pub use stored::{LIMITS, Limits, Stored, Unusable, read, write};
