//! Why frames that should have arrived did not.
//!
//! Invariant: the kernel is the cause only of as many losses as it counted drops. Every case is on
//! its own, so each case with a loss needs a drop of its own, in the direction of its first missing
//! frame; frames behind that one may be denied because of it (a segment whose SYN was lost).

use std::collections::BTreeSet;
use std::fmt;

use super::{FENCES, FrameResult};
use crate::attack::fixture::Direction;
use crate::attack::network::Fence;
use crate::attack::network::counters::{Counters, Denials};
use crate::kernel_drops::KernelDrops;

/// The cases that are examined one by one after a run.
const EXAMINED: usize = 20;

/// One network lost a frame.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The fence of the network.
    pub fence: Fence,
    /// The cause.
    pub cause: Cause,
}

/// Why a frame was lost.
#[derive(Clone, Debug)]
pub enum Cause {
    /// The kernel counted enough drops in the direction of the loss; these.
    Kernel(KernelDrops),
    /// Fewer drops than losses were counted: what the kernel counted, and the fence over the whole
    /// batch.
    Unexplained(KernelDrops, Denials),
    /// As before, and the fence dropped the frame again when its case was sent alone, and counted
    /// this.
    Again(Denials),
    /// As unexplained, but the frame arrived when its case was sent alone.
    Once(KernelDrops, Denials),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lost ({:?}): ", self.fence)?;
        let reasons = |f: &mut fmt::Formatter<'_>, denials: &Denials| {
            if denials.is_empty() {
                f.write_str(" nothing")?;
            }
            denials
                .iter()
                .try_for_each(|(reason, count)| write!(f, " {reason} +{count}"))
        };
        match &self.cause {
            Cause::Kernel(drops) => write!(f, "dropped by the kernel: {drops}"),
            Cause::Unexplained(drops, denials) => {
                write!(f, "unexplained; kernel: {drops}; the fence counted in all:")?;
                reasons(f, denials)
            }
            Cause::Again(denials) => {
                f.write_str("lost again alone; the fence counted:")?;
                reasons(f, denials)
            }
            Cause::Once(drops, denials) => {
                write!(
                    f,
                    "arrived when sent again alone; kernel: {drops}; the fence counted in all:"
                )?;
                reasons(f, denials)
            }
        }
    }
}

/// Totals of what was lost to the kernel's queues and sent again.
#[derive(Clone, Debug, Default)]
pub struct SentAgain {
    /// Frames that the kernel's queues dropped in all networks, by its counters.
    pub drops: u64,
    /// Frames that were missing and therefore sent again with all frames of the run.
    pub frames: u64,
}

impl SentAgain {
    pub(super) fn count(&mut self, counted: &[Counters; 3], frames: &[FrameResult], again: bool) {
        let kernel = |counters: &Counters| both_ways(counters).total();
        self.drops += counted.iter().map(kernel).sum::<u64>();
        if again {
            let missing =
                |frame: &&FrameResult| FENCES.iter().any(|fence| is_missing(frame, *fence));
            self.frames += frames.iter().filter(missing).count() as u64;
        }
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::Out, Direction::In];

fn both_ways(counters: &Counters) -> KernelDrops {
    let mut all = counters.kernel(Direction::Out).clone();
    all.add(counters.kernel(Direction::In));
    all
}

/// Whether the kernel dropped frames on the way through the network that enforces.
pub(super) fn dropped_where_enforced(counted: &[Counters; 3]) -> bool {
    let mut enforced = FENCES.iter().zip(counted);
    enforced.any(|(fence, counters)| *fence == Fence::Enforce && both_ways(counters).total() > 0)
}

fn is_missing(frame: &FrameResult, fence: Fence) -> bool {
    match fence {
        Fence::Absent => !frame.arrived.control,
        Fence::Enforce => frame.lost(),
        Fence::Observe => frame.lost_while_observed(),
    }
}

/// The cases whose first missing frame has this direction.
fn cases_with_losses(frames: &[FrameResult], fence: Fence, direction: Direction) -> u64 {
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for frame in frames.iter().filter(|frame| is_missing(frame, fence)) {
        if seen.insert(frame.case) && frame.sent.direction == direction {
            count += 1;
        }
    }
    count
}

/// Names the cause of every loss. True if the kernel's drops explain all of them, so that the
/// frames may be sent again.
pub(super) fn name_causes(frames: &mut [FrameResult], counted: &[Counters; 3]) -> bool {
    let (mut dropped, mut explained) = (false, true);
    for (fence, counters) in FENCES.into_iter().zip(counted) {
        let lost = DIRECTIONS.map(|direction| cases_with_losses(frames, fence, direction));
        let drops = DIRECTIONS.map(|direction| counters.kernel(direction).total());
        if fence == Fence::Absent {
            // Some frames never arrive, fence or not; only drops make it worth another try.
            dropped |= lost
                .iter()
                .zip(drops)
                .any(|(lost, drops)| *lost > 0 && drops > 0);
            continue;
        }
        let enough = lost.iter().zip(drops).all(|(lost, drops)| *lost <= drops);
        explained &= enough;
        let all = both_ways(counters);
        for frame in frames.iter_mut().filter(|frame| is_missing(frame, fence)) {
            dropped |= enough;
            let cause = if enough {
                Cause::Kernel(all.clone())
            } else {
                Cause::Unexplained(all.clone(), counters.denials.clone())
            };
            frame.losses.push(Loss { fence, cause });
        }
    }
    dropped && explained
}

/// Cases with losses that the kernel's counters do not explain.
pub(super) fn unexplained_cases(frames: &[FrameResult], fence: Fence) -> BTreeSet<usize> {
    let unexplained = |frame: &&FrameResult| {
        frame
            .losses
            .iter()
            .any(|loss| loss.fence == fence && matches!(loss.cause, Cause::Unexplained(..)))
    };
    let cases = frames.iter().filter(unexplained).map(|frame| frame.case);
    cases.take(EXAMINED).collect()
}

/// Completes the cause after the frame's case was sent alone.
pub(super) fn explain(frame: &mut FrameResult, fence: Fence, arrived: bool, counted: &Counters) {
    let direction = frame.sent.direction;
    for loss in frame.losses.iter_mut().filter(|loss| loss.fence == fence) {
        let Cause::Unexplained(drops, denials) = &loss.cause else {
            continue;
        };
        if arrived {
            loss.cause = Cause::Once(drops.clone(), denials.clone());
        } else if counted.kernel(direction).total() == 0 {
            loss.cause = Cause::Again(counted.denials.clone());
        }
    }
}

#[cfg(test)]
mod tests;
