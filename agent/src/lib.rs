//! The Ringfence agent as a library; the `ringfence` binary only calls [`cli`].

pub mod app;
pub mod cli;
pub mod config;
pub mod datapath;
pub mod model;
pub(crate) mod netlink;
pub mod observe;
#[cfg(any(test, feature = "oracle"))]
pub mod oracle;
pub mod ordmap;
pub mod plan;
pub mod policy;
pub mod reconcile;
pub mod server;
pub mod source;
