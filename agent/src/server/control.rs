//! The control API's handle to the application, and the server loop.
//!
//! Invariants: reading goes through [`Views`], which must not block for long; changing goes through
//! [`Command`], each answered exactly once, or the request fails. Paths and bodies are in `api`.

use std::io;
use std::sync::Arc;

use axum::serve::Listener;
use tokio::sync::{mpsc, oneshot};

use super::api;
use super::view::{EndpointView, IdentityView, ModeView, PolicyView, RuleView, Status};
use crate::model::{ModeName, NamespaceName};
use crate::observe::History;
use crate::policy::{Explanation, Query, QueryError};

/// The present state, as the application sees it.
pub trait Views: Send + Sync {
    /// The agent as a whole.
    fn status(&self) -> Status;
    /// The workloads of this node.
    fn endpoints(&self) -> Vec<EndpointView>;
    /// Every identity.
    fn identities(&self) -> Vec<IdentityView>;
    /// Every policy in force.
    fn policies(&self) -> Vec<PolicyView>;
    /// Every rule in force, with its use.
    fn rules(&self) -> Vec<RuleView>;
    /// The mode of every namespace.
    fn modes(&self) -> Vec<ModeView>;
    /// Why a flow is allowed or denied by what is in force; `all` lists every rule.
    ///
    /// # Errors
    /// When the query names what does not exist.
    fn explain(&self, query: &Query, all: bool) -> Result<Explanation, QueryError>;
}

/// What happened to a command: done, or why not.
pub type Outcome = Result<(), String>;

/// A change that someone asks for.
#[derive(Debug)]
pub enum Command {
    /// Changes the mode of a namespace, for good.
    SetMode {
        /// The namespace.
        namespace: NamespaceName,
        /// The wanted mode.
        mode: ModeName,
        /// Answer once it is in force.
        reply: oneshot::Sender<Outcome>,
    },
    /// Reads every source again.
    Reload {
        /// Answer once the result is in force.
        reply: oneshot::Sender<Outcome>,
    },
}

/// What the server needs of the application.
#[derive(Clone)]
pub struct Control {
    /// The present state.
    pub views: Arc<dyn Views>,
    /// Where changes go.
    pub commands: mpsc::Sender<Command>,
    /// Recent flows.
    pub history: Arc<History>,
    /// This node's name, for records that are about the stream itself.
    pub node: Arc<str>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Control")
            .field("history", &self.history)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// Answers on every connection until `shutdown` completes; open streams do not delay that.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve<L>(self, listener: L, shutdown: impl Future<Output = ()>) -> io::Result<()>
    where
        L: Listener,
        L::Addr: std::fmt::Debug,
    {
        let router = api::router(self);
        tokio::select! {
            result = async { axum::serve(listener, router).await } => result,
            () = shutdown => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
