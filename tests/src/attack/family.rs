//! Families of attacks: a name and members, each of which builds the frames of its cases.

use super::builder::CaseBuilder;
use super::fixture::Direction;

/// The IP versions and directions to which a member applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// IP versions: false for IPv4, true for IPv6.
    pub versions: &'static [bool],
    /// Directions.
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

/// One kind of hostile frames.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// A short description.
    pub name: &'static str,
    /// The IP versions and directions to which it applies.
    pub scope: Scope,
    /// Builds its frames. Details that do not matter are random.
    pub build: fn(&mut CaseBuilder<'_>),
}

impl Member {
    /// A member with this name and scope.
    #[must_use]
    pub const fn new(name: &'static str, scope: Scope, build: fn(&mut CaseBuilder<'_>)) -> Self {
        Self { name, scope, build }
    }
}

/// Members that attack the same weakness.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The name in reports and for `--family`.
    pub name: &'static str,
    /// All members.
    pub members: &'static [Member],
}
