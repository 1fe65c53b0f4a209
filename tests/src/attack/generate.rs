//! Cases without end around the members of a family.
//!
//! The first cases are the members themselves, wherever they make sense. Then members are drawn at
//! random, and the last frame of every other one is changed: bits, bytes, words that are at the edge
//! of something, tail cut or grown, bytes taken out or put in. What must become of the changed
//! frame is read from it by the [`Model`]. The seed repeats everything.

use super::craft;
use super::dice::Dice;
use super::family::{Family, Member};
use super::ground::Lane;
use super::model::Model;
use super::scene::Scene;
use super::shot::{Case, Expect};

/// Draws the cases of one family.
#[derive(Debug)]
pub struct Generator {
    family: Family,
    dice: Dice,
    /// Members as they are, still to be played.
    fixed: Vec<(Member, bool, Lane)>,
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
            dice: Dice::new(salt),
            fixed: everywhere(&family),
        }
    }

    /// Whether members are left that were not played as they are.
    #[must_use]
    pub fn has_members_left(&self) -> bool {
        !self.fixed.is_empty()
    }

    /// The next case.
    pub fn next_case(&mut self) -> Case {
        if let Some((member, v6, lane)) = self.fixed.pop() {
            return self.play(&member, v6, lane, false);
        }
        let all = everywhere(&self.family);
        let index = self.dice.below(all.len());
        let mutate = self.dice.once_in(2);
        match all.get(index) {
            Some((member, v6, lane)) => self.play(member, *v6, *lane, mutate),
            None => Case {
                member: "nothing",
                mutated: false,
                shots: Vec::new(),
            },
        }
    }

    fn play(&mut self, member: &Member, v6: bool, lane: Lane, mutate: bool) -> Case {
        let mut scene = Scene::new(&mut self.dice, v6, lane);
        (member.play)(&mut scene);
        let mut case = Case {
            member: member.name,
            mutated: mutate,
            shots: scene.into_shots(),
        };
        if mutate && let Some(last) = case.shots.last_mut() {
            change(&mut self.dice, &mut last.frame);
        }
        if mutate {
            read(&mut case);
        }
        case
    }
}

/// Every member with every IP version and lane that it knows.
pub(super) fn everywhere(family: &Family) -> Vec<(Member, bool, Lane)> {
    let mut all = Vec::new();
    for member in family.members {
        for v6 in member.terrain.versions {
            all.extend(
                member
                    .terrain
                    .lanes
                    .iter()
                    .map(|lane| (*member, *v6, *lane)),
            );
        }
    }
    all
}

/// Expects of the last frame what the model makes of it, after the others.
fn read(case: &mut Case) {
    let mut model = Model::default();
    let mut verdict = false;
    for shot in &case.shots {
        let cut = shot.offload.is_some_and(|offload| offload.segment != 0);
        verdict = model.passes(shot.lane, &shot.frame, cut);
    }
    if let Some(last) = case.shots.last_mut() {
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
fn change(dice: &mut Dice, frame: &mut Vec<u8>) {
    for _ in 0..=dice.below(4) {
        // Headers are where it hurts.
        let reach = if dice.once_in(4) {
            frame.len()
        } else {
            frame.len().min(80)
        };
        let at = 12 + dice.below(reach.saturating_sub(12));
        match dice.below(8) {
            0 | 1 => {
                let bit = 1 << dice.below(8);
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= bit;
                }
            }
            2 => craft::write(frame, at, &[dice.byte()]),
            3 => {
                let edge = dice.one(&EDGES, 0);
                craft::write(frame, at & !1, &edge.to_be_bytes());
            }
            4 => frame.truncate(14 + dice.below(frame.len().saturating_sub(14)).max(4)),
            5 => {
                let count = 1 + dice.below(40);
                let more = dice.bytes(count);
                frame.extend(more);
            }
            6 => {
                let end = (at + 1 + dice.below(8)).min(frame.len());
                frame.drain(at.min(end)..end);
            }
            _ => {
                let count = 1 + dice.below(8);
                let more = dice.bytes(count);
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
