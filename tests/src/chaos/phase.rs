//! What an agent does when it is killed, as far as that shows from outside.

use std::fmt;

/// A part of an agent's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It reads its files, locks its directories and opens its pins; no program is being verified yet.
    Read,
    /// The verifier looks at its programs, or they are being pinned.
    Load,
    /// It has its programs and reads back the maps; it has not written a number yet.
    Adopt,
    /// It writes the first revision.
    Publish,
    /// The first revision is in the maps, and fences are being attached or updated.
    Attach,
    /// Nothing has changed since it became ready.
    Idle,
    /// Policies have changed, and the revision is not in force yet.
    Policy,
    /// A mode was asked for, and has not been confirmed yet.
    Mode,
    /// Interfaces come and go.
    Interfaces,
    /// It was told to end.
    Stop,
}

impl Phase {
    /// All phases, in the order of an agent's life.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Load,
        Self::Adopt,
        Self::Publish,
        Self::Attach,
        Self::Idle,
        Self::Policy,
        Self::Mode,
        Self::Interfaces,
        Self::Stop,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Load => "load",
            Self::Adopt => "adopt",
            Self::Publish => "publish",
            Self::Attach => "attach",
            Self::Idle => "idle",
            Self::Policy => "policy",
            Self::Mode => "mode",
            Self::Interfaces => "interfaces",
            Self::Stop => "stop",
        }
    }

    /// Whether it is a part of the start.
    #[must_use]
    pub const fn is_start(self) -> bool {
        matches!(
            self,
            Self::Read | Self::Load | Self::Adopt | Self::Publish | Self::Attach
        )
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
