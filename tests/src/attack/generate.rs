//! Generates an endless sequence of cases from the members of a family.
//!
//! The first cases are the members themselves, with each IP version and direction in their scope.
//! Then members are drawn at random, and the last frame of every other case is mutated: bits, bytes
//! and boundary values are changed, the tail is cut or extended, bytes are removed or inserted. The
//! [`Model`] computes the expected result of the mutated frame. The same seed gives the same cases.

use super::builder::CaseBuilder;
use super::case::{Case, Expect, Rejected};
use super::craft;
use super::family::{Family, Member};
use super::fixture::Direction;
use super::model::Model;
use super::rng::Rng;

/// Generates the cases of one family.
#[derive(Debug)]
pub struct Generator {
    family: Family,
    rng: Rng,
    /// Whether cases are mutated.
    mutates: bool,
    /// Unmutated members still to be run.
    unmutated: Vec<(Member, bool, Direction)>,
}

impl Generator {
    /// A generator for a family; each family has its own random sequence, so that one can be
    /// repeated alone.
    #[must_use]
    pub fn new(family: Family, seed: u64) -> Self {
        let salt = family.name.bytes().fold(seed, |salt, byte| {
            salt.rotate_left(9) ^ u64::from(byte).wrapping_mul(0x0100_0000_01b3)
        });
        Self {
            family,
            rng: Rng::new(salt),
            mutates: true,
            unmutated: all_variants(&family),
        }
    }

    /// The same without mutated cases.
    #[must_use]
    pub const fn unchanged(mut self) -> Self {
        self.mutates = false;
        self
    }

    /// Whether some members have not been run unmutated.
    #[must_use]
    pub fn has_members_left(&self) -> bool {
        !self.unmutated.is_empty()
    }

    /// The next case.
    pub fn next_case(&mut self) -> Case {
        if let Some((member, v6, direction)) = self.unmutated.pop() {
            return self.build(&member, v6, direction, false);
        }
        let all = all_variants(&self.family);
        let index = self.rng.below(all.len());
        let mutate = self.mutates && self.rng.one_in(2);
        match all.get(index) {
            Some((member, v6, direction)) => self.build(member, *v6, *direction, mutate),
            None => Case {
                member: "nothing",
                mutated: false,
                frames: Vec::new(),
            },
        }
    }

    fn build(&mut self, member: &Member, v6: bool, direction: Direction, mutate: bool) -> Case {
        let mut builder = CaseBuilder::new(&mut self.rng, v6, direction);
        (member.build)(&mut builder);
        let mut case = Case {
            member: member.name,
            mutated: mutate,
            frames: builder.into_frames(),
        };
        if mutate && let Some(last) = case.frames.last_mut() {
            mutate_frame(&mut self.rng, &mut last.bytes);
        }
        if mutate {
            set_expectation(&mut case);
        }
        case
    }
}

/// Every member with every IP version and direction in its scope.
pub(super) fn all_variants(family: &Family) -> Vec<(Member, bool, Direction)> {
    let mut all = Vec::new();
    for member in family.members {
        for v6 in member.scope.versions {
            all.extend(
                member
                    .scope
                    .directions
                    .iter()
                    .map(|direction| (*member, *v6, *direction)),
            );
        }
    }
    all
}

/// Sets the expected result of the last frame to the model's verdict.
fn set_expectation(case: &mut Case) {
    let mut model = Model::default();
    let mut verdict = false;
    for sent in &case.frames {
        verdict = model.passes(sent.direction, &sent.bytes, sent.is_segmented());
    }
    if let Some(last) = case.frames.last_mut() {
        last.expect = if verdict {
            Expect::Permitted
        } else {
            Expect::Denied(None)
        };
        last.rejected = Rejected::Unknown;
    }
}

/// Boundary values of 16-bit fields.
const BOUNDARY_VALUES: [u16; 14] = [
    0, 1, 7, 8, 20, 40, 0x0800, 0x86dd, 0x8100, 0x2000, 0x1fff, 0x7fff, 0x8000, 0xffff,
];

/// Changes anything but the hardware addresses, one to four times.
fn mutate_frame(rng: &mut Rng, frame: &mut Vec<u8>) {
    for _ in 0..=rng.below(4) {
        // Mostly in the headers.
        let reach = if rng.one_in(4) {
            frame.len()
        } else {
            frame.len().min(80)
        };
        let at = 12 + rng.below(reach.saturating_sub(12));
        match rng.below(8) {
            0 | 1 => {
                let bit = 1 << rng.below(8);
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= bit;
                }
            }
            2 => craft::write(frame, at, &[rng.byte()]),
            3 => {
                let value = rng.choose(&BOUNDARY_VALUES, 0);
                craft::write(frame, at & !1, &value.to_be_bytes());
            }
            4 => frame.truncate(14 + rng.below(frame.len().saturating_sub(14)).max(4)),
            5 => {
                let count = 1 + rng.below(40);
                let more = rng.bytes(count);
                frame.extend(more);
            }
            6 => {
                let end = (at + 1 + rng.below(8)).min(frame.len());
                frame.drain(at.min(end)..end);
            }
            _ => {
                let count = 1 + rng.below(8);
                let more = rng.bytes(count);
                let at = at.min(frame.len());
                frame.splice(at..at, more);
            }
        }
        // A VLAN tag needs its four bytes, or the kernel drops the frame before the fence.
        if frame.len() < 18 {
            frame.resize(18, 0);
        }
    }
}

#[cfg(test)]
mod tests;
