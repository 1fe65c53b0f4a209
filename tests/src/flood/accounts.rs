//! Accounts for every frame of a flood: it arrived, the fence counted it as dropped, or a queue of
//! the kernel did. Nothing is put down to a busy machine without a counter.

use std::collections::BTreeMap;

use anyhow::Result;

use super::counter::Counter;
use crate::kernel_drops::{Devices, KernelDrops, backlog_drops};
use crate::topology::Workload;
use crate::{Agent, NetNs};

/// What the counters say, at a moment or between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Frames of the flood that arrived where policy allows.
    pub delivered: u64,
    /// Frames of the flood that arrived although policy denies them.
    pub leaked: u64,
    /// Packets that the fence counted as dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Frames that the kernel's queues dropped.
    pub kernel: KernelDrops,
}

impl Accounts {
    /// All packets that the fence dropped.
    #[must_use]
    pub fn all_dropped(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Frames sent that appear nowhere; less than zero if more was counted than sent.
    #[must_use]
    pub fn unaccounted(&self, sent: u64) -> i128 {
        let counted = self.delivered + self.leaked + self.all_dropped() + self.kernel.total();
        i128::from(sent) - i128::from(counted)
    }

    fn since(&self, before: &Self) -> Self {
        let more = self.dropped.iter().filter_map(|(reason, count)| {
            let more = count - before.dropped.get(reason).unwrap_or(&0);
            (more > 0).then(|| (reason.clone(), more))
        });
        Self {
            delivered: self.delivered - before.delivered,
            leaked: self.leaked - before.leaked,
            dropped: more.collect(),
            kernel: self.kernel.since(&before.kernel),
        }
    }
}

/// A workload whose interface sends or receives frames of the flood.
struct Place {
    interface: String,
    /// Frames that its senders got back from a full queue.
    returned: u64,
    forbidden: bool,
    devices: Devices,
    counter: Counter,
}

/// The open counters of a test bed.
pub(super) struct Ledger {
    node: Devices,
    places: Vec<Place>,
    start: Accounts,
}

impl Ledger {
    /// Starts to count; the last workload is the one that the flooders must not reach. Nothing of
    /// the flood may be on its way.
    pub(super) fn open(
        node: &NetNs,
        workloads: &[&Workload],
        receive_buffer: usize,
        agent: &Agent,
    ) -> Result<Self> {
        let place = |(number, workload): (usize, &&Workload)| {
            Ok(Place {
                interface: workload.interface.clone(),
                returned: 0,
                forbidden: number + 1 == workloads.len(),
                devices: Devices::open(&workload.ns)?,
                counter: Counter::open(&workload.ns, receive_buffer)?,
            })
        };
        let mut ledger = Self {
            node: Devices::open(node)?,
            places: workloads
                .iter()
                .enumerate()
                .map(place)
                .collect::<Result<_>>()?,
            start: Accounts::default(),
        };
        ledger.start = ledger.read(agent)?;
        Ok(ledger)
    }

    /// Notes frames that a full queue returned to a sender at this place.
    pub(super) fn returned(&mut self, place: usize, frames: u64) {
        if let Some(place) = self.places.get_mut(place) {
            place.returned += frames;
        }
    }

    /// The frames that have arrived at the forbidden workload.
    pub(super) fn leaked(&self) -> u64 {
        let forbidden = self.places.iter().filter(|place| place.forbidden);
        forbidden.map(|place| place.counter.seen()).sum()
    }

    /// What has been counted since the start.
    pub(super) fn counted(&self, agent: &Agent) -> Result<Accounts> {
        Ok(self.read(agent)?.since(&self.start))
    }

    /// Ends the count.
    pub(super) fn close(self) -> Result<()> {
        self.places
            .into_iter()
            .try_for_each(|place| place.counter.close())
    }

    fn read(&self, agent: &Agent) -> Result<Accounts> {
        let dropped = drops(&agent.metrics()?);
        let mut accounts = Accounts {
            dropped,
            kernel: KernelDrops::new(backlog_drops()?),
            ..Accounts::default()
        };
        let node = self.node.read()?;
        for place in &self.places {
            let seen = place.counter.seen();
            if place.forbidden {
                accounts.leaked += seen;
            } else {
                accounts.delivered += seen;
            }
            let host = node.get(&place.interface).copied().unwrap_or_default();
            let own = place.devices.read()?;
            let own = own.get("eth0").copied().unwrap_or_default();
            let (kernel, interface) = (&mut accounts.kernel, &place.interface);
            kernel.link(interface, own, host, place.returned);
            kernel.link(&format!("eth0 behind {interface}"), host, own, 0);
            kernel.receive_buffer(interface, place.counter.dropped()?);
        }
        Ok(accounts)
    }
}

/// The packets that an agent counts as dropped, from its metrics.
fn drops(page: &str) -> BTreeMap<String, u64> {
    let lines = page.lines().filter(|line| {
        line.starts_with("ringfence_drops_total{") && line.contains("action=\"dropped\"")
    });
    lines
        .filter_map(|line| {
            let (labels, count) = line.rsplit_once(' ')?;
            let reason = labels.split("reason=\"").nth(1)?.split('"').next()?;
            Some((reason.to_owned(), count.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_no_counter_has_is_unaccounted_for() {
        let mut kernel = KernelDrops::new(0);
        kernel.receive_buffer("eth0", 3);
        let accounts = Accounts {
            delivered: 10,
            leaked: 1,
            dropped: BTreeMap::from([("policy".to_owned(), 5)]),
            kernel,
        };
        for (sent, unaccounted) in [(19, 0), (20, 1), (18, -1)] {
            assert_eq!(accounts.unaccounted(sent), unaccounted);
        }
    }

    #[test]
    fn dropped_packets_are_read_by_reason() {
        let page = "# HELP ringfence_drops_total x\n\
            ringfence_drops_total{action=\"dropped\",reason=\"policy\"} 7\n\
            ringfence_drops_total{action=\"observed\",reason=\"policy\"} 9\n\
            ringfence_drops_total{action=\"dropped\",reason=\"flow-limit\"} 2\n";
        let expected = [("flow-limit", 2), ("policy", 7)];
        let read = drops(page);
        let read: Vec<_> = read.iter().map(|(r, n)| (r.as_str(), *n)).collect();
        assert_eq!(read, expected);
    }
}
