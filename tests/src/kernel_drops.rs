//! Frames that the kernel itself dropped, from its counters: nothing is inferred from what is
//! missing.
//!
//! The places where a frame can be lost without the fence are
//! - a veth link: if the per-CPU backlog (`net.core.netdev_max_backlog`) is full, the receiving
//!   interface counts it in `rx_dropped`, the sending one in `tx_dropped`, and the machine in
//!   `/proc/net/softnet_stat`; a packet socket that sends on that link gets `ENOBUFS` (since Linux
//!   6.6) and can send the frame again;
//! - a bridge that cannot copy a frame: `tx_dropped` of the bridge;
//! - a packet socket whose receive buffer is full: `tp_drops` of `PACKET_STATISTICS`.
//!
//! An interface also counts frames that it refuses because of what they are (longer than its MTU,
//! say), each time they are sent. `softnet_stat` tells a full backlog from these, but counts for the
//! whole machine. A drop is therefore a drop of the backlog only if both counted it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};

use crate::netns::NetNs;

/// Packets that one interface counted as dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceDrops {
    /// `rx_dropped`, with `rx_missed_errors`.
    pub received: u64,
    /// `tx_dropped`.
    pub sent: u64,
}

/// The interface counters of a network namespace.
#[derive(Debug)]
pub struct Devices(File);

impl Devices {
    /// Opens the counters; the handle stays in the namespace.
    pub fn open(ns: &NetNs) -> Result<Self> {
        let file = ns.run(|| File::open("/proc/thread-self/net/dev"))?;
        Ok(Self(file.context("opening /proc/net/dev")?))
    }

    /// Reads all interfaces.
    pub fn read(&self) -> Result<BTreeMap<String, DeviceDrops>> {
        let mut text = Vec::new();
        let mut part = vec![0; 16_384];
        loop {
            let length = self.0.read_at(&mut part, u64::try_from(text.len())?);
            let length = length.context("reading /proc/net/dev")?;
            if length == 0 {
                return Ok(parse_devices(&String::from_utf8_lossy(&text)));
            }
            text.extend_from_slice(part.get(..length).unwrap_or_default());
        }
    }
}

/// Columns: bytes, packets, errors, *drop*, fifo, frame, compressed, multicast; then the same for
/// sending.
fn parse_devices(text: &str) -> BTreeMap<String, DeviceDrops> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, columns)| {
            let number = |column: Option<&str>| column.and_then(|text| text.parse().ok());
            let mut columns = columns.split_whitespace();
            let drops = DeviceDrops {
                received: number(columns.nth(3)).unwrap_or(0),
                sent: number(columns.nth(7)).unwrap_or(0),
            };
            (name.trim().to_owned(), drops)
        })
        .collect()
}

/// Packets that the backlogs of all CPUs dropped since the machine started, in every network namespace.
pub fn backlog_drops() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/net/softnet_stat");
    Ok(parse_backlogs(
        &text.context("reading /proc/net/softnet_stat")?,
    ))
}

/// One line for each CPU; the second column is the number of drops in hexadecimal.
fn parse_backlogs(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok())
        .sum()
}

/// Counted drops by place, at a moment or between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelDrops {
    /// Drops of interfaces, for whatever reason, by the name of the counter.
    links: BTreeMap<String, u64>,
    /// Drops of all backlogs of the machine.
    backlogs: u64,
    /// Other drops, by the name of the counter.
    others: BTreeMap<String, u64>,
}

impl KernelDrops {
    /// No drops yet at any place; `backlogs` as [`backlog_drops`] returns it.
    #[must_use]
    pub const fn new(backlogs: u64) -> Self {
        Self {
            links: BTreeMap::new(),
            backlogs,
            others: BTreeMap::new(),
        }
    }

    /// Adds a veth link, from the two ends' counters. Each drop is counted at both ends, if the
    /// kernel does so, but is one drop. Of these, `returned` were reported to the sender, which
    /// sent the frames again.
    pub fn link(&mut self, name: &str, sender: DeviceDrops, receiver: DeviceDrops, returned: u64) {
        let drops = sender.sent.max(receiver.received).saturating_sub(returned);
        add(&mut self.links, &format!("rx_dropped of {name}"), drops);
    }

    /// Adds a bridge.
    pub fn bridge(&mut self, name: &str, bridge: DeviceDrops) {
        let name = format!("tx_dropped of {name}");
        add(&mut self.others, &name, bridge.sent);
    }

    /// Adds the receive buffer of a packet socket.
    pub fn receive_buffer(&mut self, name: &str, drops: u64) {
        let name = format!("tp_drops of the tap at {name}");
        add(&mut self.others, &name, drops);
    }

    /// The drops between an earlier reading and this one, without places that have none.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            links: difference(&self.links, &before.links),
            backlogs: self.backlogs.saturating_sub(before.backlogs),
            others: difference(&self.others, &before.others),
        }
    }

    /// Adds the drops at other places, or at the same places in another period.
    pub fn add(&mut self, other: &Self) {
        for (name, drops) in &other.links {
            add(&mut self.links, name, *drops);
        }
        for (name, drops) in &other.others {
            add(&mut self.others, name, *drops);
        }
        self.backlogs = self.backlogs.max(other.backlogs);
    }

    /// Frames that full queues and buffers dropped at these places.
    #[must_use]
    pub fn total(&self) -> u64 {
        let links: u64 = self.links.values().sum();
        links.min(self.backlogs) + self.others.values().sum::<u64>()
    }
}

type Counts = BTreeMap<String, u64>;

fn add(counts: &mut Counts, name: &str, more: u64) {
    *counts.entry(name.to_owned()).or_default() += more;
}

fn difference(after: &Counts, before: &Counts) -> Counts {
    let more = after.iter().filter_map(|(name, count)| {
        let more = count.saturating_sub(before.get(name).copied().unwrap_or(0));
        (more > 0).then(|| (name.clone(), more))
    });
    more.collect()
}

impl fmt::Display for KernelDrops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.total() == 0 {
            return f.write_str("none");
        }
        write!(f, "backlogs +{}", self.backlogs)?;
        let mut places = self.links.iter().chain(&self.others);
        places.try_for_each(|(name, drops)| write!(f, ", {name} +{drops}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "Inter-|   Receive                            |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes ...\n \
        eth0: 1 2 3 40 5 6 7 8 9 10 11 120 13 14 15 16\n    lo:0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";

    #[test]
    fn counters_of_interfaces_and_backlogs_are_parsed() {
        let devices = parse_devices(DEV);
        let eth0 = DeviceDrops {
            received: 40,
            sent: 120,
        };
        assert_eq!(devices.get("eth0"), Some(&eth0));
        assert_eq!(devices.get("lo"), Some(&DeviceDrops::default()));
        assert_eq!(devices.len(), 2);
        assert_eq!(
            parse_backlogs("006d8953 00000001 00000000\n1c54319e 00000010 0000000b\n"),
            17
        );
    }

    #[test]
    fn a_drop_counted_at_both_ends_of_a_link_is_one_and_returned_frames_are_none() {
        let drops = |received, sent| DeviceDrops { received, sent };
        let before = KernelDrops::new(5);
        let mut after = KernelDrops::new(9);
        after.link("eth0", drops(0, 7), drops(7, 0), 3);
        after.link("quiet", drops(0, 2), drops(2, 0), 2);
        after.bridge("br0", drops(50, 1));
        after.receive_buffer("eth0", 2);
        let between = after.since(&before);
        assert_eq!(between.total(), 4 + 1 + 2);
        assert_eq!(
            between.to_string(),
            "backlogs +4, rx_dropped of eth0 +4, tp_drops of the tap at eth0 +2, \
             tx_dropped of br0 +1"
        );
        assert_eq!(after.since(&after).to_string(), "none");
    }

    #[test]
    fn what_an_interface_refuses_is_no_drop_of_a_queue() {
        let refused = DeviceDrops {
            received: 7,
            sent: 7,
        };
        for (backlogs, dropped) in [(0, 0), (3, 3), (100, 7)] {
            let mut drops = KernelDrops::new(backlogs);
            drops.link("eth0", refused, refused, 0);
            assert_eq!(drops.total(), dropped);
        }
    }

    #[test]
    fn the_counters_of_a_new_namespace_are_its_own() {
        let devices = Devices::open(&NetNs::new().unwrap()).unwrap();
        let names: Vec<_> = devices.read().unwrap().into_keys().collect();
        assert_eq!(names, ["lo"]);
        backlog_drops().unwrap();
    }
}
