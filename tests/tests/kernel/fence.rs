//! A fence without an interface: the loaded programs, their maps and one endpoint.
//!
//! The endpoint has the addresses [`LOCAL`] and is on interface 1, which a test run reports. Its
//! policy table denies both directions until a test adds rows. [`FRIEND`] and [`OTHER`] are peers
//! of two classes; [`UNKNOWN_PEER`] is in no map.

use std::net::IpAddr;
use std::time::Duration;

use aya::programs::{TestRun as _, TestRunOptions};
use ringfence::datapath::{Clocks, Counters, Datapath as _, Denials, Sweep, Telemetry};
use ringfence::plan::{Action, Plan, Row};
use ringfence_common::{
    conntrack::Timeout,
    deny_aggregate::DenyKey,
    drop_reason::DropReason,
    endpoint::Endpoint,
    event::FlowEvent,
    ids::{ClassId, IdentityId, NamespaceSlot, RuleSlot, TableId},
    mode::{Action as PacketAction, Direction, Mode, Verdict},
    net::{Ip4, Ip6},
    policy::{PolicyKey, PolicyRow},
    quota::Usage,
};

use ringfence_testbed::eventually;

use crate::loaded::{Loaded, Record};
pub(crate) use crate::peers::{DualStack, FRIEND, LOCAL, OTHER, UNKNOWN_PEER};
pub(crate) use crate::row_keys::{any_port, any_protocol, exact};

pub(crate) const FRIENDS: ClassId = ClassId(5);
pub(crate) const OTHERS: ClassId = ClassId(6);
pub(crate) const FRIEND_IDENTITY: IdentityId = IdentityId(20);
pub(crate) const OTHER_IDENTITY: IdentityId = IdentityId(21);
pub(crate) const LOCAL_IDENTITY: IdentityId = IdentityId(19);

/// The rule that decides in tests that need one rule only.
pub(crate) const RULE: RuleSlot = RuleSlot(40);

/// The endpoint's first policy table.
pub(crate) const TABLE: TableId = TableId(7);
const NAMESPACE: NamespaceSlot = NamespaceSlot(3);
/// `lo`, which a test run without an interface reports.
pub(crate) const IFINDEX: u32 = 1;
/// The ingress interface of packets that are forwarded to the workload.
const OTHER_IFINDEX: u32 = 77;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Dropped,
    /// Dropped, and a reject packet was sent.
    Rejected,
}
pub(crate) use Outcome::{Dropped, Passed, Rejected};

/// The hook at which a program sees a frame, and where the frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The workload sends it.
    Leaving,
    /// Forwarded to the workload.
    Arriving,
    /// Sent to the workload by a socket of the host.
    FromHost,
    /// Sent by the workload and routed back to it.
    Hairpin,
}
pub(crate) use Way::{Arriving, FromHost, Hairpin, Leaving};

pub(crate) struct Fence {
    /// `Some` until the fence is dropped.
    loaded: Option<Loaded>,
    endpoint: Endpoint,
    /// Whether policy rows changed in place since the last frame.
    rows_changed: bool,
    /// Whether the programs are those of the pool.
    is_pooled: bool,
}

impl Drop for Fence {
    fn drop(&mut self) {
        if let Some(loaded) = self.loaded.take()
            && self.is_pooled
        {
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
            rows_changed: true,
            is_pooled: true,
        }
    }

    /// Programs and maps with the endpoint in `enforce`.
    pub(crate) fn new() -> Self {
        Self::bare().with_endpoint()
    }

    /// The same with conntrack timeouts other than the defaults.
    pub(crate) fn with_timeouts(timeouts: &[(Timeout, u32)]) -> Self {
        Self::of(Loaded::with_timeouts(timeouts))
    }

    /// The same with conntrack of this capacity.
    pub(crate) fn with_conntrack(capacity: u32) -> Self {
        Self::of(Loaded::with_conntrack(capacity))
    }

    fn of(loaded: Loaded) -> Self {
        let bare = Self {
            loaded: Some(loaded),
            endpoint: Endpoint::default(),
            rows_changed: true,
            is_pooled: false,
        };
        bare.with_endpoint()
    }

    fn with_endpoint(self) -> Self {
        let mut fence = self;
        let mut endpoint = Endpoint {
            identity: LOCAL_IDENTITY,
            table: TABLE,
            namespace: u16::try_from(NAMESPACE.0).unwrap(),
            ..Endpoint::default()
        };
        endpoint.ip4[0] = Ip4::from_wire(LOCAL.0.octets());
        endpoint.ip6[0] = Ip6::from_wire(LOCAL.1.octets());
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

    pub(crate) fn loaded(&mut self) -> &mut Loaded {
        self.loaded.as_mut().unwrap()
    }

    fn telemetry(&self) -> &Telemetry {
        &self.loaded.as_ref().unwrap().telemetry
    }

    pub(crate) fn write(&mut self, action: Action) {
        self.rows_changed |= matches!(action, Action::PutRow(_) | Action::DeleteRow(_));
        self.loaded().datapath.write(&action).unwrap();
    }

    /// Makes all writes of a plan.
    pub(crate) fn apply(&mut self, plan: &Plan) {
        for action in plan.publish.iter().chain(&plan.retire) {
            self.write(*action);
        }
    }

    /// Empties conntrack and the deny aggregates.
    pub(crate) fn clear_flows(&mut self) {
        self.loaded().clear_flows();
    }

    /// Number of assured entries in conntrack.
    pub(crate) fn assured(&mut self) -> usize {
        self.loaded().assured()
    }

    /// The endpoint's account of conntrack entries.
    pub(crate) fn usage(&mut self) -> Usage {
        self.loaded().usage(IFINDEX)
    }

    /// Number of entries in the unreplied tables.
    pub(crate) fn unreplied(&mut self) -> usize {
        self.loaded().unreplied()
    }

    /// The agent's periodic usage sweep, with or without the endpoint.
    pub(crate) fn sweep(&mut self, now: u64, endpoints: &[u32]) -> Sweep {
        self.loaded().sweep(now, endpoints)
    }

    /// Makes every conntrack entry older by a number of nanoseconds.
    pub(crate) fn age_flows(&mut self, by: u64) {
        self.loaded().age_flows(by);
    }

    /// Rewrites every record of conntrack.
    pub(crate) fn rewrite_flows(&mut self, edit: impl FnMut(Record<'_>)) {
        self.loaded().rewrite(edit);
    }

    /// Copies every assured entry under the key with this port of the peer.
    pub(crate) fn copy_assured(&mut self, peer_port: u16) {
        self.loaded().copy_assured(peer_port);
    }

    /// Stores the ipcache value of one address under another, whose own is lost.
    pub(crate) fn misplace_identity(&mut self, of: IpAddr, under: IpAddr) {
        self.loaded().misplace_identity(of, under);
    }

    /// Copies every fragment record under another identification.
    pub(crate) fn copy_fragments(&mut self, id: u32) {
        self.loaded().copy_fragments(id);
    }

    /// Gives an address to another owner: counts it, and makes stored verdicts stale.
    pub(crate) fn change_owner(&mut self, address: IpAddr) {
        self.loaded().change_owner(address);
        self.write(Action::BumpEpoch(address));
    }

    /// Empties the fragment maps.
    pub(crate) fn clear_fragments(&mut self) {
        self.loaded().clear_fragments();
    }

    /// Discards the flow events written so far.
    pub(crate) fn discard_events(&mut self) {
        self.loaded().telemetry.events.drain(usize::MAX, |_| {});
    }

    /// Packets denied for a reason that were dropped, or that `observe` let pass.
    pub(crate) fn counter(&self, reason: DropReason, action: PacketAction) -> u64 {
        self.loaded.as_ref().unwrap().counter(reason, action)
    }

    pub(crate) fn set_mode(&mut self, mode: Mode) {
        self.write(Action::SetMode(NAMESPACE, mode));
    }

    /// Writes rows that deny everything, in both directions.
    pub(crate) fn deny_by_default(&mut self, table: TableId) {
        for direction in [Direction::Ingress, Direction::Egress] {
            let row = PolicyRow::lasting(Verdict::Deny, RuleSlot::DEFAULT_DENY);
            self.put_row(any_protocol(table, ClassId::ANY, direction), row);
        }
    }

    /// Writes a policy row.
    pub(crate) fn put_row(&mut self, (bits, key): (u32, PolicyKey), row: PolicyRow) {
        self.write(Action::PutRow(Row { bits, key, row }));
    }

    /// [`RULE`] allows [`FRIENDS`] a protocol and port, in one direction.
    pub(crate) fn allow(&mut self, direction: Direction, protocol: u8, port: u16) {
        let row = PolicyRow::lasting(Verdict::Allow, RULE);
        self.put_row(exact(TABLE, FRIENDS, direction, protocol, port), row);
    }

    /// [`RULE`] allows the workload to send to itself.
    pub(crate) fn allow_itself(&mut self, protocol: u8, port: u16) {
        self.write(Action::SetClass(LOCAL_IDENTITY, OTHERS));
        let key = exact(TABLE, OTHERS, Direction::Egress, protocol, port);
        self.put_row(key, PolicyRow::lasting(Verdict::Allow, RULE));
    }

    /// [`RULE`] allows [`FRIENDS`] everything, in both directions.
    pub(crate) fn allow_friends(&mut self) {
        for direction in [Direction::Ingress, Direction::Egress] {
            let row = PolicyRow::lasting(Verdict::Allow, RULE);
            self.put_row(any_protocol(TABLE, FRIENDS, direction), row);
        }
    }

    /// Changes the endpoint.
    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Endpoint)) {
        edit(&mut self.endpoint);
        self.write(Action::PutEndpoint(IFINDEX, self.endpoint));
    }

    /// The clocks that the programs read.
    pub(crate) fn clocks(&mut self) -> Clocks {
        self.loaded().datapath.clocks().unwrap()
    }

    /// The programs' boot clock.
    pub(crate) fn now(&mut self) -> u64 {
        self.clocks().boot
    }

    pub(crate) fn leaving(&mut self, frame: &[u8]) -> Outcome {
        self.run(Leaving, frame)
    }

    pub(crate) fn arriving(&mut self, frame: &[u8]) -> Outcome {
        self.run(Arriving, frame)
    }

    pub(crate) fn run(&mut self, way: Way, frame: &[u8]) -> Outcome {
        self.run_with(way, frame, 0, 1)
    }

    /// Runs a frame `repeat` times, with a GSO segment size if `gso_size` is not 0.
    pub(crate) fn run_with(
        &mut self,
        way: Way,
        frame: &[u8],
        gso_size: u32,
        repeat: u32,
    ) -> Outcome {
        // A reject packet may be longer than the rejected one.
        let mut out = vec![0; frame.len() + 64];
        self.test_run(way, frame, (gso_size, repeat), &mut out).0
    }

    /// The reject packet for a frame, as it leaves by the interface.
    #[track_caller]
    pub(crate) fn reject_packet(&mut self, way: Way, frame: &[u8]) -> Vec<u8> {
        let mut reject = vec![0; frame.len() + 64];
        let (outcome, length) = self.test_run(way, frame, (0, 1), &mut reject);
        assert_eq!(outcome, Rejected, "{way:?}: {:?}", self.reasons());
        reject.truncate(length);
        reject
    }

    /// Runs a frame; returns the outcome and the resulting frame, which is the reject packet if it was
    /// rejected.
    pub(crate) fn answer(&mut self, way: Way, frame: &[u8]) -> (Outcome, Vec<u8>) {
        let mut out = vec![0; frame.len() + 64];
        let (outcome, length) = self.test_run(way, frame, (0, 1), &mut out);
        out.truncate(length);
        (outcome, out)
    }

    /// The agent never changes rows that are in use, so the programs may cache a decision until the
    /// tick ends. A test that changes rows in place waits for the next tick.
    pub(crate) fn wait_for_rows(&mut self) {
        if !std::mem::take(&mut self.rows_changed) {
            return;
        }
        let before = self.clocks().ticks;
        eventually(Duration::from_secs(10), "the next tick", || {
            Ok((self.clocks().ticks != before).then_some(()))
        })
        .unwrap();
    }

    /// Runs a frame; returns the outcome and the length of the resulting frame.
    fn test_run(
        &mut self,
        way: Way,
        frame: &[u8],
        (gso_size, repeat): (u32, u32),
        out: &mut [u8],
    ) -> (Outcome, usize) {
        let (program, ingress) = match way {
            Leaving => ("from_workload", IFINDEX),
            Arriving => ("to_workload", OTHER_IFINDEX),
            FromHost => ("to_workload", 0),
            Hairpin => ("to_workload", IFINDEX),
        };
        self.wait_for_rows();
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
        let outcome = match result.return_value.cast_signed() {
            -1 => Passed,
            2 => Dropped,
            7 => Rejected,
            other => panic!("the program returned {other}"),
        };
        (outcome, usize::try_from(result.data_size_out).unwrap())
    }

    pub(crate) fn counters(&self) -> Counters {
        self.telemetry().readings.counters().unwrap()
    }

    pub(crate) fn denials(&self) -> Denials {
        self.telemetry().readings.denials().unwrap()
    }

    /// Makes every deny aggregate due for its next report; returns their keys.
    pub(crate) fn make_reports_due(&mut self) -> Vec<DenyKey> {
        self.loaded().make_reports_due()
    }

    /// Packets dropped for a reason, and packets that `observe` let pass.
    pub(crate) fn count(&self, reason: DropReason) -> (u64, u64) {
        let found = self.counters().drops.into_iter().find(|d| d.0 == reason);
        found
            .map(|(_, dropped, observed)| (dropped, observed))
            .unwrap()
    }

    /// Every reason with a count other than zero.
    pub(crate) fn reasons(&self) -> Vec<(DropReason, u64, u64)> {
        let mut drops = self.counters().drops;
        drops.retain(|(_, dropped, observed)| *dropped != 0 || *observed != 0);
        drops
    }

    /// The flow events written since the last call.
    pub(crate) fn events(&mut self) -> Vec<FlowEvent> {
        let mut events = Vec::new();
        let telemetry = &mut self.loaded().telemetry;
        telemetry
            .events
            .drain(usize::MAX, |event| events.push(*event));
        assert_eq!(telemetry.events.malformed(), 0);
        events
    }

    pub(crate) fn hits(&self, rule: RuleSlot) -> u64 {
        self.telemetry().readings.rule_hits(rule).unwrap().hits
    }

    /// Asserts that the frame is dropped for this reason only, and that it passes and is counted in
    /// `observe`.
    #[track_caller]
    pub(crate) fn denies(&mut self, way: Way, frame: &[u8], reason: DropReason, what: &str) {
        for (mode, outcome, delta) in [
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
            let expected = vec![(reason, delta.0, delta.1)];
            assert_eq!(
                (found, counted),
                (outcome, expected),
                "{what}, {way:?}, in {mode:?}"
            );
        }
        self.set_mode(Mode::Enforce);
    }

    /// Asserts that the frame passes and that no drop reason is counted.
    #[track_caller]
    pub(crate) fn passes(&mut self, way: Way, frame: &[u8], what: &str) {
        let before = self.counters().drops;
        let outcome = self.run(way, frame);
        assert_eq!(outcome, Passed, "{what}, {way:?}: {:?}", self.reasons());
        assert_eq!(self.counters().drops, before, "{what}, {way:?}");
    }
}

/// The part of `struct __sk_buff` that a test run takes as input.
pub(crate) fn sk_buff(ingress_ifindex: u32, gso_size: u32) -> [u8; 184] {
    let mut context = [0; 184];
    context[36..40].copy_from_slice(&ingress_ifindex.to_ne_bytes());
    context[176..180].copy_from_slice(&gso_size.to_ne_bytes());
    context
}
