//! Sequences: some dozens of frames of one workload that are run one after another, each compared
//! with its expected outcome.
//!
//! A sequence begins with empty conntrack and fragment maps, so it can be repeated, also in part.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use ringfence::{
    model::{Inventory, NodeEntry, WallTime},
    oracle::{NOW, Oracle, Pair, World},
    plan::Action as Write,
    policy::{Compiled, EndpointInfo},
};
use ringfence_common::{
    SECOND,
    drop_reason::DropReason,
    endpoint::Endpoint,
    ids::{IdentityId, NamespaceSlot, TableId},
    mode::{Action, Direction, Mode},
    net::{Address as _, Ip4, Ip6},
};

use super::change::Change;
use super::expectation::{Context, Decision, Expectation, Expected, InForce};
use super::flows::Stamp;
use super::traffic::TestFrame;
use crate::fence::{Fence, IFINDEX, Outcome};

/// No rule of a random world begins or ends later than this after [`NOW`], and none between two
/// seconds and this.
const LAST_EDGE: u64 = 7_000_000_000;
/// The longest run: less than the shortest flow timeout.
const LONGEST: u64 = 8_000_000_000;

/// The longest run of a sequence, in which nothing expires that the model still has.
const SLOW: Duration = Duration::from_secs(4);

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
    /// What changes before each of them.
    pub(super) changes: Vec<Option<Change>>,
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
    /// The inventory as if this node were another one: what policy sees of a client behind an address of
    /// this node.
    as_remote: Arc<Inventory>,
    /// Boot-clock time when the next rule may begin or end, or a flow may expire.
    until: u64,
    pairs: RefCell<HashMap<(u32, IpAddr, Direction), Pair<'a>>>,
    /// When the last sequence began.
    began: RefCell<Instant>,
}

/// What is in force at a moment of a sequence.
struct Present<'a, 'b> {
    world: &'b LoadedWorld<'a>,
    /// The endpoint of the sequence.
    ifindex: u32,
    missing: Missing,
    now: RefCell<Now>,
}

/// What the changes of a sequence have made of the world.
#[derive(Clone, Default)]
struct Now {
    /// The endpoint whose table is in force; `None` if the table has no rows.
    subject: Option<u32>,
    /// Addresses with the identity of another.
    alike: HashMap<IpAddr, IpAddr>,
    /// How often the epoch, and the owner, of an address's slot changed.
    epochs: HashMap<u32, u64>,
    owners: HashMap<u32, u64>,
}

/// The slot that an address shares with others in the maps of epochs and owners.
fn slot(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => Ip4::from_wire(address.octets()).epoch_slot(),
        IpAddr::V6(address) => Ip6::from_wire(address.octets()).epoch_slot(),
    }
}

impl InForce for Present<'_, '_> {
    fn decide(&self, peer: IpAddr, direction: Direction, flow: (u8, u16)) -> Decision {
        let now = self.now.borrow();
        let peer = now.alike.get(&peer).copied().unwrap_or(peer);
        if self.missing == Missing::World && !self.world.is_known(peer) {
            return Decision::Deny(DropReason::UnknownPeer);
        }
        match now.subject {
            None => Decision::Deny(DropReason::NoPolicyRow),
            Some(subject) => self.world.decide(subject, peer, direction, flow),
        }
    }

    fn stamp(&self, peer: IpAddr) -> Stamp {
        let now = self.now.borrow();
        let table = now.subject.map_or(NO_TABLE, |it| self.world.table(it));
        (table, now.epochs.get(&slot(peer)).copied().unwrap_or(0))
    }

    fn owner(&self, peer: IpAddr) -> u64 {
        let now = self.now.borrow();
        now.owners.get(&slot(peer)).copied().unwrap_or(0)
    }

    fn is_node(&self, address: IpAddr) -> bool {
        let now = self.now.borrow();
        self.world
            .is_node(now.alike.get(&address).copied().unwrap_or(address))
    }

    fn is_on_node(&self, address: IpAddr) -> bool {
        let now = self.now.borrow();
        let like = now.alike.get(&address).copied().unwrap_or(address);
        // The endpoint of the sequence takes the place of the one with its interface.
        let has = |info: &EndpointInfo| info.workload.addresses.contains(&address);
        let is_in_its_place =
            |info: &EndpointInfo| info.attachments.iter().any(|it| it.ifindex == IFINDEX);
        let mut others = self.world.compiled.endpoints.values();
        self.world.is_node(like)
            || has(subject_of(self.world.compiled, self.ifindex))
            || others.any(|info| !is_in_its_place(info) && has(info))
    }
}

/// The inventory in which this node is another one.
pub(crate) fn as_remote(inventory: &Inventory) -> Inventory {
    let mut all = inventory.clone();
    for (name, node) in inventory.nodes.iter().filter(|(_, node)| node.local) {
        let mut other = NodeEntry::clone(node);
        other.local = false;
        all.nodes.insert(name.clone(), Arc::new(other));
    }
    all
}

/// A table without rows.
const NO_TABLE: TableId = TableId(u32::MAX - 1);

/// Called for every frame with the expected outcome.
pub(super) type Observer<'a> = &'a mut dyn FnMut(Mode, Expected, Outcome);

/// The endpoint whose interface has this index.
pub(super) fn subject_of(compiled: &Compiled, ifindex: u32) -> &EndpointInfo {
    let is_on = |info: &&EndpointInfo| info.attachments.iter().any(|it| it.ifindex == ifindex);
    compiled.endpoints.values().find(is_on).unwrap()
}

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
            as_remote: Arc::new(as_remote(&world.inventory)),
            until,
            pairs: RefCell::new(HashMap::new()),
            began: RefCell::new(Instant::now()),
        }
    }

    /// Whether no rule or flow has expired yet: on a slow machine one may have.
    pub(super) fn is_current(&self, fence: &mut Fence) -> bool {
        fence.now() < self.until && self.began.borrow().elapsed() < SLOW
    }

    /// Runs a sequence up to the first mismatch.
    pub(super) fn run(
        &self,
        fence: &mut Fence,
        sequence: &Sequence,
        observer: Observer,
    ) -> Result<(), Mismatch> {
        let endpoint = self.set_up(fence, sequence);
        *self.began.borrow_mut() = Instant::now();
        let present = Present {
            world: self,
            ifindex: sequence.ifindex,
            missing: sequence.missing,
            now: RefCell::new(Now {
                subject: (sequence.missing != Missing::Table).then_some(sequence.ifindex),
                ..Now::default()
            }),
        };
        let outcome = self.run_frames(fence, sequence, (&present, endpoint), observer);
        for address in present.now.borrow().alike.keys() {
            fence.write(Write::PutAddress(*address, self.identity(*address)));
        }
        if sequence.missing == Missing::World {
            for (net, identity) in self.everywhere() {
                fence.write(Write::PutPrefix(net, identity));
            }
        }
        outcome
    }

    /// Publishes the endpoint of a sequence.
    fn set_up(&self, fence: &mut Fence, sequence: &Sequence) -> Endpoint {
        let mut endpoint = self.compiled.state.endpoints[&sequence.ifindex];
        endpoint.mode_override = sequence.mode as u8;
        endpoint.pickup_until = if sequence.pickup { u32::MAX } else { 0 };
        match sequence.missing {
            Missing::Nothing => {}
            Missing::Endpoint => {
                fence.write(Write::SetMode(NamespaceSlot::NODE_DEFAULT, sequence.mode));
            }
            Missing::Table => endpoint.table = NO_TABLE,
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
        endpoint
    }

    fn table(&self, subject: u32) -> TableId {
        self.compiled.state.endpoints[&subject].table
    }

    fn identity(&self, address: IpAddr) -> IdentityId {
        *self.compiled.state.addresses.get(&address).unwrap()
    }

    /// The addresses of this node.
    pub(super) fn node_addresses(&self) -> Vec<IpAddr> {
        let nodes = self.world.inventory.nodes.values();
        let local = nodes.filter(|node| node.local);
        local.flat_map(|node| node.addresses.clone()).collect()
    }

    /// Whether this node has the address.
    fn is_node(&self, address: IpAddr) -> bool {
        self.oracle.is_node(address, true)
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
        subject: u32,
        peer: IpAddr,
        direction: Direction,
        (protocol, port): (u8, u16),
    ) -> Decision {
        let compiled: &'a Compiled = self.compiled;
        let workload = &subject_of(compiled, subject).workload;
        let said = if direction == Direction::Ingress && self.is_node(peer) {
            let oracle = Oracle {
                inventory: &self.as_remote,
                ..self.oracle
            };
            oracle.pair(workload, peer, direction).say(protocol, port)
        } else {
            let mut pairs = self.pairs.borrow_mut();
            let pair = pairs
                .entry((subject, peer, direction))
                .or_insert_with(|| self.oracle.pair(workload, peer, direction));
            pair.say(protocol, port)
        };
        match (said.allow, said.reject) {
            (true, _) => Decision::Allow,
            (false, true) => Decision::Reject,
            (false, false) => Decision::Deny(DropReason::Policy),
        }
    }

    /// Makes a change, in the maps and for the model.
    fn change(
        &self,
        fence: &mut Fence,
        change: Change,
        endpoint: &mut Endpoint,
        (present, expectation): (&Present, &mut Expectation),
    ) {
        let mut now = present.now.borrow_mut();
        match change {
            Change::Table(subject) => {
                endpoint.table = self.table(subject);
                now.subject = Some(subject);
            }
            Change::Mode(mode) => {
                endpoint.mode_override = mode as u8;
                fence.write(Write::SetMode(NamespaceSlot::NODE_DEFAULT, mode));
                expectation.context.mode = mode;
            }
            Change::Epoch(address) => {
                fence.write(Write::BumpEpoch(address));
                *now.epochs.entry(slot(address)).or_default() += 1;
            }
            Change::Relabel(address, like, is_other_owner) => {
                fence.write(Write::PutAddress(address, self.identity(like)));
                if is_other_owner {
                    fence.change_owner(address);
                    *now.owners.entry(slot(address)).or_default() += 1;
                } else {
                    fence.write(Write::BumpEpoch(address));
                }
                *now.epochs.entry(slot(address)).or_default() += 1;
                now.alike.insert(address, like);
            }
            Change::Time(seconds) => {
                let passed = expectation.pass_time(seconds) * SECOND;
                fence.age_flows(passed);
                fence.loaded().age_fragments(passed);
            }
        }
        if present.missing != Missing::Endpoint {
            fence.write(Write::PutEndpoint(IFINDEX, *endpoint));
        }
    }

    fn run_frames(
        &self,
        fence: &mut Fence,
        sequence: &Sequence,
        (present, mut endpoint): (&Present, Endpoint),
        observer: Observer,
    ) -> Result<(), Mismatch> {
        let own = &subject_of(self.compiled, sequence.ifindex)
            .workload
            .addresses;
        let mut expectation = Expectation::new(Context {
            own: (sequence.missing != Missing::Endpoint).then_some(own.as_slice()),
            mode: sequence.mode,
            pickup: sequence.pickup,
            now: 0,
            policy: present,
        });
        let mut counted = fence.counters().drops;
        for (index, test_frame) in sequence.frames.iter().enumerate() {
            if let Some(change) = sequence.changes[index] {
                self.change(fence, change, &mut endpoint, (present, &mut expectation));
            }
            let mode = expectation.context.mode;
            let expected = expectation.of(test_frame.way, &test_frame.frame, test_frame.gso);
            let gso = if test_frame.gso { 1400 } else { 0 };
            // The model has no clock, and so no solicitation that has just arrived.
            fence.loaded().forget_solicitors();
            let outcome = fence.run_with(test_frame.way, &test_frame.frame, gso, 1);
            let agrees = has_expected_outcome(mode, expected, outcome)
                && is_counted(fence, mode, expected, &mut counted);
            if !agrees {
                return Err(mismatch(fence, index, expected, outcome, &counted));
            }
            observer(mode, expected, outcome);
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
