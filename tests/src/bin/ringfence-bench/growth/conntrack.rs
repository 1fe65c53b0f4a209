//! How a packet's cost and the kernel's memory grow with connections that are established.
//!
//! One connection is opened as a packet opens it; the others are copies of its entry under their own
//! keys, because no endpoint may hold a whole table of its own.

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData, MapInfo};
use ringfence_common::conntrack::{CtEntry, CtKey4};
use ringfence_common::maps::CT4;
use ringfence_common::net::{Ip4, Port};
use ringfence_testbed::interrupt;

use super::flows::{Costs, Flows, NEW, ends};
use crate::bed::{Bed, IFINDEX, World};
use crate::frames::{ACK, SYN, tcp};
use crate::memory::memlock;

/// Frames that are kept: runs stride through the table, so that what they touch is spread over it.
const FRAMES: u32 = 65_536;
const TCP: u8 = 6;

/// One size of the table.
pub(crate) struct Size {
    pub(crate) flows: u32,
    pub(crate) costs: Costs,
    /// What the kernel says that `CT4` takes.
    pub(crate) counted: u64,
    /// By how much unreclaimable kernel memory grew while the table was filled, if it was.
    pub(crate) grown: u64,
}

/// Measures at these numbers of flows, which rise, in a table that holds the last.
pub(crate) fn measure(steps: &[u32], world: World, rounds: usize) -> Result<Vec<Size>> {
    let capacity = steps.last().copied().context("no step")?;
    let mut bed = Bed::load(vec![(CT4, capacity)])?;
    bed.publish(world)?;
    Flows::open(&mut bed, world.peers, 1)?;
    let path = bed.pins.map(CT4);
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
            table
                .insert(key, entry, 0)
                .with_context(|| format!("flow {number}"))?;
        }
        filled = flows;
        let grown = unreclaimable()?.saturating_sub(before);
        let (mut established, mut new) = (Vec::new(), Vec::new());
        let stride = flows.div_ceil(FRAMES).max(1);
        for number in (0..flows).step_by(stride as usize) {
            let (client, server) = ends(number, world.peers);
            established.push(tcp(client, server, ACK)?);
            // Fewer than an endpoint may try to open.
            if new.len() < 4096 {
                new.push(tcp((client.0, client.1 + NEW), server, SYN)?);
            }
        }
        sizes.push(Size {
            flows,
            costs: Flows::established(established, new).costs(&mut bed, rounds)?,
            counted: memlock(&MapInfo::from_pin(&path)?)?,
            grown,
        });
    }
    Ok(sizes)
}

/// The key under which a connection's entry lies.
fn key(number: u32, peers: u32) -> Result<CtKey4> {
    let (client, server) = ends(number, peers);
    let wire = |(address, port): (std::net::IpAddr, u16)| match address {
        std::net::IpAddr::V4(address) => Ok((Ip4::from_wire(address.octets()), Port::new(port))),
        std::net::IpAddr::V6(_) => anyhow::bail!("an IPv6 address in an IPv4 table"),
    };
    let (own, peer) = (wire(server)?, wire(client)?);
    Ok(CtKey4 {
        local: own.0,
        peer: peer.0,
        ifindex: IFINDEX,
        local_port: own.1,
        peer_port: peer.1,
        protocol: TCP,
        reserved: [0; 3],
    })
}

/// Kernel memory of all maps and whatever else the machine has allocated: a difference means
/// something only while nothing else goes on.
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
