//! Sequences: some dozens of frames of one workload that are run one after another, each compared
//! with its expected outcome.
//!
//! A sequence begins with empty conntrack and fragment maps, so it can be repeated, also in part.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use ringfence::{
    model::WallTime,
    oracle::{NOW, Oracle, Pair, World},
    plan::Action as Write,
    policy::Compiled,
};
use ringfence_common::{
    drop_reason::DropReason,
    ids::{IdentityId, NamespaceSlot, TableId},
    mode::{Action, Direction, Mode},
};

use super::expectation::{Context, Decision, Expectation, Expected};
use super::traffic::TestFrame;
use crate::fence::{Fence, IFINDEX, Outcome};

/// No rule of a random world begins or ends later than this after [`NOW`], and none between two
/// seconds and this.
const LAST_EDGE: u64 = 7_000_000_000;
/// The longest run: less than the shortest flow timeout.
const LONGEST: u64 = 8_000_000_000;

/// What is missing from the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Nothing,
    /// The interface has no endpoint.
    Endpoint,
    /// The endpoint's table has no rows.
    Table,
    /// Addresses that no policy, workload or node names have no identity.
    World,
}

#[derive(Clone, Debug)]
pub(super) struct Sequence {
    /// The endpoint in its world; in the maps it is on [`IFINDEX`].
    pub(super) ifindex: u32,
    pub(super) mode: Mode,
    pub(super) pickup: bool,
    pub(super) missing: Missing,
    pub(super) frames: Vec<TestFrame>,
}

/// A frame with another outcome than expected.
#[derive(Debug)]
pub(super) struct Mismatch {
    /// The index of the frame in its sequence.
    pub(super) index: usize,
    pub(super) expected: Expected,
    pub(super) outcome: Outcome,
    /// Counters that changed: packets dropped, and packets that `observe` let pass.
    pub(super) counted: Vec<(DropReason, u64, u64)>,
}

/// A published world.
pub(super) struct LoadedWorld<'a> {
    pub(super) world: &'a World,
    pub(super) compiled: &'a Compiled,
    oracle: Oracle<'a>,
    /// Boot-clock time when the next rule may begin or end, or a flow may expire.
    until: u64,
    pairs: RefCell<HashMap<(u32, IpAddr, Direction), Pair<'a>>>,
}

/// Called for every frame with the expected outcome.
pub(super) type Observer<'a> = &'a mut dyn FnMut(Mode, Expected, Outcome);

impl<'a> LoadedWorld<'a> {
    /// The world at `age` nanoseconds after [`NOW`]; at [`NOW`] the boot clock read `boot`.
    pub(super) fn new(world: &'a World, compiled: &'a Compiled, (boot, age): (u64, u64)) -> Self {
        let oracle = Oracle {
            inventory: &world.inventory,
            policies: &world.policies,
            now: WallTime(NOW.0 + i64::try_from(age).unwrap()),
        };
        let until = boot
            + if age < LAST_EDGE {
                LAST_EDGE
            } else {
                age + LONGEST
            };
        Self {
            world,
            compiled,
            oracle,
            until,
            pairs: RefCell::new(HashMap::new()),
        }
    }

    /// Whether no rule or flow has expired yet: on a slow machine one may have.
    pub(super) fn is_current(&self, fence: &mut Fence) -> bool {
        fence.now() < self.until
    }

    /// Runs a sequence up to the first mismatch.
    pub(super) fn run(
        &self,
        fence: &mut Fence,
        sequence: &Sequence,
        observer: Observer,
    ) -> Result<(), Mismatch> {
        self.set_up(fence, sequence);
        let outcome = self.run_frames(fence, sequence, observer);
        if sequence.missing == Missing::World {
            for (net, identity) in self.everywhere() {
                fence.write(Write::PutPrefix(net, identity));
            }
        }
        outcome
    }

    fn set_up(&self, fence: &mut Fence, sequence: &Sequence) {
        let mut endpoint = self.compiled.state.endpoints[&sequence.ifindex];
        endpoint.mode_override = sequence.mode as u8;
        endpoint.pickup_until = if sequence.pickup { u32::MAX } else { 0 };
        match sequence.missing {
            Missing::Nothing => {}
            Missing::Endpoint => {
                fence.write(Write::SetMode(NamespaceSlot::NODE_DEFAULT, sequence.mode));
            }
            Missing::Table => endpoint.table = TableId(u32::MAX - 1),
            Missing::World => {
                for (net, _) in self.everywhere() {
                    fence.write(Write::DeletePrefix(net));
                }
            }
        }
        fence.write(Write::PutEndpoint(IFINDEX, endpoint));
        if sequence.missing == Missing::Endpoint {
            fence.write(Write::DeleteEndpoint(IFINDEX));
        }
        fence.clear_flows();
        fence.clear_fragments();
    }

    /// The prefixes that contain every address.
    fn everywhere(&self) -> Vec<(IpNet, IdentityId)> {
        let prefixes = self.compiled.state.prefixes.iter();
        prefixes
            .filter(|(net, _)| net.prefix_len() == 0)
            .map(|(net, identity)| (*net, *identity))
            .collect()
    }

    fn is_known(&self, address: IpAddr) -> bool {
        let state = &self.compiled.state;
        let mut prefixes = state.prefixes.iter();
        state.addresses.get(&address).is_some()
            || prefixes.any(|(net, _)| net.prefix_len() != 0 && net.contains(&address))
    }

    fn decide(
        &self,
        sequence: &Sequence,
        peer: IpAddr,
        direction: Direction,
        (protocol, port): (u8, u16),
    ) -> Decision {
        match sequence.missing {
            Missing::World if !self.is_known(peer) => {
                return Decision::Deny(DropReason::UnknownPeer);
            }
            Missing::Table => return Decision::Deny(DropReason::NoPolicyRow),
            _ => {}
        }
        let compiled: &'a Compiled = self.compiled;
        let subject = &compiled.endpoints[&sequence.ifindex].workload;
        let mut pairs = self.pairs.borrow_mut();
        let pair = pairs
            .entry((sequence.ifindex, peer, direction))
            .or_insert_with(|| self.oracle.pair(subject, peer, direction));
        let said = pair.say(protocol, port);
        match (said.allow, said.reject) {
            (true, _) => Decision::Allow,
            (false, true) => Decision::Reject,
            (false, false) => Decision::Deny(DropReason::Policy),
        }
    }

    fn run_frames(
        &self,
        fence: &mut Fence,
        sequence: &Sequence,
        observer: Observer,
    ) -> Result<(), Mismatch> {
        let own = &self.compiled.endpoints[&sequence.ifindex]
            .workload
            .addresses;
        let mut decide = |peer, direction, protocol, port| {
            self.decide(sequence, peer, direction, (protocol, port))
        };
        let mut expectation = Expectation::new(Context {
            own: (sequence.missing != Missing::Endpoint).then_some(own.as_slice()),
            mode: sequence.mode,
            pickup: sequence.pickup,
            decide: &mut decide,
        });
        let mut counted = fence.counters().drops;
        for (index, test_frame) in sequence.frames.iter().enumerate() {
            let expected = expectation.of(test_frame.way, &test_frame.frame, test_frame.gso);
            let gso = if test_frame.gso { 1400 } else { 0 };
            let outcome = fence.run_with(test_frame.way, &test_frame.frame, gso, 1);
            let agrees = has_expected_outcome(sequence.mode, expected, outcome)
                && is_counted(fence, sequence.mode, expected, &mut counted);
            if !agrees {
                return Err(mismatch(fence, index, expected, outcome, &counted));
            }
            observer(sequence.mode, expected, outcome);
        }
        // No other reason may have been counted.
        let index = sequence.frames.len() - 1;
        if fence.counters().drops == counted {
            Ok(())
        } else {
            let nothing = Expected::Pass("no other count");
            Err(mismatch(fence, index, nothing, Outcome::Passed, &counted))
        }
    }
}

fn mismatch(
    fence: &Fence,
    index: usize,
    expected: Expected,
    outcome: Outcome,
    before: &[(DropReason, u64, u64)],
) -> Mismatch {
    let mut counted = fence.counters().drops;
    for (now, then) in counted.iter_mut().zip(before) {
        (now.1, now.2) = (now.1.wrapping_sub(then.1), now.2.wrapping_sub(then.2));
    }
    counted.retain(|(_, dropped, observed)| (*dropped, *observed) != (0, 0));
    Mismatch {
        index,
        expected,
        outcome,
        counted,
    }
}

/// Whether the outcome is what the mode makes of the expected verdict.
fn has_expected_outcome(mode: Mode, expected: Expected, outcome: Outcome) -> bool {
    match (mode, expected) {
        (Mode::Observe, _) | (Mode::Enforce, Expected::Pass(_)) => outcome == Outcome::Passed,
        // Reject packets are rate-limited, so not every one is sent.
        (Mode::Enforce, Expected::Reject { answerable: true }) => outcome != Outcome::Passed,
        (Mode::Enforce | Mode::Lockdown, _) => outcome == Outcome::Dropped,
    }
}

/// Whether the frame was counted for one of the expected reasons; updates `counted`.
fn is_counted(
    fence: &Fence,
    mode: Mode,
    expected: Expected,
    counted: &mut [(DropReason, u64, u64)],
) -> bool {
    let reasons: &[DropReason] = match expected {
        Expected::Pass(_) => return true,
        Expected::Deny(reasons) => reasons,
        Expected::Reject { .. } => &[DropReason::Policy],
    };
    let observed = mode == Mode::Observe;
    let action = if observed { Action::Pass } else { Action::Drop };
    for (reason, dropped, passed) in counted {
        if !reasons.contains(reason) {
            continue;
        }
        let before = if observed { passed } else { dropped };
        if fence.counter(*reason, action) == *before + 1 {
            *before += 1;
            return true;
        }
    }
    false
}
