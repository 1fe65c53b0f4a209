//! The mode of a namespace, as written in configuration and on the command line.
//!
//! Only the name: what a mode does to a verdict is decided in `common`.

use std::fmt;
use std::str::FromStr;

use super::quote::quote;

/// What happens to a verdict in a namespace.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ModeName {
    /// Decide and report, never drop.
    #[default]
    Observe,
    /// Drop what policy denies.
    Enforce,
    /// Deny everything.
    Lockdown,
}

/// A mode that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown mode {}: expected observe, enforce or lockdown", quote(.0))]
pub struct ModeNameError(String);

impl fmt::Display for ModeName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
            Self::Lockdown => "lockdown",
        })
    }
}

impl FromStr for ModeName {
    type Err = ModeNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "observe" => Ok(Self::Observe),
            "enforce" => Ok(Self::Enforce),
            "lockdown" => Ok(Self::Lockdown),
            _ => Err(ModeNameError(text.to_owned())),
        }
    }
}
