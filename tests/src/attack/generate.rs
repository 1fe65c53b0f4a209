//! Cases without end around the members of a family.
//!
//! The first cases are the members themselves, wherever they make sense. Then members are drawn at
//! random, and the last frame of every other one is changed: bits, bytes, words that are at the edge
//! of something, tail cut or grown, bytes taken out or put in. What must become of the changed
//! frame is read from it by the [`Model`]. The seed repeats everything.

use super::builder::CaseBuilder;
use super::case::{Case, Expect};
use super::craft;
use super::family::{Family, Member};
use super::fixture::Direction;
use super::model::Model;
use super::rng::Rng;

/// Draws the cases of one family.
#[derive(Debug)]
pub struct Generator {
    family: Family,
    rng: Rng,
    /// Members as they are, still to be result.
    fixed: Vec<(Member, bool, Direction)>,
}

impl Generator {
    /// For a family; families do not share numbers, so that one can be repeated alone.
    #[must_use]
    pub fn new(family: Family, seed: u64) -> Self {
        let salt = family.name.bytes().fold(seed, |salt, byte| {
            salt.rotate_left(9) ^ u64::from(byte).wrapping_mul(0x0100_0000_01b3)
        });
        Self {
            family,
            rng: Rng::new(salt),
            fixed: all_variants(&family),
        }
    }

    /// Whether members are left that were not result as they are.
    #[must_use]
    pub fn has_members_left(&self) -> bool {
        !self.fixed.is_empty()
    }

    /// The next case.
    pub fn next_case(&mut self) -> Case {
        if let Some((member, v6, direction)) = self.fixed.pop() {
            return self.build(&member, v6, direction, false);
        }
        let all = all_variants(&self.family);
        let index = self.rng.below(all.len());
        let mutate = self.rng.one_in(2);
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

/// Every member with every IP version and direction that it knows.
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

/// Expects of the last frame what the model makes of it, after the others.
fn set_expectation(case: &mut Case) {
    let mut model = Model::default();
    let mut verdict = false;
    for sent in &case.frames {
        let cut = sent.offload.is_some_and(|offload| offload.segment != 0);
        verdict = model.passes(sent.direction, &sent.bytes, cut);
    }
    if let Some(last) = case.frames.last_mut() {
        last.expect = if verdict {
            Expect::Permitted
        } else {
            Expect::Denied(None)
        };
    }
}

/// Words at the edge of something.
const EDGES: [u16; 14] = [
    0, 1, 7, 8, 20, 40, 0x0800, 0x86dd, 0x8100, 0x2000, 0x1fff, 0x7fff, 0x8000, 0xffff,
];

/// Changes anything but the hardware addresses, one to four times.
fn mutate_frame(rng: &mut Rng, frame: &mut Vec<u8>) {
    for _ in 0..=rng.below(4) {
        // Headers are where it hurts.
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
                let edge = rng.choose(&EDGES, 0);
                craft::write(frame, at & !1, &edge.to_be_bytes());
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
        // A tag needs its four bytes, or the kernel itself has no use for the frame.
        if frame.len() < 18 {
            frame.resize(18, 0);
        }
    }
}

#[cfg(test)]
mod tests;
