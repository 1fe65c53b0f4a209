//! What a network counts: frames that the kernel dropped on the way, by direction, and frames that
//! the fence denied, by reason.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use ringfence_common::drop_reason::DropReason;
use ringfence_common::maps::STATS;
use ringfence_common::mode::Action;
use ringfence_common::stats::{Counter, of_reason};

use super::{Fence, Network};
use crate::attack::fixture::Direction;
use crate::fence_state::pin;
use crate::kernel_drops::{DeviceDrops, Devices, KernelDrops, backlog_drops};
use crate::{Agent, NetNs};

/// Packets by drop reason.
pub type Denials = BTreeMap<&'static str, u64>;

/// Packets that a rule rejects, by what became of their reject packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejects {
    /// Sent.
    pub sent: u64,
    /// Over the limit.
    pub limited: u64,
    /// None may be sent, or it could not be.
    pub failed: u64,
}

impl Rejects {
    /// The increase since an earlier reading.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            sent: self.sent.wrapping_sub(before.sent),
            limited: self.limited.wrapping_sub(before.limited),
            failed: self.failed.wrapping_sub(before.failed),
        }
    }
}

/// All counters of a network, at a moment or between two.
#[derive(Clone, Debug)]
pub struct Counters {
    out: KernelDrops,
    into: KernelDrops,
    /// Packets that the fence dropped, or would have dropped if it enforced.
    pub denials: Denials,
    /// What became of the packets that a rule rejects.
    pub rejects: Rejects,
}

impl Counters {
    /// What the kernel dropped on the way out and in, and what the fence denied.
    #[must_use]
    pub const fn new(out: KernelDrops, into: KernelDrops, denials: Denials) -> Self {
        let rejects = Rejects {
            sent: 0,
            limited: 0,
            failed: 0,
        };
        Self {
            out,
            into,
            denials,
            rejects,
        }
    }

    /// What the kernel dropped on the way of frames of a direction.
    #[must_use]
    pub const fn kernel(&self, direction: Direction) -> &KernelDrops {
        match direction {
            Direction::Out => &self.out,
            Direction::In => &self.into,
        }
    }

    /// The increase since an earlier reading.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let more = self.denials.iter().filter_map(|(reason, count)| {
            let more = count - before.denials.get(reason).unwrap_or(&0);
            (more > 0).then_some((*reason, more))
        });
        Self {
            out: self.out.since(&before.out),
            into: self.into.since(&before.into),
            denials: more.collect(),
            rejects: self.rejects.since(&before.rejects),
        }
    }
}

/// Handles of the counters of one network.
pub(super) struct Handles {
    node: Devices,
    workload: Devices,
    outside: Devices,
    fence: Option<(PerCpuArray<MapData, u64>, Action)>,
}

impl fmt::Debug for Handles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handles").finish_non_exhaustive()
    }
}

impl Handles {
    pub(super) fn open(
        [node, workload, outside]: [&NetNs; 3],
        agent: Option<(&Agent, Fence)>,
    ) -> Result<Self> {
        let fence = agent.map(|(agent, fence)| -> Result<_> {
            let map =
                MapData::from_pin(pin(agent.bpffs(), STATS)?).context("opening the counters")?;
            let action = match fence {
                Fence::Absent | Fence::Enforce => Action::Drop,
                Fence::Observe => Action::Pass,
            };
            Ok((PerCpuArray::try_from(Map::PerCpuArray(map))?, action))
        });
        Ok(Self {
            node: Devices::open(node)?,
            workload: Devices::open(workload)?,
            outside: Devices::open(outside)?,
            fence: fence.transpose()?,
        })
    }

    fn denials(&self) -> Result<Denials> {
        let Some((stats, action)) = &self.fence else {
            return Ok(Denials::new());
        };
        let count = |reason: &DropReason| -> Result<_> {
            let values = stats.get(&of_reason(*reason, *action), 0)?;
            Ok((reason.name(), values.iter().sum()))
        };
        DropReason::ALL.iter().map(count).collect()
    }
}

impl Network {
    /// What became of reject packets so far.
    pub fn rejects(&self) -> Result<Rejects> {
        let Some((stats, _)) = &self.handles.fence else {
            return Ok(Rejects::default());
        };
        let count =
            |counter: Counter| -> Result<u64> { Ok(stats.get(&(counter as u32), 0)?.iter().sum()) };
        Ok(Rejects {
            sent: count(Counter::RejectsSent)?,
            limited: count(Counter::RejectsLimited)?,
            failed: count(Counter::RejectsFailed)?,
        })
    }

    /// Reads all counters.
    pub fn counters(&self) -> Result<Counters> {
        let Handles {
            node,
            workload,
            outside,
            ..
        } = &self.handles;
        let (node, workload, outside) = (node.read()?, workload.read()?, outside.read()?);
        let of = |devices: &BTreeMap<String, DeviceDrops>, name: &str| {
            devices.get(name).copied().unwrap_or_default()
        };
        let ends = [("workload", &workload), ("outside", &outside)];
        let backlogs = backlog_drops()?;
        let along = |direction: Direction| -> Result<KernelDrops> {
            let mut drops = KernelDrops::new(backlogs);
            let [(from, sender), (to, receiver)] = match direction {
                Direction::Out => ends,
                Direction::In => [ends[1], ends[0]],
            };
            let (entry, exit) = (format!("rf-{from}"), format!("rf-{to}"));
            let returned = self.sender(direction).returned();
            drops.link(&entry, of(sender, "eth0"), of(&node, &entry), returned);
            drops.bridge("br0", of(&node, "br0"));
            let eth0 = format!("eth0 of {to}");
            drops.link(&eth0, of(&node, &exit), of(receiver, "eth0"), 0);
            drops.receive_buffer(&eth0, self.target(direction).buffer_drops()?);
            Ok(drops)
        };
        Ok(Counters {
            out: along(Direction::Out)?,
            into: along(Direction::In)?,
            denials: self.handles.denials()?,
            rejects: self.rejects()?,
        })
    }
}
