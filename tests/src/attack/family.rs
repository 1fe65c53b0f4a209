//! What a family of attacks is: a name and members, each of which writes its frames on a scene.

use super::ground::Lane;
use super::scene::Scene;

/// Where a member makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terrain {
    /// IPv4 and IPv6.
    pub versions: &'static [bool],
    /// From the workload, and to it.
    pub lanes: &'static [Lane],
}

/// Either IP version, either lane.
pub const ANY: Terrain = Terrain {
    versions: &[false, true],
    lanes: &[Lane::Out, Lane::In],
};
/// From the workload.
pub const OUT: Terrain = Terrain {
    lanes: &[Lane::Out],
    ..ANY
};
/// To the workload.
pub const IN: Terrain = Terrain {
    lanes: &[Lane::In],
    ..ANY
};
/// IPv4, either lane.
pub const ANY4: Terrain = Terrain {
    versions: &[false],
    ..ANY
};
/// IPv6, either lane.
pub const ANY6: Terrain = Terrain {
    versions: &[true],
    ..ANY
};
/// IPv4 from the workload.
pub const OUT4: Terrain = Terrain {
    versions: &[false],
    ..OUT
};
/// IPv6 from the workload.
pub const OUT6: Terrain = Terrain {
    versions: &[true],
    ..OUT
};
/// IPv4 to the workload.
pub const IN4: Terrain = Terrain {
    versions: &[false],
    ..IN
};
/// IPv6 to the workload.
pub const IN6: Terrain = Terrain {
    versions: &[true],
    ..IN
};

/// One kind of hostile frame.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// What it does, in a few words.
    pub name: &'static str,
    /// Where it makes sense.
    pub terrain: Terrain,
    /// Writes its frames. Details that do not matter are left to the dice.
    pub play: fn(&mut Scene<'_>),
}

impl Member {
    /// One of this name, for this terrain.
    #[must_use]
    pub const fn new(name: &'static str, terrain: Terrain, play: fn(&mut Scene<'_>)) -> Self {
        Self {
            name,
            terrain,
            play,
        }
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
