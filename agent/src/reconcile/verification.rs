//! What to do about fences that are not as they were attached.
//!
//! Pure: what was seen goes in, what to attach again comes out. Invariants: a look says nothing about a
//! fence that was attached after it began; a missing fence is attached again at once; a fence behind
//! another program is moved to the head of its hook at most once in [`MOVE_INTERVAL`], so that two
//! programs that both want to be first do not take turns all the time; until a look has shown that it is
//! first, it is degraded.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::datapath::Standing;

/// The least time between two moves of a fence.
pub const MOVE_INTERVAL: Duration = Duration::from_secs(60);

/// Why a fence that is attached may not do what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Degraded {
    /// Another program may pass or drop packets that this one never sees.
    #[error(
        "{} runs before {hook}, and may pass packets that the fence never sees: find out whose it is, \
         and let it attach after; the fence is moved to the front once a minute at most",
        named(*.program)
    )]
    NotFirst {
        /// Our program.
        hook: &'static str,
        /// The ID of the first program, 0 for a filter without one.
        program: u32,
    },
    /// The kernel does not say how it stands.
    #[error("whether the fence is attached cannot be verified: {0}")]
    Unverified(String),
}

fn named(program: u32) -> String {
    match program {
        0 => "a filter without a BPF program".to_owned(),
        id => format!("another program (ID {id})"),
    }
}

impl Degraded {
    /// The label values of the metric.
    pub const REASONS: [&'static str; 2] = ["not-first", "unverified"];

    /// The label value of the metric.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotFirst { .. } => "not-first",
            Self::Unverified(_) => "unverified",
        }
    }
}

/// A fence to attach again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its program was not attached.
    Absent(&'static str),
    /// It is to be moved to the front.
    Behind(&'static str, u32),
}

/// What is known of each fence.
#[derive(Debug, Default)]
pub(super) struct Verification {
    /// Looks begun so far.
    looks: u64,
    /// How many looks had begun when a fence was attached.
    attached: BTreeMap<u32, u64>,
    degraded: BTreeMap<u32, Degraded>,
    /// Why interfaces that are to have a fence have none.
    failures: BTreeMap<u32, String>,
    moved: BTreeMap<u32, Instant>,
}

impl Verification {
    /// Begins a look; returns its number.
    pub(super) fn begin_look(&mut self) -> u64 {
        self.looks += 1;
        self.looks
    }

    /// Records that a fence was attached.
    pub(super) fn attached(&mut self, ifindex: u32) {
        self.attached.insert(ifindex, self.looks);
        self.failures.remove(&ifindex);
    }

    /// Records that a fence could not be attached.
    pub(super) fn failed(&mut self, ifindex: u32, error: String) {
        self.forget(ifindex);
        self.failures.insert(ifindex, error);
    }

    /// Records that there is to be no fence any more.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.attached.remove(&ifindex);
        self.degraded.remove(&ifindex);
        self.failures.remove(&ifindex);
        self.moved.remove(&ifindex);
    }

    /// Interfaces whose fence could not be attached, with the error.
    pub(super) const fn failures(&self) -> &BTreeMap<u32, String> {
        &self.failures
    }

    /// Fences that may not do what was asked for.
    pub(super) const fn degraded(&self) -> &BTreeMap<u32, Degraded> {
        &self.degraded
    }

    /// Takes over what a look found; returns the fences to attach again.
    pub(super) fn finish_look(
        &mut self,
        look: u64,
        found: BTreeMap<u32, Standing>,
        now: Instant,
    ) -> Vec<(u32, Fault)> {
        let mut faults = Vec::new();
        for (ifindex, standing) in found {
            if self
                .attached
                .get(&ifindex)
                .is_none_or(|since| *since >= look)
            {
                continue;
            }
            let (degraded, fault) = match standing {
                // Of one that is gone, a notice tells.
                Standing::First | Standing::Gone => (None, None),
                Standing::Absent { hook } => (None, Some(Fault::Absent(hook))),
                Standing::Behind { hook, program } => {
                    let fault = self.may_move(ifindex, now);
                    let fault = fault.then_some(Fault::Behind(hook, program));
                    (Some(Degraded::NotFirst { hook, program }), fault)
                }
                Standing::Unknown { error } => (Some(Degraded::Unverified(error)), None),
            };
            match degraded {
                Some(degraded) => self.degraded.insert(ifindex, degraded),
                None => self.degraded.remove(&ifindex),
            };
            faults.extend(fault.map(|fault| (ifindex, fault)));
        }
        faults
    }

    /// Whether a fence may be moved now; if so, it is not for a while.
    fn may_move(&mut self, ifindex: u32, now: Instant) -> bool {
        let last = self.moved.get(&ifindex);
        let may = last.is_none_or(|last| now.saturating_duration_since(*last) >= MOVE_INTERVAL);
        if may {
            self.moved.insert(ifindex, now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEHIND: Standing = Standing::Behind {
        hook: "from_workload",
        program: 8,
    };
    const ABSENT: Standing = Standing::Absent {
        hook: "from_workload",
    };

    struct World(Verification, Instant);

    impl World {
        fn new() -> Self {
            let mut verification = Verification::default();
            verification.attached(7);
            Self(verification, Instant::now())
        }

        /// What a look that finds this leads to, after some seconds.
        fn look(&mut self, after: u64, found: Standing) -> Vec<(u32, Fault)> {
            let look = self.0.begin_look();
            let now = self.1 + Duration::from_secs(after);
            self.0.finish_look(look, [(7, found)].into(), now)
        }
    }

    #[test]
    fn a_missing_fence_is_attached_again_at_once_and_each_time() {
        let mut world = World::new();
        for second in 0..3 {
            let faults = world.look(second, ABSENT);
            assert_eq!(faults, [(7, Fault::Absent("from_workload"))]);
            world.0.attached(7);
        }
        assert!(world.look(3, Standing::First).is_empty(), "the control");
    }

    #[test]
    fn a_fence_behind_another_program_is_moved_once_a_minute_and_degraded_until_it_is_first() {
        let mut world = World::new();
        let mut moves = Vec::new();
        for second in 0..130 {
            if !world.look(second, BEHIND).is_empty() {
                moves.push(second);
                world.0.attached(7);
            }
            assert_eq!(world.0.degraded().len(), 1, "{second}");
        }
        assert_eq!(moves, [0, 60, 120]);
        assert!(world.look(131, Standing::First).is_empty());
        assert!(world.0.degraded().is_empty());
        assert!(world.look(140, BEHIND).is_empty(), "it was moved at 120");
    }

    #[test]
    fn a_look_says_nothing_about_what_was_attached_after_it_began() {
        let mut world = World::new();
        let look = world.0.begin_look();
        world.0.attached(7);
        let found = [(7, ABSENT), (9, ABSENT)].into();
        assert!(world.0.finish_look(look, found, world.1).is_empty());
        world.0.forget(7);
        assert!(world.look(1, ABSENT).is_empty(), "it has none any more");
    }

    #[test]
    fn what_cannot_be_verified_is_degraded_and_left_alone() {
        let mut world = World::new();
        let unknown = Standing::Unknown {
            error: "EPERM".to_owned(),
        };
        assert!(world.look(0, unknown).is_empty());
        let reasons: Vec<_> = world.0.degraded().values().map(Degraded::reason).collect();
        assert_eq!(reasons, ["unverified"]);
        assert!(world.look(1, Standing::Gone).is_empty());
        assert!(world.0.degraded().is_empty());
    }

    #[test]
    fn a_failure_ends_when_the_fence_is_attached() {
        let mut world = World::new();
        world.look(0, BEHIND);
        world.0.failed(7, "refused".to_owned());
        assert_eq!(world.0.failures().len(), 1);
        assert!(world.0.degraded().is_empty(), "it has none");
        world.0.attached(7);
        assert!(world.0.failures().is_empty());
    }
}
