//! How a packet's cost and kernel memory grow with the number of established connections.
//!
//! One connection is opened by packets; the others are copies of its entry with their own keys,
//! because the share of an endpoint does not allow it to fill a table.

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData, MapInfo};
use ringfence_common::conntrack::{CtEntry, CtKey4};
use ringfence_common::maps::CT4;
use ringfence_common::net::{Ip4, Port};
use ringfence_testbed::interrupt;

use super::flows::{Costs, Flows, NEW, ends};
use crate::frames::{ACK, SYN, tcp};
use crate::loaded::{IFINDEX, LoadedPrograms, World};
use crate::memory::memlock;

/// Number of frames kept; their flows are spread over the table.
const FRAMES: u32 = 65_536;
const TCP: u8 = 6;

/// The measurement at one number of flows.
pub(crate) struct Size {
    pub(crate) flows: u32,
    pub(crate) costs: Costs,
    /// Memory of `CT4` as the kernel reports it.
    pub(crate) counted: u64,
    /// Growth of unreclaimable kernel memory while the table was filled.
    pub(crate) grown: u64,
}

/// Measures at these increasing numbers of flows, in a table with the capacity of the last.
pub(crate) fn measure(steps: &[u32], world: World, rounds: usize) -> Result<Vec<Size>> {
    let capacity = steps.last().copied().context("no number of flows")?;
    let mut loaded = LoadedPrograms::load(vec![(CT4, capacity)])?;
    loaded.publish(world)?;
    Flows::open(&mut loaded, world.peers, 1)?;
    let path = loaded.pins.map(CT4);
    let map = Map::HashMap(MapData::from_pin(&path)?);
    let mut table: HashMap<MapData, CtKey4, CtEntry> = HashMap::try_from(map)?;
    let entry = table.get(&key(0, world.peers)?, 0);
    let entry = entry.context("the opened connection has no entry")?;
    let before = unreclaimable()?;
    let (mut filled, mut sizes) = (1, Vec::new());
    for flows in steps.iter().copied() {
        interrupt::check()?;
        for number in filled..flows {
            let key = key(number, world.peers)?;
            let mut sealed = entry;
            sealed.seal = sealed.seal_for(&key);
            table
                .insert(key, sealed, 0)
                .with_context(|| format!("flow {number}"))?;
        }
        filled = flows;
        let grown = unreclaimable()?.saturating_sub(before);
        let (mut established, mut new) = (Vec::new(), Vec::new());
        let stride = flows.div_ceil(FRAMES).max(1);
        for number in (0..flows).step_by(stride as usize) {
            let (client, server) = ends(number, world.peers);
            established.push(tcp(client, server, ACK)?);
            // Fewer than the unreplied table holds.
            if new.len() < 4096 {
                new.push(tcp((client.0, client.1 + NEW), server, SYN)?);
            }
        }
        sizes.push(Size {
            flows,
            costs: Flows::established(established, new).costs(&mut loaded, rounds)?,
            counted: memlock(&MapInfo::from_pin(&path)?)?,
            grown,
        });
    }
    Ok(sizes)
}

/// The conntrack key of a connection.
fn key(number: u32, peers: u32) -> Result<CtKey4> {
    let (client, server) = ends(number, peers);
    let wire = |(address, port): (std::net::IpAddr, u16)| match address {
        std::net::IpAddr::V4(address) => Ok((Ip4::from_wire(address.octets()), Port::new(port))),
        std::net::IpAddr::V6(_) => anyhow::bail!("an IPv6 address for an IPv4 map"),
    };
    let (local, peer) = (wire(server)?, wire(client)?);
    Ok(CtKey4 {
        local: local.0,
        peer: peer.0,
        ifindex: IFINDEX,
        local_port: local.1,
        peer_port: peer.1,
        protocol: TCP,
        reserved: [0; 3],
    })
}

/// Unreclaimable kernel memory of the whole machine. A difference is meaningful only while nothing
/// else allocates.
fn unreclaimable() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("SUnreclaim:"));
    let kib = value.and_then(|value| value.trim().strip_suffix(" kB"));
    Ok(kib
        .context("no SUnreclaim in /proc/meminfo")?
        .trim()
        .parse::<u64>()?
        * 1024)
}
