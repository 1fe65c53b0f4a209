//! Makes the pins of a stopped agent those of an agent with another layout: its fence stays
//! attached and continues with the same maps.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use ringfence_common::ABI_VERSION;
use ringfence_common::conntrack::CtEntry;
use ringfence_common::conntrack::description::{Bit, DescribedMap, Description, Field};
use ringfence_common::conntrack::unreplied::{CtSet4, CtSet6};
use ringfence_common::maps::{CT_DESCRIPTION, CT_UNREPLIED4, CT_UNREPLIED6, CT4, CT6};

/// A layout that this build does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherLayout {
    /// A newer version that changed something else: its conntrack maps are those in use.
    NewerUnchanged,
    /// A newer version with fields elsewhere in the entry, which is longer, and without sets.
    NewerMoved,
    /// ABI version 6, which has no description.
    Six,
}

impl OtherLayout {
    /// Its ABI version.
    #[must_use]
    pub const fn version(self) -> u32 {
        match self {
            Self::NewerUnchanged | Self::NewerMoved => ABI_VERSION + 1,
            Self::Six => 6,
        }
    }
}

/// Renames the pins below an agent's directory on bpffs, and puts conntrack maps of the layout with
/// the present entries in place of those in use. Returns how many entries there are.
pub fn disguise(bpffs: &Path, layout: OtherLayout) -> Result<usize> {
    let dir = bpffs.join(format!("v{}", layout.version()));
    fs::rename(bpffs.join(format!("v{ABI_VERSION}")), &dir)?;
    let maps = dir.join("maps");
    let flows4 = flows(&maps, [CT4, CT_UNREPLIED4], |set: &CtSet4| {
        let ways = set.words.iter().zip(&set.ways);
        let used = ways.filter(|(word, _)| word.0 != 0);
        used.map(|(_, way)| (way.key, way.entry)).collect()
    })?;
    let flows6 = flows(&maps, [CT6, CT_UNREPLIED6], |set: &CtSet6| {
        let ways = set.words.iter().zip(&set.ways);
        let used = ways.filter(|(word, _)| word.0 != 0);
        used.map(|(_, way)| (way.key, way.entry)).collect()
    })?;
    let count =
        flows4.iter().map(Vec::len).sum::<usize>() + flows6.iter().map(Vec::len).sum::<usize>();
    match layout {
        OtherLayout::NewerUnchanged => {}
        OtherLayout::NewerMoved => {
            let pinned = MapData::from_pin(maps.join(CT_DESCRIPTION))?;
            let mut description: Array<_, Description> =
                Array::try_from(Map::from_map_data(pinned)?)?;
            let written = description.get(&0, 0)?;
            ensure!(written == Description::OWN, "{written:?}");
            description.set(0, moved_description(), 0)?;
            write(&maps, [CT4, CT_UNREPLIED4], &flows4, moved)?;
            write(&maps, [CT6, CT_UNREPLIED6], &flows6, moved)?;
        }
        OtherLayout::Six => {
            fs::remove_file(maps.join(CT_DESCRIPTION))?;
            write(&maps, [CT4, CT_UNREPLIED4], &flows4, six)?;
            write(&maps, [CT6, CT_UNREPLIED6], &flows6, six)?;
        }
    }
    Ok(count)
}

type Flows<K> = [Vec<(K, CtEntry)>; 2];

fn open(pin: &Path) -> Result<Map> {
    let map = MapData::from_pin(pin).with_context(|| format!("opening {}", pin.display()))?;
    Ok(Map::from_map_data(map)?)
}

/// The assured and the other entries.
fn flows<K: Pod, S: Pod>(
    maps: &Path,
    [assured, unreplied]: [&str; 2],
    ways: impl Fn(&S) -> Vec<(K, CtEntry)>,
) -> Result<Flows<K>> {
    let hash: HashMap<_, K, CtEntry> = HashMap::try_from(open(&maps.join(assured))?)?;
    let sets: Array<_, S> = Array::try_from(open(&maps.join(unreplied))?)?;
    let mut others = Vec::new();
    for set in sets.iter() {
        others.extend(ways(&set?));
    }
    Ok([hash.iter().collect::<Result<_, _>>()?, others])
}

/// Pins hashes with these entries instead of the maps in use.
fn write<K: Pod, V: Pod>(
    maps: &Path,
    names: [&str; 2],
    flows: &Flows<K>,
    entry: impl Fn(&CtEntry) -> V,
) -> Result<()> {
    for (name, flows) in names.into_iter().zip(flows) {
        let mut map = HashMap::<MapData, K, V>::create(65_536, 0)?;
        for (key, own) in flows {
            map.insert(key, entry(own), 0)?;
        }
        let pin = maps.join(name);
        fs::remove_file(&pin)?;
        map.pin(&pin)?;
    }
    Ok(())
}

/// An entry of ABI version 6, written as its source lays it out.
fn six(own: &CtEntry) -> [u8; 64] {
    let mut entry = [0; 64];
    copy(&mut entry, 0, &own.expires.to_ne_bytes());
    copy(&mut entry, 8, &own.recheck.to_ne_bytes());
    copy(&mut entry, 40, &own.table.0.to_ne_bytes());
    copy(&mut entry, 44, &own.epoch.to_ne_bytes());
    let flags = own.flags & 31;
    copy(
        &mut entry,
        56,
        &[own.verdicts & 3, own.state.bits(), flags, own.reason],
    );
    entry
}

/// An entry of a layout to come: the flags first, expiry and state at the end.
fn moved(own: &CtEntry) -> [u8; 80] {
    let mut entry = [0xee; 80];
    copy(&mut entry, 0, &[own.flags.reverse_bits()]);
    copy(&mut entry, 60, &own.originator_seen.to_ne_bytes());
    copy(&mut entry, 64, &own.expires.to_ne_bytes());
    copy(&mut entry, 72, &[own.state.bits().reverse_bits()]);
    entry
}

fn moved_description() -> Description {
    let own = Description::OWN;
    let reversed = |bit: Bit| {
        let [mask, _] = bit.mask.to_le_bytes();
        Bit {
            at: 0,
            mask: u16::from(mask.reverse_bits()),
        }
    };
    let mut entry = own.entry;
    entry.expires = Field { at: 64, size: 8 };
    entry.originator_seen = Field { at: 60, size: 4 };
    for (at, bit) in entry.state.iter_mut().enumerate() {
        *bit = Bit {
            at: 72,
            mask: 128 >> at,
        };
    }
    entry.from_workload = reversed(entry.from_workload);
    entry.host_ingress = reversed(entry.host_ingress);
    entry.picked_up = reversed(entry.picked_up);
    entry.was_allowed = reversed(entry.was_allowed);
    let [mut plain, _] = own.assured;
    plain.stride = 80;
    Description {
        entry,
        assured: [plain; 2],
        unreplied: [DescribedMap { ..plain }; 2],
        ..own
    }
}

fn copy(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(part) = into.get_mut(at..at + bytes.len()) {
        part.copy_from_slice(bytes);
    }
}
