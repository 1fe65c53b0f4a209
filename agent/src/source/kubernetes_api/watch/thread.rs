//! The thread of all watches.
//!
//! It has a runtime of its own, so that no answer of the API server, however large or slow, delays the event
//! loop. It ends when updates are not taken any more.

use std::io;
use std::path::PathBuf;

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::list_watch::ListWatch;
use super::server::ApiServer;
use crate::model::NodeName;
use crate::source::kubernetes_api::object::Kind;
use crate::source::kubernetes_api::state::Update;

/// How the API server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// By a kubeconfig file.
    Kubeconfig(PathBuf),
    /// By the service account of the pod that the agent runs in.
    ServiceAccount,
}

/// Starts to watch every kind of objects.
///
/// # Errors
/// When the system has no thread or runtime for it.
pub fn start(
    connection: &Connection,
    node: &NodeName,
    updates: mpsc::Sender<Update>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let watches = Kind::ALL.map(|kind| {
        let server = ApiServer::new(connection.clone(), kind);
        ListWatch::new(kind, node.clone(), server, updates.clone())
    });
    let all = async move {
        tokio::select! {
            _ = join_all(watches.into_iter().map(ListWatch::run)) => {}
            () = updates.closed() => {}
        }
    };
    std::thread::Builder::new()
        .name("kubernetes".to_owned())
        .spawn(move || runtime.block_on(all))?;
    Ok(())
}
