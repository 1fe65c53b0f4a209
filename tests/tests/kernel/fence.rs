//! A fence without an interface: the loaded programs, their maps, and one endpoint to protect.
//!
//! The endpoint owns [`LOCAL4`] and [`LOCAL6`] on interface 1, which is what a test run reports.
//! Its table denies both directions until a test adds rows. Peers are known by their identity:
//! [`FRIEND`] and [`OTHER`] are two classes, [`NETWORK`] is a prefix, [`STRANGER`] is in no map.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions};
use ringfence::datapath::{Clocks, Counters, Datapath as _, Denials, Sweep, Telemetry};
use ringfence::plan::{Action, Plan, Row};
use ringfence_common::{
    deny_aggregate::DenyKey,
    drop_reason::DropReason,
    endpoint::Endpoint,
    event::FlowEvent,
    ids::{ClassId, IdentityId, NamespaceSlot, RuleSlot, TableId},
    mode::{Action as Outcome, Direction, Mode, Verdict},
    net::{Ip4, Ip6, Port},
    policy::{PolicyKey, PolicyRow},
};

use ringfence_testbed::eventually;

use crate::loaded::Loaded;

/// The workload.
pub(crate) const LOCAL: Both = Both(
    Ipv4Addr::new(10, 0, 0, 2),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
);
/// A peer of class [`FRIENDS`].
pub(crate) const FRIEND: Both = Both(
    Ipv4Addr::new(10, 0, 0, 3),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3),
);
/// A peer of class [`OTHERS`].
pub(crate) const OTHER: Both = Both(
    Ipv4Addr::new(10, 0, 0, 4),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 4),
);
/// An address that no map knows.
pub(crate) const STRANGER: Both = Both(
    Ipv4Addr::new(192, 0, 2, 9),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9),
);

pub(crate) const FRIENDS: ClassId = ClassId(5);
pub(crate) const OTHERS: ClassId = ClassId(6);
pub(crate) const FRIEND_IDENTITY: IdentityId = IdentityId(20);
pub(crate) const OTHER_IDENTITY: IdentityId = IdentityId(21);
pub(crate) const LOCAL_IDENTITY: IdentityId = IdentityId(19);

/// The rule that tests let decide, where one is enough.
pub(crate) const RULE: RuleSlot = RuleSlot(40);

/// The table of the endpoint at the start.
pub(crate) const TABLE: TableId = TableId(7);
const NAMESPACE: NamespaceSlot = NamespaceSlot(3);
/// `lo`: a test run without an interface reports it.
pub(crate) const IFINDEX: u32 = 1;
/// Where packets for the workload come from, if from no socket of this host.
const ELSEWHERE: u32 = 77;

/// An address of each family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Both(Ipv4Addr, Ipv6Addr);

impl Both {
    pub(crate) fn ip(self, v6: bool) -> IpAddr {
        if v6 { self.1.into() } else { self.0.into() }
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Passed,
    Dropped,
    /// Dropped, and the sender is told.
    Rejected,
}
pub(crate) use Fate::{Dropped, Passed, Rejected};

/// The hook at which a frame is shown to the programs, and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The workload sends it.
    Leaving,
    /// Forwarded to the workload.
    Arriving,
    /// Sent to the workload by a socket of the node.
    FromNode,
    /// Sent by the workload and routed back to it.
    Hairpin,
}
pub(crate) use Way::{Arriving, FromNode, Hairpin, Leaving};

pub(crate) struct Fence {
    /// There until the fence is dropped.
    loaded: Option<Loaded>,
    endpoint: Endpoint,
    /// Whether rows changed in place since the last frame.
    edited: bool,
}

impl Drop for Fence {
    fn drop(&mut self) {
        if let Some(loaded) = self.loaded.take() {
            loaded.give_back();
        }
    }
}

impl Fence {
    /// Programs and empty maps.
    pub(crate) fn bare() -> Self {
        Self {
            loaded: Some(Loaded::take()),
            endpoint: Endpoint::default(),
            edited: true,
        }
    }

    /// Programs and maps with the endpoint in `enforce`.
    pub(crate) fn new() -> Self {
        let mut endpoint = Endpoint {
            identity: LOCAL_IDENTITY,
            table: TABLE,
            namespace: NAMESPACE,
            ..Endpoint::default()
        };
        endpoint.ip4[0] = Ip4::from_wire(LOCAL.0.octets());
        endpoint.ip6[0] = Ip6::from_wire(LOCAL.1.octets());
        let mut fence = Self::bare();
        fence.endpoint = endpoint;
        fence.write(Action::PutEndpoint(IFINDEX, endpoint));
        fence.set_mode(Mode::Enforce);
        fence.write(Action::SetMode(NamespaceSlot::NODE_DEFAULT, Mode::Enforce));
        fence.deny_by_default(TABLE);
        for v6 in [false, true] {
            fence.write(Action::PutAddress(LOCAL.ip(v6), LOCAL_IDENTITY));
            fence.write(Action::PutAddress(FRIEND.ip(v6), FRIEND_IDENTITY));
            fence.write(Action::PutAddress(OTHER.ip(v6), OTHER_IDENTITY));
        }
        fence.write(Action::SetClass(FRIEND_IDENTITY, FRIENDS));
        fence.write(Action::SetClass(OTHER_IDENTITY, OTHERS));
        fence
    }

    fn loaded(&mut self) -> &mut Loaded {
        self.loaded.as_mut().unwrap()
    }

    fn telemetry(&self) -> &Telemetry {
        &self.loaded.as_ref().unwrap().telemetry
    }

    pub(crate) fn write(&mut self, action: Action) {
        self.edited |= matches!(action, Action::PutRow(_) | Action::DeleteRow(_));
        self.loaded().datapath.write(&action).unwrap();
    }

    /// Makes all writes of a plan.
    pub(crate) fn carry_out(&mut self, plan: &Plan) {
        for action in plan.publish.iter().chain(&plan.retire) {
            self.write(*action);
        }
    }

    /// Forgets recorded flows, and which denials were reported.
    pub(crate) fn forget_flows(&mut self) {
        self.loaded().forget_flows();
    }

    /// How many proven flows conntrack holds.
    pub(crate) fn assured(&mut self) -> usize {
        self.loaded().assured()
    }

    /// Up to when the endpoint's attempts are booked.
    pub(crate) fn charged_until(&mut self) -> u64 {
        self.loaded().charged_until(IFINDEX)
    }

    /// What the agent does to conntrack now and then.
    pub(crate) fn sweep(&mut self, now: u64, endpoints: &BTreeSet<u32>) -> Sweep {
        self.loaded().sweep(now, endpoints)
    }

    /// Forgets first fragments.
    pub(crate) fn forget_fragments(&mut self) {
        self.loaded().forget_fragments();
    }

    /// Reads the records written so far, and nothing of what they say.
    pub(crate) fn discard_events(&mut self) {
        self.loaded().telemetry.drain(usize::MAX, |_| {});
    }

    /// How many packets were refused for a reason and dropped, or let pass by `observe`.
    pub(crate) fn counter(&self, reason: DropReason, action: Outcome) -> u64 {
        self.loaded.as_ref().unwrap().counter(reason, action)
    }

    /// Makes recorded fragments older.
    pub(crate) fn age_fragments(&mut self, by: u64) {
        self.loaded().age_fragments(by);
    }

    pub(crate) fn set_mode(&mut self, mode: Mode) {
        self.write(Action::SetMode(NAMESPACE, mode));
    }

    /// Rows that deny everything to everyone, in both directions.
    pub(crate) fn deny_by_default(&mut self, table: TableId) {
        for direction in [Direction::Ingress, Direction::Egress] {
            let row = PolicyRow::lasting(Verdict::Deny, RuleSlot::DEFAULT_DENY);
            self.put(key(table, ClassId::ANY, direction), row);
        }
    }

    /// Writes a row.
    pub(crate) fn put(&mut self, (bits, key): (u32, PolicyKey), row: PolicyRow) {
        self.write(Action::PutRow(Row { bits, key, row }));
    }

    /// [`RULE`] allows friends this, in one direction.
    pub(crate) fn allow(&mut self, direction: Direction, protocol: u8, port: u16) {
        let row = PolicyRow::lasting(Verdict::Allow, RULE);
        self.put(exact(TABLE, FRIENDS, direction, protocol, port), row);
    }

    /// [`RULE`] allows friends everything, in both directions.
    pub(crate) fn allow_friends(&mut self) {
        for direction in [Direction::Ingress, Direction::Egress] {
            let row = PolicyRow::lasting(Verdict::Allow, RULE);
            self.put(key(TABLE, FRIENDS, direction), row);
        }
    }

    /// Changes the endpoint.
    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Endpoint)) {
        edit(&mut self.endpoint);
        self.write(Action::PutEndpoint(IFINDEX, self.endpoint));
    }

    /// What time the programs have.
    pub(crate) fn clocks(&mut self) -> Clocks {
        self.loaded().datapath.clocks().unwrap()
    }

    /// By their boot clock.
    pub(crate) fn now(&mut self) -> u64 {
        self.clocks().boot
    }

    pub(crate) fn leaving(&mut self, frame: &[u8]) -> Fate {
        self.run(Leaving, frame)
    }

    pub(crate) fn arriving(&mut self, frame: &[u8]) -> Fate {
        self.run(Arriving, frame)
    }

    pub(crate) fn run(&mut self, way: Way, frame: &[u8]) -> Fate {
        self.run_as(way, frame, 0, 1)
    }

    /// Runs a frame `repeat` times, as one that the kernel will cut into segments of `gso_size`.
    pub(crate) fn run_as(&mut self, way: Way, frame: &[u8], gso_size: u32, repeat: u32) -> Fate {
        // An answer may be longer than what it answers.
        let mut out = vec![0; frame.len() + 64];
        self.show(way, frame, (gso_size, repeat), &mut out).0
    }

    /// The answer to a frame that is rejected, as it leaves by the interface.
    #[track_caller]
    pub(crate) fn answer(&mut self, way: Way, frame: &[u8]) -> Vec<u8> {
        let mut answer = vec![0; frame.len() + 64];
        let (fate, length) = self.show(way, frame, (0, 1), &mut answer);
        assert_eq!(fate, Rejected, "{way:?}: {:?}", self.reasons());
        answer.truncate(length);
        answer
    }

    /// The agent never changes rows that something refers to, so the programs may use an answer until
    /// the tick ends. Who changes them in place waits for that.
    fn await_a_tick(&mut self) {
        let before = self.clocks().ticks;
        eventually(Duration::from_secs(10), "the next tick", || {
            Ok((self.clocks().ticks != before).then_some(()))
        })
        .unwrap();
    }

    /// Runs a frame; returns what became of it, and how much of what came out.
    fn show(
        &mut self,
        way: Way,
        frame: &[u8],
        (gso_size, repeat): (u32, u32),
        out: &mut [u8],
    ) -> (Fate, usize) {
        let (program, ingress) = match way {
            Leaving => ("from_workload", IFINDEX),
            Arriving => ("to_workload", ELSEWHERE),
            FromNode => ("to_workload", 0),
            Hairpin => ("to_workload", IFINDEX),
        };
        if std::mem::take(&mut self.edited) {
            self.await_a_tick();
        }
        let context = sk_buff(ingress, gso_size);
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            data_out: Some(out),
            repeat,
            ..TestRunOptions::new()
        };
        let program = self.loaded().datapath.program(program).unwrap();
        let result = program.test_run(options).unwrap();
        let fate = match result.return_value.cast_signed() {
            -1 => Passed,
            2 => Dropped,
            7 => Rejected,
            other => panic!("the program returned {other}"),
        };
        (fate, usize::try_from(result.data_size_out).unwrap())
    }

    pub(crate) fn counters(&self) -> Counters {
        self.telemetry().counters().unwrap()
    }

    pub(crate) fn denials(&self) -> Denials {
        self.telemetry().denials().unwrap()
    }

    /// Makes every kind of denial in the map due for its next report; returns the kinds.
    pub(crate) fn make_reports_due(&mut self) -> Vec<DenyKey> {
        self.loaded().make_reports_due()
    }

    /// How many packets were dropped for a reason, and how many `observe` let pass.
    pub(crate) fn count(&self, reason: DropReason) -> (u64, u64) {
        let found = self.counters().drops.into_iter().find(|d| d.0 == reason);
        found
            .map(|(_, dropped, observed)| (dropped, observed))
            .unwrap()
    }

    /// Every reason that has been counted.
    pub(crate) fn reasons(&self) -> Vec<(DropReason, u64, u64)> {
        let mut drops = self.counters().drops;
        drops.retain(|(_, dropped, observed)| *dropped != 0 || *observed != 0);
        drops
    }

    /// The records written since the last call.
    pub(crate) fn events(&mut self) -> Vec<FlowEvent> {
        let mut events = Vec::new();
        let telemetry = &mut self.loaded().telemetry;
        telemetry.drain(usize::MAX, |event| events.push(*event));
        assert_eq!(telemetry.malformed(), 0);
        events
    }

    pub(crate) fn hits(&self, rule: RuleSlot) -> u64 {
        self.telemetry().rule_hits(rule).unwrap().hits
    }

    /// Drops the frame for this reason and no other; in `observe` it passes and is counted.
    #[track_caller]
    pub(crate) fn refuses(&mut self, way: Way, frame: &[u8], reason: DropReason, what: &str) {
        for (mode, fate, step) in [
            (Mode::Enforce, Dropped, (1, 0)),
            (Mode::Observe, Passed, (0, 1)),
        ] {
            self.set_mode(mode);
            let before = self.counters().drops;
            let found = self.run(way, frame);
            let mut counted = self.counters().drops;
            for (now, then) in counted.iter_mut().zip(&before) {
                (now.1, now.2) = (now.1 - then.1, now.2 - then.2);
            }
            counted.retain(|(_, dropped, observed)| (*dropped, *observed) != (0, 0));
            let expected = vec![(reason, step.0, step.1)];
            assert_eq!(
                (found, counted),
                (fate, expected),
                "{what}, {way:?}, in {mode:?}"
            );
        }
        self.set_mode(Mode::Enforce);
    }

    /// Passes the frame without counting anything against it.
    #[track_caller]
    pub(crate) fn passes(&mut self, way: Way, frame: &[u8], what: &str) {
        let before = self.counters().drops;
        let fate = self.run(way, frame);
        assert_eq!(fate, Passed, "{what}, {way:?}: {:?}", self.reasons());
        assert_eq!(self.counters().drops, before, "{what}, {way:?}");
    }
}

/// A row for every protocol.
pub(crate) fn key(table: TableId, class: ClassId, direction: Direction) -> (u32, PolicyKey) {
    let (_, key) = exact(table, class, direction, 0, 0);
    (PolicyKey::ANY_PROTOCOL_BITS, key)
}

/// A row for every port of a protocol.
pub(crate) fn protocol(
    table: TableId,
    class: ClassId,
    direction: Direction,
    protocol: u8,
) -> (u32, PolicyKey) {
    let (_, key) = exact(table, class, direction, protocol, 0);
    (PolicyKey::PROTOCOL_BITS, key)
}

/// A row for one port.
pub(crate) fn exact(
    table: TableId,
    class: ClassId,
    direction: Direction,
    protocol: u8,
    port: u16,
) -> (u32, PolicyKey) {
    let key = PolicyKey {
        table,
        class,
        direction: direction as u8,
        protocol,
        port: Port::new(port),
    };
    (PolicyKey::FULL_BITS, key)
}

/// The part of `struct __sk_buff` that a test run takes from its caller.
fn sk_buff(ingress_ifindex: u32, gso_size: u32) -> [u8; 184] {
    let mut context = [0; 184];
    context[36..40].copy_from_slice(&ingress_ifindex.to_ne_bytes());
    context[176..180].copy_from_slice(&gso_size.to_ne_bytes());
    context
}
