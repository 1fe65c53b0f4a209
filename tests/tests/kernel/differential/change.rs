//! Changes within a sequence: another policy table, another mode, a new epoch of a peer, a peer with
//! another identity or owner, and time that passes.

use std::net::IpAddr;

use ringfence_common::mode::Mode;

use super::rng::Rng;

/// What changes before a frame.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// The endpoint gets the table of this endpoint of the world.
    Table(u32),
    Mode(Mode),
    /// A new epoch, although nothing has changed.
    Epoch(IpAddr),
    /// The first address gets the identity of the second, and perhaps another owner.
    Relabel(IpAddr, IpAddr, bool),
    /// At least so many seconds pass.
    Time(u64),
}

/// Seconds that may pass: less and more than every timeout.
const PAUSES: [u64; 12] = [2, 5, 15, 25, 40, 70, 110, 130, 170, 200, 310, 9000];

/// What changes may be about.
pub(super) struct Changes {
    /// Endpoints of the world.
    pub(super) endpoints: Vec<u32>,
    /// Addresses of peers, of one family and then of the other; each has an identity of its own.
    pub(super) labelled: Vec<IpAddr>,
}

impl Changes {
    /// A random change.
    pub(super) fn pick(&self, rng: &mut Rng) -> Change {
        match rng.below(100) {
            0..=21 => Change::Table(rng.pick(&self.endpoints)),
            22..=32 => Change::Mode(match rng.below(12) {
                0 => Mode::Lockdown,
                1..=4 => Mode::Observe,
                _ => Mode::Enforce,
            }),
            33..=39 if !self.labelled.is_empty() => Change::Epoch(rng.pick(&self.labelled)),
            40..=49 if !self.labelled.is_empty() => self.relabel(rng),
            _ => Change::Time(rng.pick(&PAUSES)),
        }
    }

    fn relabel(&self, rng: &mut Rng) -> Change {
        let address = rng.pick(&self.labelled);
        let same = self.labelled.iter().copied();
        let same: Vec<IpAddr> = same
            .filter(|it| it.is_ipv4() == address.is_ipv4())
            .collect();
        Change::Relabel(address, rng.pick(&same), rng.chance(40))
    }
}
