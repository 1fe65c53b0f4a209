//! Episodes: some dozens of frames of one workload, shown to the programs one after another, each
//! compared with what must become of it.
//!
//! An episode begins with nothing remembered, so it can be played again, also in part.

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

use super::expectation::{Expectation, Expected, Judgement, Surroundings};
use super::traffic::Shown;
use crate::fence::{Fate, Fence, IFINDEX};

/// No rule of a random world begins or ends later than this after [`NOW`], and none between two
/// seconds and this.
const LAST_EDGE: u64 = 7_000_000_000;
/// Less than the shortest timeout of a flow.
const LONGEST: u64 = 8_000_000_000;

/// What is missing from the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Nothing,
    /// The interface is nobody's.
    Endpoint,
    /// The endpoint's table has no rows.
    Table,
    /// Addresses that no policy, workload or node names are unknown.
    World,
}

#[derive(Clone, Debug)]
pub(super) struct Episode {
    /// The endpoint in its world; in the maps it is on [`IFINDEX`].
    pub(super) ifindex: u32,
    pub(super) mode: Mode,
    pub(super) pickup: bool,
    pub(super) missing: Missing,
    pub(super) frames: Vec<Shown>,
}

/// A frame of which programs and expectation disagree.
#[derive(Debug)]
pub(super) struct Mismatch {
    /// The place of the frame in its episode.
    pub(super) place: usize,
    pub(super) expected: Expected,
    pub(super) fate: Fate,
    /// Counters that moved: dropped, and let pass by `observe`.
    pub(super) counted: Vec<(DropReason, u64, u64)>,
}

/// A world in force.
pub(super) struct Ground<'a> {
    pub(super) world: &'a World,
    pub(super) compiled: &'a Compiled,
    oracle: Oracle<'a>,
    /// The boot clock when the next rule may begin or end, or a flow be forgotten.
    until: u64,
    pairs: RefCell<HashMap<(u32, IpAddr, Direction), Pair<'a>>>,
}

/// Told of every frame that went as expected.
pub(super) type Told<'a> = &'a mut dyn FnMut(Mode, Expected, Fate);

impl<'a> Ground<'a> {
    /// The world as it is `age` nanoseconds after [`NOW`], when the boot clock read `boot`.
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

    /// Whether nothing has lapsed yet: on a machine that stood still, something may have.
    pub(super) fn holds(&self, fence: &mut Fence) -> bool {
        fence.now() < self.until
    }

    /// Plays an episode up to the first frame that does not go as expected.
    pub(super) fn play(
        &self,
        fence: &mut Fence,
        episode: &Episode,
        told: Told,
    ) -> Result<(), Mismatch> {
        self.set_up(fence, episode);
        let outcome = self.show(fence, episode, told);
        if episode.missing == Missing::World {
            for (net, identity) in self.everywhere() {
                fence.write(Write::PutPrefix(net, identity));
            }
        }
        outcome
    }

    fn set_up(&self, fence: &mut Fence, episode: &Episode) {
        let mut endpoint = self.compiled.state.endpoints[&episode.ifindex];
        endpoint.mode_override = episode.mode as u8;
        endpoint.pickup_until = if episode.pickup { u32::MAX } else { 0 };
        match episode.missing {
            Missing::Nothing => {}
            Missing::Endpoint => {
                fence.write(Write::SetMode(NamespaceSlot::NODE_DEFAULT, episode.mode));
            }
            Missing::Table => endpoint.table = TableId(u32::MAX - 1),
            Missing::World => {
                for (net, _) in self.everywhere() {
                    fence.write(Write::DeletePrefix(net));
                }
            }
        }
        fence.write(Write::PutEndpoint(IFINDEX, endpoint));
        if episode.missing == Missing::Endpoint {
            fence.write(Write::DeleteEndpoint(IFINDEX));
        }
        fence.forget_flows();
        fence.forget_fragments();
    }

    /// The prefixes that hold every address.
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

    fn judge(
        &self,
        episode: &Episode,
        peer: IpAddr,
        direction: Direction,
        (protocol, port): (u8, u16),
    ) -> Judgement {
        match episode.missing {
            Missing::World if !self.is_known(peer) => {
                return Judgement::Deny(DropReason::UnknownPeer);
            }
            Missing::Table => return Judgement::Deny(DropReason::NoPolicyRow),
            _ => {}
        }
        let compiled: &'a Compiled = self.compiled;
        let subject = &compiled.endpoints[&episode.ifindex].workload;
        let mut pairs = self.pairs.borrow_mut();
        let pair = pairs
            .entry((episode.ifindex, peer, direction))
            .or_insert_with(|| self.oracle.pair(subject, peer, direction));
        let said = pair.say(protocol, port);
        match (said.allow, said.reject) {
            (true, _) => Judgement::Allow,
            (false, true) => Judgement::Reject,
            (false, false) => Judgement::Deny(DropReason::Policy),
        }
    }

    fn show(&self, fence: &mut Fence, episode: &Episode, told: Told) -> Result<(), Mismatch> {
        let own = &self.compiled.endpoints[&episode.ifindex].workload.addresses;
        let mut judge = |peer, direction, protocol, port| {
            self.judge(episode, peer, direction, (protocol, port))
        };
        let mut expectation = Expectation::new(Surroundings {
            own: (episode.missing != Missing::Endpoint).then_some(own.as_slice()),
            mode: episode.mode,
            pickup: episode.pickup,
            judge: &mut judge,
        });
        let mut counted = fence.counters().drops;
        for (place, shown) in episode.frames.iter().enumerate() {
            let expected = expectation.of(shown.way, &shown.frame, shown.gso);
            let gso = if shown.gso { 1400 } else { 0 };
            let fate = fence.run_as(shown.way, &shown.frame, gso, 1);
            let agrees = fits(episode.mode, expected, fate)
                && is_counted(fence, episode.mode, expected, &mut counted);
            if !agrees {
                return Err(mismatch(fence, place, expected, fate, &counted));
            }
            told(episode.mode, expected, fate);
        }
        // Nothing else was counted either.
        let place = episode.frames.len() - 1;
        if fence.counters().drops == counted {
            Ok(())
        } else {
            let nothing = Expected::Pass("all, without another count");
            Err(mismatch(fence, place, nothing, Fate::Passed, &counted))
        }
    }
}

fn mismatch(
    fence: &Fence,
    place: usize,
    expected: Expected,
    fate: Fate,
    before: &[(DropReason, u64, u64)],
) -> Mismatch {
    let mut counted = fence.counters().drops;
    for (now, then) in counted.iter_mut().zip(before) {
        (now.1, now.2) = (now.1.wrapping_sub(then.1), now.2.wrapping_sub(then.2));
    }
    counted.retain(|(_, dropped, observed)| (*dropped, *observed) != (0, 0));
    Mismatch {
        place,
        expected,
        fate,
        counted,
    }
}

/// Whether a frame went the way that the mode makes of what was expected.
fn fits(mode: Mode, expected: Expected, fate: Fate) -> bool {
    match (mode, expected) {
        (Mode::Observe, _) | (Mode::Enforce, Expected::Pass(_)) => fate == Fate::Passed,
        // Not everything that may be answered is: there is an allowance.
        (Mode::Enforce, Expected::Reject { answerable: true }) => fate != Fate::Passed,
        (Mode::Enforce | Mode::Lockdown, _) => fate == Fate::Dropped,
    }
}

/// Whether the frame was counted for one of the expected reasons; takes note of the count.
fn is_counted(
    fence: &Fence,
    mode: Mode,
    expected: Expected,
    counted: &mut [(DropReason, u64, u64)],
) -> bool {
    let reasons: &[DropReason] = match expected {
        Expected::Pass(_) => return true,
        Expected::Refuse(reasons) => reasons,
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
