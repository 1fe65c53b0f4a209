//! The control plane: the time from a request to its effect on packets, p50 and p99.
//!
//! A request to Ringfence is the rename of a file that the real agent watches; one to nftables is a
//! run of `nft`. Both are measured by the same [`probe`]. The effect of every request is asserted:
//! no datagram with the new verdict before it, none with the old one after it. Memory is measured
//! elsewhere.

mod all_peers;
mod full_node;
mod nftables;
mod probe;
mod requests;
mod series;
mod starts;

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use self::nftables::Firewall;
use self::probe::Probe;
use self::series::Series;
use crate::bench_node::{BenchNode, Network, Size};
use crate::extent::Extent;
use crate::figures::Figure;
use crate::report::{heading, line, table};

impl Network {
    /// Opens a flow to the target from this address.
    fn probe(&self, from: IpAddr) -> Result<Probe> {
        Probe::open(&self.outside, &self.target, from)
    }
}

const PEERS: u32 = 10_000;
const FEW_PEERS: u32 = 10;
/// Number of requests that take longer: enough for medians, not for percentiles.
const FEW: usize = 20;
const STARTS: usize = 5;
/// While a qdisc is added for filters that precede links, packets are lost, which a probe takes for a
/// verdict. [`full_node`] measures starts with and without.
const LINKS_ONLY: &str = "attach-bridge = false\n";
/// Local workloads: the number of pods of a node in the goals.
const ENDPOINTS: u32 = 30;

/// Measures and prints.
pub(crate) fn measure(extent: Extent) -> Result<Vec<Figure>> {
    let sizes = extent.of(&[PEERS][..], &[PEERS, FEW_PEERS][..]);
    let mut figures = Vec::new();
    for peers in sizes.iter().copied() {
        figures.extend(ringfence(peers, extent)?);
        if extent == Extent::Full && peers == PEERS {
            figures.extend(full_node::measure(peers, STARTS)?);
        }
        figures.extend(nftables(peers, extent)?);
    }
    Ok(figures)
}

fn ringfence(peers: u32, extent: Extent) -> Result<Vec<Figure>> {
    let size = Size {
        peers,
        endpoints: ENDPOINTS,
    };
    let mut bench = BenchNode::start_with(size, LINKS_ONLY)?;
    let mut figures = Vec::new();
    if extent == Extent::Full {
        figures.extend(starts::measure(&mut bench, STARTS)?);
    }
    let mut measured = Vec::new();
    let done = requests(&bench, extent, &mut measured);
    // Prints what was measured even if something failed.
    print(&measured);
    done.with_context(|| format!("the agent's last output:\n{}", bench.last_output()))?;
    figures.extend(measured.iter().flat_map(Series::figures));
    Ok(figures)
}

fn requests(bench: &BenchNode, extent: Extent, measured: &mut Vec<Series>) -> Result<()> {
    let times = extent.of(40, 100);
    measured.extend(requests::policy_change(bench, times, extent.of(0, times))?);
    if extent == Extent::Full {
        measured.extend(requests::workload(bench, times, FEW)?);
        measured.push(requests::endpoint(bench, times)?);
        measured.push(requests::crowd(bench, FEW, 100)?);
        measured.push(requests::crowd(bench, FEW, 1000)?);
    }
    measured.push(requests::from_empty(bench, extent.of(14, FEW))?);
    Ok(())
}

fn nftables(peers: u32, extent: Extent) -> Result<Vec<Figure>> {
    let firewall = Firewall::start(peers)?;
    let spawn = firewall.spawn(extent.of(20, 100))?;
    let measured = [
        firewall.element(extent.of(40, 100))?,
        firewall.replacement(extent.of(4, FEW))?,
    ];
    print(&measured);
    line(&format!(
        "  Of each, {:.2} ms are the start of nft.",
        spawn.median
    ));
    let mut figures: Vec<Figure> = measured.iter().flat_map(Series::figures).collect();
    figures.push(spawn);
    Ok(figures)
}

fn print(measured: &[Series]) {
    heading("From a request to the first packet with the new verdict");
    let rows: Vec<_> = measured.iter().flat_map(Series::rows).collect();
    let head = ["request", "to", "times", "p50", "p90", "p99", "worst"];
    table(&head, &rows);
}
