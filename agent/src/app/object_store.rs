//! Where the objects of the Kubernetes API are kept for the next start: `<state-dir>/kubernetes-objects.jsonl`.
//!
//! `file_store` reads and writes it, and is needed only where the API's client is.

#[cfg(any(test, feature = "kubernetes"))]
mod file_store;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

#[cfg(feature = "kubernetes")]
pub(super) use file_store::FileStore;

/// The file.
pub(super) fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("kubernetes-objects.jsonl")
}

/// Why objects are not stored, or not all of them.
#[derive(Clone, Default)]
pub(super) struct Unstored(Arc<Mutex<Option<String>>>);

impl Unstored {
    /// A warning for users, if there is one.
    pub(super) fn text(&self) -> Option<String> {
        let text = self.0.lock();
        text.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
