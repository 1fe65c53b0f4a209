//! What a family of attacks is: a name and members, each of which writes its frames on a builder.

use super::builder::CaseBuilder;
use super::fixture::Direction;

/// Where a member makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// IPv4 and IPv6.
    pub versions: &'static [bool],
    /// From the workload, and to it.
    pub directions: &'static [Direction],
}

/// Either IP version, either direction.
pub const ANY: Scope = Scope {
    versions: &[false, true],
    directions: &[Direction::Out, Direction::In],
};
/// From the workload.
pub const OUT: Scope = Scope {
    directions: &[Direction::Out],
    ..ANY
};
/// To the workload.
pub const IN: Scope = Scope {
    directions: &[Direction::In],
    ..ANY
};
/// IPv4, either direction.
pub const ANY4: Scope = Scope {
    versions: &[false],
    ..ANY
};
/// IPv6, either direction.
pub const ANY6: Scope = Scope {
    versions: &[true],
    ..ANY
};
/// IPv4 from the workload.
pub const OUT4: Scope = Scope {
    versions: &[false],
    ..OUT
};
/// IPv6 from the workload.
pub const OUT6: Scope = Scope {
    versions: &[true],
    ..OUT
};
/// IPv4 to the workload.
pub const IN4: Scope = Scope {
    versions: &[false],
    ..IN
};
/// IPv6 to the workload.
pub const IN6: Scope = Scope {
    versions: &[true],
    ..IN
};

/// One kind of hostile frame.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// What it does, in a few words.
    pub name: &'static str,
    /// Where it makes sense.
    pub scope: Scope,
    /// Writes its frames. Details that do not matter are left to the rng.
    pub build: fn(&mut CaseBuilder<'_>),
}

impl Member {
    /// One of this name, for this scope.
    #[must_use]
    pub const fn new(name: &'static str, scope: Scope, build: fn(&mut CaseBuilder<'_>)) -> Self {
        Self { name, scope, build }
    }
}

/// Members that attack the same weakness.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// For people and `--family`.
    pub name: &'static str,
    /// All of them.
    pub members: &'static [Member],
}
