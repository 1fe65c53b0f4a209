//! The packets of a run: connections that are set up before, and flows without one.

use anyhow::{Result, ensure};

use super::probe::{Expect, Probe};
use super::world::{
    FLIPPED_PORT, FLIPPING, FRIEND, MOVING, OPEN, OTHER, SERVER, SHUT, SHUT_PORT, WATCHED, World,
    address,
};
use crate::program_run::frames::{ACK, CHAIN, End, SYN, Transport, frame, lengthen, transport_at};
use crate::program_run::{Hook, Programs};

/// Source ports of flows that change it: few where each new flow counts for the workload.
const MANY: u16 = 1024;
const FEW: u16 = 16;
const FIRST_PORT: u16 = 40_000;
/// Client ports of connections that are set up before, for each pair of ends.
const CONNECTIONS: std::ops::Range<u16> = 30_000..30_004;
const HTTPS: u16 = 443;

/// A kind of connection that is set up before.
struct Connected {
    what: &'static str,
    endpoint: usize,
    /// Whether the workload opens it.
    opens: bool,
    peer: u8,
    port: u16,
    /// What packets of the client and of the server must get.
    expect: (Expect, Option<Expect>),
}

impl Connected {
    const fn new(
        what: &'static str,
        (endpoint, opens, peer, port): (usize, bool, u8, u16),
        expect: (Expect, Option<Expect>),
    ) -> Self {
        Self {
            what,
            endpoint,
            opens,
            peer,
            port,
            expect,
        }
    }
}

const PASSING: (Expect, Option<Expect>) = (Expect::Passes, Some(Expect::Passes));
const DENIED: (Expect, Option<Expect>) = (Expect::Dropped, Some(Expect::Dropped));
/// Without an entry the server's packets would open a flow, which is allowed.
const DENIED_TO_CLIENT: (Expect, Option<Expect>) = (Expect::Dropped, None);

const CONNECTED: [Connected; 7] = [
    Connected::new(
        "connection allowed in both directions",
        (FLIPPING, false, FRIEND, HTTPS),
        PASSING,
    ),
    Connected::new(
        "connection from an open endpoint to a server",
        (OPEN, true, SERVER, HTTPS),
        PASSING,
    ),
    Connected::new(
        "connection from a flipping endpoint to a server",
        (FLIPPING, true, SERVER, HTTPS),
        PASSING,
    ),
    Connected::new(
        "denied connection by port",
        (FLIPPING, false, FRIEND, SHUT_PORT),
        DENIED_TO_CLIENT,
    ),
    Connected::new(
        "denied connection by peer",
        (FLIPPING, false, OTHER, HTTPS),
        DENIED,
    ),
    Connected::new(
        "denied connection into a shut endpoint",
        (SHUT, false, FRIEND, HTTPS),
        DENIED,
    ),
    Connected::new(
        "denied connection from a shut endpoint",
        (SHUT, true, FRIEND, HTTPS),
        DENIED,
    ),
];

/// Sets up the connections, while every endpoint has its setup table.
pub(super) fn connect(programs: &Programs, world: &World) -> Result<Vec<Probe>> {
    let mut probes = Vec::new();
    for kind in CONNECTED {
        let Connected {
            what,
            endpoint,
            opens,
            peer,
            port,
            expect: (by_client, by_server),
        } = kind;
        for (v6, client_port) in [false, true]
            .into_iter()
            .flat_map(|v6| CONNECTIONS.map(move |port| (v6, port)))
        {
            let ends = (World::local(v6, endpoint), address(v6, peer));
            let (client, server) = if opens { ends } else { (ends.1, ends.0) };
            let ends: (End, End) = ((client, client_port), (server, port));
            let ifindex = world.ifindex(endpoint);
            let (to_server, to_client) = if opens {
                (Hook::FromWorkload, Hook::ToWorkload)
            } else {
                (Hook::ToWorkload, Hook::FromWorkload)
            };
            open(programs, ifindex, (to_server, to_client), ends)?;
            let data = Transport::Tcp(ACK);
            for (hook, (from, to), expect) in [
                (to_server, ends, Some(by_client)),
                (to_client, (ends.1, ends.0), by_server),
            ] {
                let Some(expect) = expect else { continue };
                probes.push(Probe {
                    what,
                    hook,
                    ifindex,
                    frame: frame(from, to, data)?,
                    transport_at: transport_at(v6),
                    first_port: from.1,
                    ports: 1,
                    expect,
                    has_rival: endpoint == FLIPPING && peer == FRIEND,
                });
            }
        }
    }
    Ok(probes)
}

/// Opens and uses a connection, so that its entry is assured.
pub(super) fn open(
    programs: &Programs,
    ifindex: u32,
    (to_server, to_client): (Hook, Hook),
    (client, server): (End, End),
) -> Result<()> {
    for (hook, from, to, flags) in [
        (to_server, client, server, SYN),
        (to_client, server, client, SYN | ACK),
        (to_server, client, server, ACK),
        (to_server, client, server, ACK),
    ] {
        let frame = frame(from, to, Transport::Tcp(flags))?;
        let passed = programs.passes(hook, ifindex, &frame)?;
        ensure!(passed, "a connection could not be set up: {from:?} {to:?}");
    }
    Ok(())
}

/// The flows without a connection.
pub(super) fn flows(world: &World) -> Result<Vec<Probe>> {
    use Expect::{Dropped, Passes, PassesAsFriend, PassesByFirstTable};
    use Hook::{FromWorkload, ToWorkload};
    let (tcp, udp) = (Transport::Tcp(ACK), Transport::Udp);
    let all = [
        (
            "friend to open",
            OPEN,
            ToWorkload,
            FRIEND,
            HTTPS,
            tcp,
            MANY,
            Passes,
        ),
        (
            "open to friend",
            OPEN,
            FromWorkload,
            FRIEND,
            HTTPS,
            udp,
            FEW,
            Passes,
        ),
        (
            "other to open",
            OPEN,
            ToWorkload,
            OTHER,
            HTTPS,
            udp,
            MANY,
            Dropped,
        ),
        (
            "open to other",
            OPEN,
            FromWorkload,
            OTHER,
            HTTPS,
            tcp,
            MANY,
            Dropped,
        ),
        (
            "server to open",
            OPEN,
            ToWorkload,
            SERVER,
            HTTPS,
            udp,
            MANY,
            Dropped,
        ),
        (
            "mover to open",
            OPEN,
            ToWorkload,
            MOVING,
            HTTPS,
            tcp,
            MANY,
            PassesAsFriend,
        ),
        (
            "friend to shut",
            SHUT,
            ToWorkload,
            FRIEND,
            HTTPS,
            tcp,
            MANY,
            Dropped,
        ),
        (
            "shut to friend",
            SHUT,
            FromWorkload,
            FRIEND,
            HTTPS,
            udp,
            MANY,
            Dropped,
        ),
        (
            "friend to shut, UDP",
            SHUT,
            ToWorkload,
            FRIEND,
            HTTPS,
            udp,
            MANY,
            Dropped,
        ),
        (
            "other to watched",
            WATCHED,
            ToWorkload,
            OTHER,
            HTTPS,
            tcp,
            FEW,
            Passes,
        ),
        (
            "friend to flipping",
            FLIPPING,
            ToWorkload,
            FRIEND,
            HTTPS,
            udp,
            MANY,
            Passes,
        ),
        (
            "other to flipping",
            FLIPPING,
            ToWorkload,
            OTHER,
            HTTPS,
            tcp,
            MANY,
            Dropped,
        ),
        (
            "flipped port",
            FLIPPING,
            ToWorkload,
            FRIEND,
            FLIPPED_PORT,
            tcp,
            MANY,
            PassesByFirstTable,
        ),
    ];
    let mut probes = Vec::new();
    for (what, endpoint, hook, peer, port, transport, ports, expect) in all {
        for (v6, long) in [(false, false), (true, false), (true, true)] {
            let (local, peer) = (World::local(v6, endpoint), address(v6, peer));
            let (from, to) = match hook {
                FromWorkload => (local, peer),
                ToWorkload => (peer, local),
            };
            let mut frame = frame((from, FIRST_PORT), (to, port), transport)?;
            let mut transport_at = transport_at(v6);
            if long {
                lengthen(&mut frame);
                transport_at += 8 * CHAIN;
            }
            probes.push(Probe {
                what,
                hook,
                ifindex: world.ifindex(endpoint),
                frame,
                transport_at,
                first_port: FIRST_PORT,
                ports,
                expect,
                has_rival: false,
            });
        }
    }
    Ok(probes)
}
