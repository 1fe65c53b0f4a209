//! A real Kubernetes cluster on one machine: etcd, the control plane, and nodes with containerd,
//! kubelet and kube-proxy, for tests.
//!
//! Nothing is simulated but the machines: each node is a network, mount and UTS namespace. The
//! programs are built from Go modules that `go.mod` and `go.sum` pin, once, into a cache outside
//! of the checkout.
//!
//! Invariants: every process of a cluster is in the cluster's cgroup from its first instruction on,
//! so that [`Cluster::up`] may be killed at any time and `down` still ends everything; the host's
//! root namespaces get no interface, mount, file or sysctl of a cluster. Clusters have no fixed
//! names, ports or address ranges, so that several live next to each other.
//!
//! Needs root and cgroup v1 with the freezer (also in the hybrid layout). It knows nothing of
//! Ringfence.

pub mod addresses;
pub mod binaries;
mod cgroup;
pub mod check;
mod cluster;
mod cni;
mod component;
mod containerd;
mod control_plane;
pub mod home;
pub mod images;
mod kube_proxy;
mod kubelet;
pub mod ledger;
mod mounts;
pub mod namespaces;
mod network;
mod node;
mod pki;
mod restart;
mod shared;
pub mod spec;
pub mod status;
pub mod teardown;
mod wait;

pub use cluster::Cluster;
pub use home::Home;
pub use spec::Spec;
