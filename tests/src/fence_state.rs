//! Changes the state of a running agent's fence behind the agent's back: what would otherwise take
//! minutes of waiting.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use ringfence_common::conntrack::unreplied::{CtSet4, CtSet6};
use ringfence_common::conntrack::{CtEntry, CtKey4, CtKey6};
use ringfence_common::endpoint::Endpoint;
use ringfence_common::fragment::{FragmentKey4, FragmentKey6, FragmentPorts};
use ringfence_common::ipcache::IpcacheEntry;
use ringfence_common::maps::{
    CT_UNREPLIED4, CT_UNREPLIED6, CT_USAGE, CT_USAGE_SWEEP, CT4, CT6, DISCOVERY_LIMITS, ENDPOINTS,
    FRAG4, FRAG6, IPCACHE4, NAMESPACE_MODE, PICKUP,
};
use ringfence_common::mode::Mode;
use ringfence_common::net::Ip4;
use ringfence_common::quota::{Excess, Usage};

use crate::agent::Agent;

/// Deletes all conntrack entries, fragments, usage accounts and discovery charges, as after a long idle time. `bpffs` is
/// the agent's directory there.
pub fn forget_flows(bpffs: &Path) -> Result<()> {
    empty::<CtKey4, CtEntry>(bpffs, CT4)?;
    empty::<CtKey6, CtEntry>(bpffs, CT6)?;
    empty::<FragmentKey4, FragmentPorts>(bpffs, FRAG4)?;
    empty::<FragmentKey6, FragmentPorts>(bpffs, FRAG6)?;
    clear::<u64>(bpffs, DISCOVERY_LIMITS)?;
    forget_unreplied(bpffs)
}

/// Deletes all entries that are not assured, and the usage accounts. Of an agent before ABI version
/// 7, too, with which this build may be compared.
pub fn forget_unreplied(bpffs: &Path) -> Result<()> {
    if matches!(open(bpffs, CT_USAGE)?, Map::HashMap(_)) {
        empty::<u32, [u8; 24]>(bpffs, CT_USAGE)?;
        empty::<CtKey4, CtEntry>(bpffs, CT_UNREPLIED4)?;
        return empty::<CtKey6, CtEntry>(bpffs, CT_UNREPLIED6);
    }
    clear::<CtSet4>(bpffs, CT_UNREPLIED4)?;
    clear::<CtSet6>(bpffs, CT_UNREPLIED6)?;
    clear::<Usage>(bpffs, CT_USAGE)?;
    clear::<Excess>(bpffs, CT_USAGE_SWEEP)
}

/// Ends the pick-up window, as if the fence had existed for longer than the window. The agent is
/// restarted, because it puts right what is changed under it.
pub fn end_pickup_window(agent: &mut Agent) -> Result<()> {
    agent.kill()?;
    let mut windows: HashMap<_, u32, u32> = HashMap::try_from(open(agent.bpffs(), PICKUP)?)?;
    let interfaces: Vec<u32> = windows.keys().collect::<Result<_, _>>()?;
    // The other key is no interface.
    for interface in interfaces.into_iter().filter(|interface| *interface != 0) {
        windows.insert(interface, 1, 0)?;
    }
    agent.restart()
}

/// Rewrites every endpoint's record.
pub fn rewrite_endpoints(bpffs: &Path, rewrite: impl Fn(&mut Endpoint)) -> Result<()> {
    let mut records = array::<Endpoint>(bpffs, ENDPOINTS)?;
    for index in 0..records.len() {
        let mut record = records.get(&index, 0)?;
        if record.ifindex != 0 {
            rewrite(&mut record);
            records.set(index, record, 0)?;
        }
    }
    Ok(())
}

/// Sets every namespace's mode.
pub fn rewrite_modes(bpffs: &Path, mode: Mode) -> Result<()> {
    let mut modes = array::<u32>(bpffs, NAMESPACE_MODE)?;
    for slot in 0..modes.len() {
        if modes.get(&slot, 0)? != 0 {
            modes.set(slot, u32::from(mode as u8), 0)?;
        }
    }
    Ok(())
}

/// Gives an address the identity of another one.
pub fn copy_identity(bpffs: &Path, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
    let map = open(bpffs, IPCACHE4)?;
    let mut addresses: HashMap<_, Ip4, IpcacheEntry> = HashMap::try_from(map)?;
    let identity = addresses.get(&Ip4::from_wire(from.octets()), 0)?.identity();
    let to = Ip4::from_wire(to.octets());
    addresses.insert(to, IpcacheEntry::new(to, identity), 0)?;
    Ok(())
}

/// The pin of a map below an agent's directory on bpffs.
pub fn pin(bpffs: &Path, map: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(bpffs)? {
        let pin = entry?.path().join("maps").join(map);
        if pin.exists() {
            return Ok(pin);
        }
    }
    bail!("no map {map} below {}", bpffs.display())
}

fn open(bpffs: &Path, name: &str) -> Result<Map> {
    let map = MapData::from_pin(pin(bpffs, name)?);
    Ok(Map::from_map_data(
        map.with_context(|| format!("opening {name}"))?,
    )?)
}

fn array<V: Pod>(bpffs: &Path, name: &str) -> Result<Array<MapData, V>> {
    Ok(Array::try_from(open(bpffs, name)?)?)
}

fn clear<V: Pod + Default + PartialEq>(bpffs: &Path, name: &str) -> Result<()> {
    let mut map = array::<V>(bpffs, name)?;
    for index in 0..map.len() {
        if map.get(&index, 0)? != V::default() {
            map.set(index, V::default(), 0)?;
        }
    }
    Ok(())
}

fn empty<K: Pod, V: Pod>(bpffs: &Path, name: &str) -> Result<()> {
    let mut map: HashMap<_, K, V> = HashMap::try_from(open(bpffs, name)?)?;
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    for key in keys {
        // The agent may have removed it meanwhile.
        let _ = map.remove(&key);
    }
    Ok(())
}
