//! Connections that both ends use: what ends them, and what keeps them alive. Their packets take a short
//! way through the programs, so everything that changes must be seen on it, too.

use ringfence_common::{
    SECOND,
    mode::{Direction, Mode, Verdict},
    policy::PolicyRow,
};

use crate::fence::{
    Arriving, Dropped, FRIEND, FRIENDS, Fence, FromHost, LOCAL, Leaving, Passed, RULE, TABLE, Way,
    any_protocol,
};
use crate::frames::{ACK, FIN, Flow, RST, SYN, TCP};

/// A connection that is allowed in the direction of its originator alone.
struct Connection {
    fence: Fence,
    flow: Flow,
    originator: Way,
}

fn other(way: Way) -> Way {
    if way == Leaving { Arriving } else { Leaving }
}

impl Connection {
    fn all() -> impl Iterator<Item = Self> {
        let cases = [false, true].map(|v6| [Leaving, Arriving].map(|originator| (v6, originator)));
        cases.into_iter().flatten().map(|(v6, originator)| {
            let mut fence = Fence::new();
            let direction = match originator {
                Leaving => Direction::Egress,
                _ => Direction::Ingress,
            };
            let row = PolicyRow::lasting(Verdict::Allow, RULE);
            fence.put_row(any_protocol(TABLE, FRIENDS, direction), row);
            let flow = Flow {
                v6,
                local: (LOCAL, 40_000),
                peer: (FRIEND, 443),
            };
            let mut connection = Self {
                fence,
                flow,
                originator,
            };
            for (way, flags) in [
                (originator, SYN),
                (other(originator), SYN | ACK),
                (originator, ACK),
                (other(originator), ACK),
            ] {
                assert!(connection.passes(way, flags));
            }
            assert_eq!(connection.fence.assured(), 1, "{v6} {originator:?}");
            assert!(connection.is_used());
            connection
        })
    }

    fn passes(&mut self, way: Way, flags: u8) -> bool {
        let frame = match way {
            Leaving => self.flow.outbound(TCP, flags),
            _ => self.flow.inbound(TCP, flags),
        };
        let outcome = self.fence.run(way, &frame);
        assert!(matches!(outcome, Passed | Dropped), "{outcome:?}");
        outcome == Passed
    }

    /// Whether data of both ends passes; either both or none must.
    fn is_used(&mut self) -> bool {
        let back = self.passes(other(self.originator), ACK);
        assert_eq!(self.passes(self.originator, ACK), back);
        back
    }
}

#[test]
fn lockdown_and_a_table_that_denies_end_a_used_connection() {
    for mut connection in Connection::all() {
        connection.fence.set_mode(Mode::Lockdown);
        assert!(!connection.is_used());
        connection.fence.set_mode(Mode::Enforce);
        assert!(connection.is_used());
        connection.fence.edit(|endpoint| endpoint.table.0 += 1000);
        for _ in 0..3 {
            // From the second packet on by an entry that is current and denies.
            assert!(!connection.is_used(), "a table without rows");
        }
    }
}

#[test]
fn a_used_connection_is_extended_by_either_end() {
    for mut connection in Connection::all() {
        for way in [Leaving, Arriving] {
            for _ in 0..4 {
                connection.fence.age_flows(3000 * SECOND);
                assert!(connection.passes(way, ACK), "{way:?}");
            }
        }
        assert!(connection.is_used());
        connection.fence.age_flows(8001 * SECOND);
        let originator = connection.originator;
        assert!(!connection.passes(other(originator), ACK), "it has expired");
    }
}

#[test]
fn what_ends_a_connection_is_noted() {
    for ends in [
        &[(Leaving, FIN | ACK), (Arriving, FIN | ACK)][..],
        &[(Leaving, RST)],
        &[(Arriving, RST)],
    ] {
        for mut connection in Connection::all() {
            for (way, flags) in ends {
                assert!(connection.passes(*way, *flags));
            }
            connection.fence.age_flows(11 * SECOND);
            let originator = connection.originator;
            assert!(!connection.passes(other(originator), ACK), "{ends:?}");
        }
    }
}

#[test]
fn others_may_not_use_a_connection_of_the_host() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        let flow = Flow {
            v6,
            local: (LOCAL, 8080),
            peer: (FRIEND, 40_000),
        };
        for flags in [SYN, ACK, ACK] {
            fence.passes(FromHost, &flow.inbound(TCP, flags), "a socket of the host");
            let reply = if flags == SYN { SYN | ACK } else { ACK };
            fence.passes(Leaving, &flow.outbound(TCP, reply), "its reply");
        }
        assert_eq!(fence.assured(), 1);
        for _ in 0..3 {
            assert_eq!(fence.run(Arriving, &flow.inbound(TCP, ACK)), Dropped);
            fence.passes(FromHost, &flow.inbound(TCP, ACK), "the host continues");
        }
    }
}
