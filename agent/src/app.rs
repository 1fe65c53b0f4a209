//! The agent's life: not wired up yet.

use std::path::Path;

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AppError(String);

impl AppError {
    /// How the process should exit.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        1
    }
}

/// Runs the agent.
///
/// # Errors
/// Always, for now.
pub fn run(config: &Path) -> Result<(), AppError> {
    Err(AppError(format!("cannot run {} yet", config.display())))
}

/// Removes everything the agent left in the kernel; returns lines to print.
///
/// # Errors
/// Always, for now.
pub fn cleanup(config: &Path) -> Result<Vec<String>, AppError> {
    Err(AppError(format!(
        "cannot clean up {} yet",
        config.display()
    )))
}
