//! The mode of a namespace, as written in configuration and on the command line.
//!
//! This is only the name; `common` defines what a mode makes of a verdict.

use std::fmt;
use std::str::FromStr;

use super::quote::quote;

/// The mode of a namespace, which turns a verdict into an action.
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
    /// Evaluate policy and report, but never drop.
    #[default]
    Observe,
    /// Drop what policy denies.
    Enforce,
    /// Deny everything.
    Lockdown,
}

/// An unknown mode.
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
