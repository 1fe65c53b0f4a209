//! Memory: what the kernel's maps and the agent take, by peers and endpoints.
//!
//! Of a map it is what the kernel says of it (`memlock` in `/proc/<pid>/fdinfo`, as `bpftool map`
//! shows it). It counts buckets, and entries at their own size: those there are of maps that grow, and
//! all of preallocated ones. It leaves out what the allocator rounds up, and nodes inside tries that
//! hold no entry, of which there are at most as many as entries. Of the agent it is what its process
//! holds, which is not the same after each start: the figures are those of one start each.

use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapInfo;
use ringfence::datapath::Pins;
use ringfence_common::maps as names;
use ringfence_testbed::{Agent, interrupt};

use crate::extent::Extent;
use crate::figures::{Figure, Unit};
use crate::report::{heading, table};
use crate::scene::{Scene, Size};

/// What maps are for. Policy memory is what grows with peers, endpoints and policies.
const PURPOSES: [(&str, &[&str]); 3] = [
    (
        "policy",
        &[
            names::ENDPOINTS,
            names::NAMESPACE_MODE,
            names::IPCACHE4,
            names::IPCACHE6,
            names::CIDR4,
            names::CIDR6,
            names::CLASSES,
            names::POLICY,
            names::IDENTITY_EPOCH,
        ],
    ),
    (
        "conntrack",
        &[
            names::CT4,
            names::CT6,
            names::CT_UNREPLIED4,
            names::CT_UNREPLIED6,
            names::CT_USAGE,
            names::CT_USAGE_SWEEP,
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
        measured.push((size, Held::by(&Scene::start(size)?)?));
    }
    print(&measured);
    Ok(figures(&measured))
}

/// What is held, in bytes.
struct Held {
    maps: Vec<(&'static str, u64)>,
    resident: u64,
    peak: u64,
}

impl Held {
    fn by(scene: &Scene) -> Result<Self> {
        let pins = Pins::below(scene.agent.bpffs());
        let mut maps = Vec::new();
        for name in names::ALL {
            maps.push((name, memlock(&MapInfo::from_pin(pins.map(name))?)?));
        }
        for name in names::ALL {
            let purposes = PURPOSES.iter().filter(|(_, maps)| maps.contains(&name));
            ensure!(purposes.count() == 1, "{name} has no purpose, or several");
        }
        Ok(Self {
            maps,
            resident: status(&scene.agent, "VmRSS")?,
            peak: status(&scene.agent, "VmHWM")?,
        })
    }

    fn of(&self, names: &[&str]) -> u64 {
        let maps = self.maps.iter().filter(|(name, _)| names.contains(name));
        maps.map(|(_, bytes)| bytes).sum()
    }
}

/// What the kernel says that a map takes.
pub(crate) fn memlock(map: &MapInfo) -> Result<u64> {
    let fd = map.fd()?;
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(value.context("no memlock in fdinfo")?.trim().parse()?)
}

/// A line of the agent's `/proc/<pid>/status`, in bytes.
fn status(agent: &Agent, key: &str) -> Result<u64> {
    let pid = agent.pid().context("the agent does not run")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.with_context(|| format!("no {key}"))?.parse::<u64>()? * 1024)
}

fn figures(measured: &[(Size, Held)]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (size, held) in measured {
        let mut push = |what: &str, bytes: u64| {
            let name = format!("memory/{what}/{}-endpoints@{}", size.endpoints, size.peers);
            figures.push(Figure::of(name, Unit::Bytes, &[bytes as f64]));
        };
        for (purpose, names) in PURPOSES {
            push(purpose, held.of(names));
        }
        push("rss", held.resident);
        push("rss-peak", held.peak);
    }
    figures
}

fn print(measured: &[(Size, Held)]) {
    heading("Memory, MB: maps as the kernel counts them, and the agent's process");
    let mut rows = Vec::new();
    for (size, held) in measured {
        let mut row = vec![size.peers.to_string(), size.endpoints.to_string()];
        row.extend(PURPOSES.map(|(_, names)| megabytes(held.of(names))));
        row.extend([held.resident, held.peak].map(megabytes));
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
    let Some((size, held)) = measured.last() else {
        return;
    };
    let (peers, endpoints) = (size.peers, size.endpoints);
    heading(&format!(
        "The maps for policy at {peers} peers and {endpoints} endpoints"
    ));
    let policy = PURPOSES.first().map_or(&[][..], |(_, names)| names);
    let of_policy = held.maps.iter().filter(|(name, _)| policy.contains(name));
    let rows: Vec<_> = of_policy
        .map(|(name, bytes)| vec![(*name).to_owned(), megabytes(*bytes)])
        .collect();
    table(&["map", "MB"], &rows);
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e6)
}
