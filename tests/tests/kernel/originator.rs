//! Protocols whose packets do not show who opened the flow (UDP, SCTP, raw): each direction is evaluated
//! as an originator, and the recorded originator changes only under the conditions of the truth table.
//!
//! The expected outcomes are written from the rules, not from the programs: a packet passes if
//! policy allows its own direction, or if it answers a recorded originator that is allowed now. A sender
//! becomes the recorded originator if the other side was never allowed, or was silent for a timeout.

mod faults;
mod reports;
mod streams;

use ringfence_common::{
    SECOND,
    drop_reason::DropReason,
    ids::TableId,
    mode::{Direction, Mode, Verdict},
    policy::PolicyRow,
};

use crate::fence::{
    Arriving, Dropped, FRIEND, FRIENDS, Fence, LOCAL, Leaving, Passed, RULE, Way, any_protocol,
};
use crate::frames::{Flow, SCTP, UDP};

/// An experimental protocol (RFC 3692), without ports.
const RAW: u8 = 253;

/// The protocols, with their timeouts in seconds: unanswered, and answered.
const PROTOCOLS: [(u8, u64, u64); 3] = [(UDP, 30, 180), (SCTP, 300, 300), (RAW, 60, 60)];

/// A table that allows [`FRIENDS`] these directions with every protocol, and denies the rest.
const fn table(egress: bool, ingress: bool) -> TableId {
    TableId(30 + egress as u32 * 2 + ingress as u32)
}

/// A fence with every [`table`]; the one in force denies both directions.
fn fence() -> Fence {
    let mut fence = Fence::new();
    for egress in [false, true] {
        for ingress in [false, true] {
            let table = table(egress, ingress);
            fence.deny_by_default(table);
            for (direction, allowed) in [(Direction::Egress, egress), (Direction::Ingress, ingress)]
            {
                if allowed {
                    let row = PolicyRow::lasting(Verdict::Allow, RULE);
                    fence.put_row(any_protocol(table, FRIENDS, direction), row);
                }
            }
        }
    }
    fence.edit(|endpoint| endpoint.table = table(false, false));
    fence
}

/// A flow of the workload with [`FRIEND`]; with protocols without ports there is one.
const fn flow(v6: bool, local: u16) -> Flow {
    Flow {
        v6,
        local: (LOCAL, local),
        peer: (FRIEND, 443),
    }
}

const fn other(way: Way) -> Way {
    match way {
        Leaving => Arriving,
        _ => Leaving,
    }
}

fn packet(flow: &Flow, way: Way, protocol: u8) -> Vec<u8> {
    if way == Leaving {
        flow.outbound(protocol, 0)
    } else {
        flow.inbound(protocol, 0)
    }
}

impl Fence {
    /// Puts a table in force that allows this to a flow's originator, which sends this way, and to the
    /// other side.
    fn govern(&mut self, originator: Way, forward: bool, backward: bool) {
        let in_force = if originator == Leaving {
            table(forward, backward)
        } else {
            table(backward, forward)
        };
        self.edit(|endpoint| endpoint.table = in_force);
    }

    /// Runs a frame; whether it is allowed. The outcome and the counter must be what the mode makes of
    /// it.
    #[track_caller]
    fn allows(&mut self, mode: Mode, way: Way, frame: &[u8]) -> bool {
        let before = self.count(DropReason::Policy);
        let outcome = self.run(way, frame);
        let after = self.count(DropReason::Policy);
        let denied = (after.0 - before.0, after.1 - before.1);
        let allowed = match (mode, outcome, denied) {
            (_, Passed, (0, 0)) => true,
            (Mode::Enforce, Dropped, (1, 0)) | (Mode::Observe, Passed, (0, 1)) => false,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            self.reasons().len(),
            usize::from(after != (0, 0)),
            "no other reason"
        );
        allowed
    }
}

/// A row of the truth table.
#[derive(Clone, Copy, Debug)]
struct Row {
    protocol: u8,
    /// Seconds after which a side is silent.
    timeout: u64,
    v6: bool,
    /// The direction of the originator's packets.
    originator: Way,
    forward: bool,
    backward: bool,
    /// Whether policy allowed the originator before.
    was_allowed: bool,
    silent: bool,
    /// Whether the originator sends the first packet after the change.
    originator_first: bool,
    mode: Mode,
}

fn rows(protocol: u8, timeout: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for bits in 0..1_u32 << 8 {
        let bit = |at: u32| bits >> at & 1 != 0;
        rows.push(Row {
            protocol,
            timeout,
            v6: bit(0),
            originator: if bit(1) { Leaving } else { Arriving },
            forward: bit(2),
            backward: bit(3),
            was_allowed: bit(4),
            silent: bit(5),
            originator_first: bit(6),
            mode: if bit(7) { Mode::Enforce } else { Mode::Observe },
        });
    }
    rows
}

/// Opens the flow of a row, and lets time pass until the originator has been silent for a timeout, or for
/// almost one. The other side continues, so the entry lives.
fn open(fence: &mut Fence, row: &Row, flow: &Flow) {
    let (there, back) = (row.originator, other(row.originator));
    let [opening, answer] = [there, back].map(|way| packet(flow, way, row.protocol));
    fence.set_mode(if row.was_allowed {
        Mode::Enforce
    } else {
        Mode::Observe
    });
    fence.govern(row.originator, row.was_allowed, false);
    let mode = if row.was_allowed {
        Mode::Enforce
    } else {
        Mode::Observe
    };
    for (way, frame) in [(there, &opening), (back, &answer)] {
        assert_eq!(fence.allows(mode, way, frame), row.was_allowed, "{row:?}");
    }
    fence.age_flows((row.timeout - 5) * SECOND);
    assert_eq!(
        fence.allows(mode, back, &answer),
        row.was_allowed,
        "{row:?}"
    );
    if row.silent {
        fence.age_flows(10 * SECOND);
    }
}

#[test]
fn the_truth_table_holds() {
    for (protocol, _, timeout) in PROTOCOLS {
        let mut fence = fence();
        for (port, row) in (20_000..).zip(rows(protocol, timeout)) {
            fence.clear_flows();
            let flow = flow(row.v6, port);
            open(&mut fence, &row, &flow);
            fence.govern(row.originator, row.forward, row.backward);
            fence.set_mode(row.mode);

            let (there, back) = (row.originator, other(row.originator));
            let [forward, backward] = [there, back].map(|way| packet(&flow, way, protocol));
            let mut is_silent = row.silent;
            if row.originator_first {
                let allowed = fence.allows(row.mode, there, &forward);
                assert_eq!(allowed, row.forward, "the originator, first: {row:?}");
                is_silent = false;
            }
            let allowed = fence.allows(row.mode, back, &backward);
            let wanted = row.forward || row.backward;
            assert_eq!(allowed, wanted, "the other side: {row:?}");
            let gives_way = row.backward && (!row.was_allowed || is_silent);
            let allowed = fence.allows(row.mode, there, &forward);
            let wanted = row.forward || gives_way;
            assert_eq!(allowed, wanted, "the originator: {row:?}");
            let allowed = fence.allows(row.mode, back, &backward);
            let wanted = row.forward || row.backward;
            assert_eq!(allowed, wanted, "the other side, again: {row:?}");
        }
    }
}

#[test]
fn without_an_entry_the_sender_opens_the_flow() {
    for (protocol, unanswered, _) in PROTOCOLS {
        for v6 in [false, true] {
            for originator in [Leaving, Arriving] {
                let mut fence = fence();
                let flow = flow(v6, 20_000);
                let [forward, backward] =
                    [originator, other(originator)].map(|way| packet(&flow, way, protocol));
                fence.govern(originator, true, false);
                fence.passes(originator, &forward, "the originator");
                fence.govern(originator, false, true);
                fence.age_flows((unanswered + 1) * SECOND);
                let revoked = fence.allows(Mode::Enforce, originator, &forward);
                assert!(
                    !revoked,
                    "control: both were silent, and the originator is denied"
                );
                fence.passes(other(originator), &backward, "a flow of the other side");
                fence.passes(originator, &forward, "its reply");
            }
        }
    }
}
