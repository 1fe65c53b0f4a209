//! The records that packets are evaluated with: four endpoints, their tables, and peers of four classes.
//!
//! | endpoint | verdict |
//! |---|---|
//! | [`OPEN`] | peers of class `FRIENDS` both ways, to those of `SERVERS` only; others not |
//! | [`SHUT`] | no peer |
//! | [`WATCHED`] | as `SHUT`, but its namespace observes, so everything passes |
//! | [`FLIPPING`] | as `OPEN`, by two tables in turn; [`FLIPPED_PORT`] is open in the first only |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence::plan::{Action, Row};
use ringfence_common::{
    endpoint::Endpoint,
    ids::{ClassId, IdentityId, NamespaceSlot, RuleSlot, TableId},
    mode::{Direction, Mode, Verdict},
    net::{Ip4, Ip6, Port},
    policy::{PolicyKey, PolicyRow},
};

/// Indices into [`World::ifindexes`].
pub(super) const OPEN: usize = 0;
pub(super) const SHUT: usize = 1;
pub(super) const WATCHED: usize = 2;
pub(super) const FLIPPING: usize = 3;
/// How many endpoints there are.
pub(super) const ENDPOINTS: usize = 4;

/// Open in the first table of [`FLIPPING`] only, for peers that may enter.
pub(super) const FLIPPED_PORT: u16 = 5000;
/// Shut in both tables of [`FLIPPING`], and open while connections are set up.
pub(super) const SHUT_PORT: u16 = 23;

/// Hosts of the peers' addresses. The last one is a friend's or an other's, in turn.
pub(super) const FRIEND: u8 = 101;
pub(super) const OTHER: u8 = 102;
pub(super) const SERVER: u8 = 103;
pub(super) const MOVING: u8 = 104;

/// Peer classes, each with its identity.
const FRIENDS: (ClassId, IdentityId) = (ClassId(5), IdentityId(21));
const OTHERS: (ClassId, IdentityId) = (ClassId(6), IdentityId(22));
const SERVERS: (ClassId, IdentityId) = (ClassId(7), IdentityId(23));

const TABLE_OPEN: TableId = TableId(7);
const TABLE_SHUT: TableId = TableId(8);
const TABLE_FIRST: TableId = TableId(9);
const TABLE_SECOND: TableId = TableId(10);
const TABLE_SETUP: TableId = TableId(11);
/// Tables from here on belong to no endpoint.
const TABLE_UNRELATED: u32 = 100;

/// Addresses, classes and tables that no packet uses.
const UNRELATED: u32 = 512;

/// A protocol number that no row of an unrelated table shares with the world's.
const TCP: u8 = 6;

/// The address of a host in a family.
pub(super) fn address(v6: bool, host: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, host.into()).into()
    } else {
        Ipv4Addr::new(10, 0, 0, host).into()
    }
}

/// Which of its tables an endpoint has in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InForce {
    /// Everything is allowed, to set up connections.
    Setup,
    /// The first, or only, table.
    First,
    /// The second table.
    Second,
}

/// The interfaces of the endpoints.
#[derive(Clone, Copy, Debug)]
pub(super) struct World {
    pub(super) ifindexes: [u32; ENDPOINTS],
}

impl World {
    /// The interface of an endpoint.
    pub(super) fn ifindex(&self, endpoint: usize) -> u32 {
        self.ifindexes.get(endpoint).copied().unwrap_or(0)
    }

    /// The address of an endpoint.
    pub(super) fn local(v6: bool, endpoint: usize) -> IpAddr {
        address(v6, u8::try_from(endpoint + 1).unwrap_or(u8::MAX))
    }

    /// The record of an endpoint.
    pub(super) fn endpoint(&self, endpoint: usize, table: InForce) -> Action {
        let table = match (endpoint, table) {
            (_, InForce::Setup) => TABLE_SETUP,
            (OPEN, _) => TABLE_OPEN,
            (FLIPPING, InForce::First) => TABLE_FIRST,
            (FLIPPING, InForce::Second) => TABLE_SECOND,
            _ => TABLE_SHUT,
        };
        let number = u32::try_from(endpoint).unwrap_or(0);
        let mut record = Endpoint {
            identity: IdentityId(30 + number),
            table,
            namespace: u16::try_from(1 + number).unwrap_or(0),
            ..Endpoint::default()
        };
        if let ([ip4, ..], IpAddr::V4(local)) = (&mut record.ip4, Self::local(false, endpoint)) {
            *ip4 = Ip4::from_wire(local.octets());
        }
        if let ([ip6, ..], IpAddr::V6(local)) = (&mut record.ip6, Self::local(true, endpoint)) {
            *ip6 = Ip6::from_wire(local.octets());
        }
        Action::PutEndpoint(self.ifindex(endpoint), record)
    }

    /// Every write that a fresh datapath needs. All endpoints have their setup table.
    pub(super) fn initial(&self) -> Vec<Action> {
        let mut actions = rows();
        for endpoint in 0..ENDPOINTS {
            let slot = NamespaceSlot(1 + u32::try_from(endpoint).unwrap_or(0));
            let mode = if endpoint == WATCHED {
                Mode::Observe
            } else {
                Mode::Enforce
            };
            actions.push(Action::SetMode(slot, mode));
        }
        actions.push(Action::SetMode(NamespaceSlot::NODE_DEFAULT, Mode::Enforce));
        actions.extend(classes());
        for v6 in [false, true] {
            actions.extend(addresses(v6));
            actions.push(moving(v6, false));
        }
        actions.extend((0..ENDPOINTS).map(|endpoint| self.endpoint(endpoint, InForce::Setup)));
        actions
    }
}

/// The classes of the peers' identities.
pub(super) fn classes() -> [Action; 3] {
    [FRIENDS, OTHERS, SERVERS].map(|(class, identity)| Action::SetClass(identity, class))
}

/// The peers' addresses, except the moving one.
pub(super) fn addresses(v6: bool) -> [Action; 3] {
    [(FRIEND, FRIENDS), (OTHER, OTHERS), (SERVER, SERVERS)]
        .map(|(host, (_, identity))| Action::PutAddress(address(v6, host), identity))
}

/// The moving address, as a friend's or (`second`) as that of an other.
pub(super) fn moving(v6: bool, second: bool) -> Action {
    let (_, identity) = if second { OTHERS } else { FRIENDS };
    Action::PutAddress(address(v6, MOVING), identity)
}

/// A write or removal of an address that no packet has.
pub(super) fn unrelated_address(v6: bool, number: u32) -> Action {
    let host = number % UNRELATED;
    let address: IpAddr = if v6 {
        Ipv6Addr::from(0xfd01 << 112 | u128::from(host)).into()
    } else {
        Ipv4Addr::from(10 << 24 | 1 << 16 | host).into()
    };
    match number / UNRELATED % 4 {
        0 => Action::PutAddress(address, FRIENDS.1),
        1 => Action::PutAddress(address, OTHERS.1),
        2 => Action::PutAddress(address, SERVERS.1),
        _ => Action::DeleteAddress(address),
    }
}

/// A class of an identity that no address has.
pub(super) fn unrelated_class(number: u32) -> Action {
    let class = [FRIENDS.0, OTHERS.0, ClassId::ANY];
    let class = class.get(number as usize % 3).copied().unwrap_or_default();
    Action::SetClass(IdentityId(1000 + number / 3 % UNRELATED), class)
}

/// A write or removal of a row in a table that no endpoint has.
pub(super) fn unrelated_row(number: u32) -> Action {
    let key = PolicyKey {
        table: TableId(TABLE_UNRELATED + number % 64),
        class: FRIENDS.0,
        direction: Direction::Ingress as u8,
        protocol: TCP,
        port: Port::new(u16::try_from(number / 64 % 64).unwrap_or(0)),
    };
    let row = |verdict| PolicyRow::lasting(verdict, RuleSlot(40));
    let bits = PolicyKey::FULL_BITS;
    let put = |verdict| {
        let row = row(verdict);
        Action::PutRow(Row { bits, key, row })
    };
    match number / 4096 % 3 {
        0 => put(Verdict::Allow),
        1 => put(Verdict::Deny),
        _ => Action::DeleteRow(Row {
            bits,
            key,
            row: row(Verdict::Deny),
        }),
    }
}

/// The rows of every table in use.
pub(super) fn rows() -> Vec<Action> {
    use Direction::{Egress, Ingress};
    use Verdict::{Allow, Deny};
    let mut rows = Vec::new();
    for (table, default) in [
        (TABLE_OPEN, Deny),
        (TABLE_SHUT, Deny),
        (TABLE_FIRST, Deny),
        (TABLE_SECOND, Deny),
        (TABLE_SETUP, Allow),
    ] {
        for direction in [Ingress, Egress] {
            rows.push(row(table, ClassId::ANY, direction, None, default));
        }
    }
    for table in [TABLE_OPEN, TABLE_FIRST, TABLE_SECOND] {
        for (class, direction) in [(FRIENDS, Ingress), (FRIENDS, Egress), (SERVERS, Egress)] {
            rows.push(row(table, class.0, direction, None, Allow));
        }
    }
    for (table, verdict) in [(TABLE_FIRST, Allow), (TABLE_SECOND, Deny)] {
        let flipped = Some(FLIPPED_PORT);
        rows.push(row(table, FRIENDS.0, Ingress, flipped, verdict));
        rows.push(row(table, FRIENDS.0, Ingress, Some(SHUT_PORT), Deny));
    }
    rows
}

/// A row for every protocol, or for one TCP port.
fn row(
    table: TableId,
    class: ClassId,
    direction: Direction,
    port: Option<u16>,
    verdict: Verdict,
) -> Action {
    let key = PolicyKey {
        table,
        class,
        direction: direction as u8,
        protocol: port.map_or(0, |_| TCP),
        port: Port::new(port.unwrap_or(0)),
    };
    let bits = match port {
        Some(_) => PolicyKey::FULL_BITS,
        None => PolicyKey::ANY_PROTOCOL_BITS,
    };
    let rule = match (verdict, port) {
        (Verdict::Allow, _) => RuleSlot(40),
        (Verdict::Deny, Some(_)) => RuleSlot(41),
        (Verdict::Deny, None) => RuleSlot::DEFAULT_DENY,
    };
    let row = PolicyRow::lasting(verdict, rule);
    Action::PutRow(Row { bits, key, row })
}
