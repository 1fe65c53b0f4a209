//! Memory use of the kernel's maps and of the agent, by peers and endpoints.
//!
//! The memory of a map is what the kernel reports (`memlock` in `/proc/<pid>/fdinfo`, as shown by
//! `bpftool map`): buckets, and entries at their exact size, existing ones in maps that allocate
//! entries on demand and all of them in preallocated maps. It does not include the allocator's
//! rounding, nor inner trie nodes without an entry, of which there are at most as many as entries.
//! The memory of the agent is that of its process, which varies from start to start: each figure is
//! from one start.

use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapInfo;
use ringfence::datapath::Pins;
use ringfence_common::maps as names;
use ringfence_testbed::{Agent, interrupt};

use crate::bench_node::{BenchNode, Size};
use crate::extent::Extent;
use crate::figures::{Figure, Unit};
use crate::report::{heading, table};

/// The maps by purpose. Policy memory grows with peers, endpoints and policies.
const PURPOSES: [(&str, &[&str]); 3] = [
    (
        "policy",
        &[
            names::ENDPOINT_SLOTS,
            names::ENDPOINTS,
            names::NAMESPACE_MODE,
            names::IPCACHE4,
            names::IPCACHE6,
            names::CIDR4,
            names::CIDR6,
            names::CLASSES,
            names::POLICY,
            names::IDENTITY_EPOCH,
            names::OWNERS,
            names::TABLE_NUMBERS,
            names::LOADED_PROGRAMS,
            names::STAND_IN_FOR,
        ],
    ),
    (
        "conntrack",
        &[
            names::CT4,
            names::CT6,
            names::CT_UNREPLIED4,
            names::CT_UNREPLIED6,
            names::CT_SEED,
            names::CT_DESCRIPTION,
            names::CT_SHARE,
            names::CT_USAGE,
            names::CT_USAGE_SWEEP,
            names::PICKUP,
            names::FRAG4,
            names::FRAG6,
        ],
    ),
    (
        "telemetry",
        &[
            names::RULE_HITS,
            names::DENIES,
            names::EVENTS,
            names::STATS,
            names::CLOCK,
            names::REJECT_LIMITS,
            names::DISCOVERY_LIMITS,
            names::SOLICITORS,
            names::DHCP_REQUESTS,
            names::OWN_ADDRESSES6,
        ],
    ),
];

/// Measures and prints.
pub(crate) fn measure(extent: Extent) -> Result<Vec<Figure>> {
    let goal = Size {
        peers: 10_000,
        endpoints: 30,
    };
    let sizes = match extent {
        Extent::Default => vec![goal],
        Extent::Full => [10, 10_000, 100_000]
            .into_iter()
            .flat_map(|peers| [1, 30, 100].map(|endpoints| Size { peers, endpoints }))
            .collect(),
    };
    let mut measured = Vec::new();
    for size in sizes {
        interrupt::check()?;
        measured.push((size, MemoryUse::measure(&BenchNode::start(size)?)?));
    }
    print(&measured);
    Ok(figures(&measured))
}

/// Memory use in bytes.
struct MemoryUse {
    maps: Vec<(&'static str, u64)>,
    resident: u64,
    peak: u64,
}

impl MemoryUse {
    fn measure(bench: &BenchNode) -> Result<Self> {
        let pins = Pins::below(bench.agent.bpffs());
        let mut maps = Vec::new();
        for name in names::ALL {
            maps.push((name, memlock(&MapInfo::from_pin(pins.map(name))?)?));
        }
        for name in names::ALL {
            let purposes = PURPOSES.iter().filter(|(_, maps)| maps.contains(&name));
            ensure!(
                purposes.count() == 1,
                "{name} must have exactly one purpose"
            );
        }
        Ok(Self {
            maps,
            resident: status(&bench.agent, "VmRSS")?,
            peak: status(&bench.agent, "VmHWM")?,
        })
    }

    fn of(&self, names: &[&str]) -> u64 {
        let maps = self.maps.iter().filter(|(name, _)| names.contains(name));
        maps.map(|(_, bytes)| bytes).sum()
    }
}

/// The memory of a map as the kernel reports it.
pub(crate) fn memlock(map: &MapInfo) -> Result<u64> {
    let fd = map.fd()?;
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(value.context("no memlock in fdinfo")?.trim().parse()?)
}

/// A value of the agent's `/proc/<pid>/status`, in bytes.
fn status(agent: &Agent, key: &str) -> Result<u64> {
    let pid = agent.pid().context("the agent is not running")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib
        .with_context(|| format!("no {key} in /proc/<pid>/status"))?
        .parse::<u64>()?
        * 1024)
}

fn figures(measured: &[(Size, MemoryUse)]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (size, used) in measured {
        let mut push = |what: &str, bytes: u64| {
            let name = format!("memory/{what}/{}-endpoints@{}", size.endpoints, size.peers);
            figures.push(Figure::of(name, Unit::Bytes, &[bytes as f64]));
        };
        for (purpose, names) in PURPOSES {
            push(purpose, used.of(names));
        }
        push("rss", used.resident);
        push("rss-peak", used.peak);
    }
    figures
}

fn print(measured: &[(Size, MemoryUse)]) {
    heading("Memory, MB: maps as the kernel reports them, and the agent's process");
    let mut rows = Vec::new();
    for (size, used) in measured {
        let mut row = vec![size.peers.to_string(), size.endpoints.to_string()];
        row.extend(PURPOSES.map(|(_, names)| megabytes(used.of(names))));
        row.extend([used.resident, used.peak].map(megabytes));
        rows.push(row);
    }
    let head = [
        "peers",
        "endpoints",
        "policy",
        "conntrack",
        "telemetry",
        "resident",
        "peak",
    ];
    table(&head, &rows);
    let Some((size, used)) = measured.last() else {
        return;
    };
    let (peers, endpoints) = (size.peers, size.endpoints);
    heading(&format!(
        "Policy maps at {peers} peers and {endpoints} endpoints"
    ));
    let policy = PURPOSES.first().map_or(&[][..], |(_, names)| names);
    let of_policy = used.maps.iter().filter(|(name, _)| policy.contains(name));
    let rows: Vec<_> = of_policy
        .map(|(name, bytes)| vec![(*name).to_owned(), megabytes(*bytes)])
        .collect();
    table(&["map", "MB"], &rows);
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::{PURPOSES, names};

    #[test]
    fn every_map_has_exactly_one_purpose() {
        for name in names::ALL {
            let purposes = PURPOSES.iter().filter(|(_, maps)| maps.contains(&name));
            assert_eq!(purposes.count(), 1, "{name}");
        }
    }
}
