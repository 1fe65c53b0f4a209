//! Takes over from agents with another layout: their flows, then their place on each interface.
//!
//! Invariants: an interface is never without a fence: the new one is attached first in the chain and
//! the old one is detached after. Flows are copied before and once more after the new fence is
//! attached, so those that began in between are not lost. A copied flow decides nothing
//! ([`described_flow`]). An ABI's maps are unpinned only when none of its fences is left. Flows that
//! cannot be read are logged and cost a re-evaluation without their direction, never a fence.

use std::collections::{BTreeSet, HashMap as Flows};

use aya::{
    maps::{Array, HashMap, MapData, MapError},
    programs::{
        TcAttachType,
        links::{FdLink, LinkType, PinnedLink},
    },
};
use ringfence_common::{
    conntrack::{
        CtEntry, CtKey4, CtKey6,
        description::{DescribedMap, Description, MAGIC},
    },
    maps as names,
};
use tracing::{info, warn};

use super::{
    DatapathError, attach, batch, bridge, clsact,
    described_flow::{self, FlowKey, is_newer, is_unused},
    maps::{failed, open},
    pins::{BRIDGE, LinkPin, Pins},
};

/// The last version without a description.
const ABI6: u32 = 6;
/// `BPF_NOEXIST` and `BPF_EXIST` in `include/uapi/linux/bpf.h`.
const ONLY_NEW: u64 = 1;
const ONLY_EXISTING: u64 = 2;

/// Another ABI's pins, and how to read its flows.
struct OtherAbi {
    version: u32,
    pins: Pins,
    description: Option<Description>,
    copied: u64,
}

/// What is left of other ABIs.
pub(super) struct Migration {
    abis: Vec<OtherAbi>,
    assured4: HashMap<MapData, CtKey4, CtEntry>,
    assured6: HashMap<MapData, CtKey6, CtEntry>,
}

impl Migration {
    /// Finds the pins of other ABIs. Those without a fence are removed.
    pub(super) fn find(pins: &Pins) -> Result<Self, DatapathError> {
        let mut abis = Vec::new();
        for (version, other) in pins.other_abis()? {
            if other.linked()?.is_empty() {
                info!("removing the pins of ABI version {version}, which has no fence");
                other.remove()?;
                continue;
            }
            let description = description_of(version, &other);
            if description.is_none() {
                warn!(
                    "the flows of ABI version {version} cannot be read: those whose first packet policy no longer sees are cut where it denies replies; connections have to be opened again"
                );
            }
            abis.push(OtherAbi {
                version,
                pins: other,
                description,
                copied: 0,
            });
        }
        Ok(Self {
            abis,
            assured4: open(pins, names::CT4)?,
            assured6: open(pins, names::CT6)?,
        })
    }

    /// Interfaces with a fence of another ABI.
    pub(super) fn linked(&self) -> Result<BTreeSet<u32>, DatapathError> {
        let mut linked = BTreeSet::new();
        for abi in &self.abis {
            linked.extend(abi.pins.linked()?);
        }
        Ok(linked)
    }

    /// Copies the flows of an interface that are alive at `now` (tick clock). What a packet was
    /// already evaluated by here stays as it is.
    pub(super) fn copy(&mut self, ifindex: u32, now: u64) {
        for abi in &mut self.abis {
            let Some(description) = &abi.description else {
                continue;
            };
            let from = |name| (description, &abi.pins, name, ifindex, now);
            // In this order, because a flow may become assured, and move, while it is read.
            let copied = [
                copy(
                    &mut self.assured4,
                    from(names::CT_UNREPLIED4),
                    description.unreplied,
                ),
                copy(
                    &mut self.assured6,
                    from(names::CT_UNREPLIED6),
                    description.unreplied,
                ),
                copy(&mut self.assured4, from(names::CT4), description.assured),
                copy(&mut self.assured6, from(names::CT6), description.assured),
            ];
            for outcome in copied {
                match outcome {
                    Ok(copied) => abi.copied += copied,
                    Err(error) => warn!("flows of ABI version {}: {error}", abi.version),
                }
            }
        }
    }

    /// Detaches the fences of other ABIs from an interface. `replaced` if a clsact filter of ours took
    /// the place of theirs. Unpins the maps of an ABI whose last fence this was.
    pub(super) fn detach(
        &mut self,
        ifindex: u32,
        interface: Option<&str>,
        replaced: bool,
    ) -> Result<(), DatapathError> {
        let mut left = Vec::new();
        let mut outcome = Ok(());
        for abi in std::mem::take(&mut self.abis) {
            match abi.detach(ifindex, interface, replaced) {
                Ok(true) => info!(
                    "took over from ABI version {}, with {} flows",
                    abi.version, abi.copied
                ),
                Ok(false) => left.push(abi),
                Err(error) => {
                    left.push(abi);
                    outcome = Err(error);
                }
            }
        }
        self.abis = left;
        outcome
    }
}

impl OtherAbi {
    /// Returns whether nothing is left of it.
    fn detach(
        &self,
        ifindex: u32,
        interface: Option<&str>,
        replaced: bool,
    ) -> Result<bool, DatapathError> {
        let (here, elsewhere): (Vec<_>, Vec<_>) = self
            .pins
            .link_pins()?
            .into_iter()
            .partition(|pin| pin.ifindex == ifindex);
        for pin in &here {
            if !replaced && pin.program == BRIDGE {
                bridge::remove(ifindex, &self.pins)?;
                continue;
            }
            if !replaced && let (Some(interface), Some(hook)) = (interface, filter_hook(pin)) {
                clsact::remove_filters(interface, &pin.program, hook);
            }
            attach::remove(&pin.path)?;
        }
        if elsewhere.is_empty() {
            self.pins.remove()?;
        }
        Ok(elsewhere.is_empty())
    }
}

/// The hook of a clsact filter that a pin marks.
fn filter_hook(pin: &LinkPin) -> Option<TcAttachType> {
    let hooks = attach::HOOKS.iter().find(|(name, _)| *name == pin.program);
    let (_, hook) = hooks.filter(|_| !is_tcx_link(&pin.path))?;
    Some(*hook)
}

/// A pin is a tcx link, or the program of a clsact filter.
fn is_tcx_link(path: &std::path::Path) -> bool {
    let info = PinnedLink::from_pin(path)
        .map(FdLink::from)
        .and_then(|link| link.info());
    info.is_ok_and(|info| matches!(info.link_type(), Ok(LinkType::Tcx)))
}

fn description_of(version: u32, pins: &Pins) -> Option<Description> {
    if version == ABI6 {
        return Some(Description::ABI6);
    }
    let map: Array<MapData, Description> = open(pins, names::CT_DESCRIPTION).ok()?;
    let description = map.get(&0, 0).ok()?;
    (description.magic == MAGIC).then_some(description)
}

type Source<'a> = (&'a Description, &'a Pins, &'static str, u32, u64);

/// Copies the flows of one map; returns how many were new.
fn copy<K: FlowKey>(
    into: &mut HashMap<MapData, K, CtEntry>,
    from: Source<'_>,
    maps: [DescribedMap; 2],
) -> Result<u64, DatapathError> {
    let map = maps.get(K::FAMILY).copied().unwrap_or_default();
    let mut flows: Flows<K, CtEntry> = read(&map, from)?;
    if map.holds_keys != 0 {
        // Another CPU may be writing a slot. What is read twice is whole.
        let again: Flows<K, CtEntry> = read(&map, from)?;
        flows.retain(|key, entry| again.get(key).is_some_and(|now| now.flags == entry.flags));
    }
    let mut copied = 0;
    for (key, entry) in flows {
        match into.insert(key, entry, ONLY_NEW) {
            Ok(()) => copied += 1,
            Err(error) if exists(&error) => {
                let before = into.get(&key, 0);
                if before.is_ok_and(|before| is_unused(&before) && is_newer(&entry, &before)) {
                    // It may have been removed since.
                    let _ = into.insert(key, entry, ONLY_EXISTING);
                }
            }
            Err(error) => return Err(failed(from.2, "copy a flow")(error)),
        }
    }
    Ok(copied)
}

fn exists(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error)
        if error.io_error.kind() == std::io::ErrorKind::AlreadyExists)
}

fn read<K: FlowKey>(
    map: &DescribedMap,
    (description, pins, name, ifindex, now): Source<'_>,
) -> Result<Flows<K, CtEntry>, DatapathError> {
    let data = MapData::from_pin(pins.map(name)).map_err(failed(name, "open"))?;
    let mut flows = Flows::new();
    let walked = batch::read(&data, |key, value| {
        described_flow::read(description, map, (key, value), now, |key: K, entry| {
            if key.ifindex() == ifindex {
                flows.insert(key, entry);
            }
        });
    });
    walked.map_err(failed(name, "read the flows"))?;
    Ok(flows)
}
