//! The control API's interface to the application, and the server loop.
//!
//! Invariants: reads go through [`Views`], which must not block for long; changes go through
//! [`Command`]s, each with exactly one reply, otherwise the request fails. Paths and bodies are in
//! `api`.

use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::sync::{mpsc, oneshot};

use super::api;
use super::http::{self, Limits};
use super::view::{EndpointView, IdentityView, ModeView, PolicyView, RuleView, Status};
use crate::model::{ModeName, NamespaceName};
use crate::observe::History;
use crate::policy::{Explanation, Query, QueryError};

/// From the start of a connection to the end of its response, unless it is a stream of flows.
const DEADLINE: Duration = Duration::from_secs(30);

/// The application's current state.
pub trait Views: Send + Sync {
    /// The agent as a whole.
    fn status(&self) -> Status;
    /// The endpoints of this node.
    fn endpoints(&self) -> Vec<EndpointView>;
    /// Every identity.
    fn identities(&self) -> Vec<IdentityView>;
    /// Every policy in force.
    fn policies(&self) -> Vec<PolicyView>;
    /// Every rule in force, with its hits.
    fn rules(&self) -> Vec<RuleView>;
    /// The mode of every namespace.
    fn modes(&self) -> Vec<ModeView>;
    /// Explains why a flow is allowed or denied by the policies in force; `all` lists every rule.
    ///
    /// # Errors
    /// When the query names something that does not exist.
    fn explain(&self, query: &Query, all: bool) -> Result<Explanation, QueryError>;
}

/// The result of a command: done, or why not.
pub type Outcome = Result<(), String>;

/// A requested change.
#[derive(Debug)]
pub enum Command {
    /// Changes the mode of a namespace permanently.
    SetMode {
        /// The namespace.
        namespace: NamespaceName,
        /// The wanted mode; `None` ends what was set on this node.
        mode: Option<ModeName>,
        /// Gets the result once the mode is in force.
        reply: oneshot::Sender<Outcome>,
    },
    /// Rereads every source.
    Reload {
        /// Gets the result once the sources are in force.
        reply: oneshot::Sender<Outcome>,
    },
}

/// The parts of the application that the server uses.
#[derive(Clone)]
pub struct Control {
    /// The current state.
    pub views: Arc<dyn Views>,
    /// Sends changes to the application.
    pub commands: mpsc::Sender<Command>,
    /// Recent flow records.
    pub history: Arc<History>,
    /// This node's name, for lines that report lost records.
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
    /// Serves connections until `shutdown` completes; open streams do not delay that.
    pub async fn serve<L: Listener>(
        self,
        listener: L,
        descriptors: u64,
        shutdown: impl Future<Output = ()>,
    ) {
        let limits = Limits::of_descriptors(descriptors, DEADLINE);
        http::serve(listener, api::router(self), limits, shutdown).await;
    }
}

#[cfg(test)]
mod tests;
