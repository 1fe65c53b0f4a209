//! The control plane: from a request to its effect on the wire, p50 and p99.
//!
//! A request to Ringfence is the rename of a file that the real agent watches; one to nftables is a
//! run of `nft`. Both are seen by the same [`probe`]. Every request is asserted to have had its effect:
//! no datagram with the new verdict before, none with the old one after. Sizes of what the agent
//! and the kernel hold are measured elsewhere.

mod everyone;
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
use crate::extent::Extent;
use crate::figures::Figure;
use crate::report::{heading, line, table};
use crate::scene::{Scene, Size, Wires};

impl Wires {
    /// A flow to the target from this address.
    fn probe(&self, from: IpAddr) -> Result<Probe> {
        Probe::open(&self.outside, &self.target, from)
    }
}

const PEERS: u32 = 10_000;
const FEW_PEERS: u32 = 10;
/// What takes longer is asked less often: medians, and no tails.
const FEW: usize = 20;
const STARTS: usize = 5;
/// As many workloads here as a node has pods in the goals.
const ENDPOINTS: u32 = 30;

/// Measures and prints.
pub(crate) fn measure(extent: Extent) -> Result<Vec<Figure>> {
    let sizes = extent.of(&[PEERS][..], &[PEERS, FEW_PEERS][..]);
    let mut figures = Vec::new();
    for peers in sizes.iter().copied() {
        figures.extend(ringfence(peers, extent)?);
        figures.extend(nftables(peers, extent)?);
    }
    Ok(figures)
}

fn ringfence(peers: u32, extent: Extent) -> Result<Vec<Figure>> {
    let mut scene = Scene::start(Size {
        peers,
        endpoints: ENDPOINTS,
    })?;
    let mut figures = Vec::new();
    if extent == Extent::Full {
        figures.extend(starts::measure(&mut scene, STARTS)?);
    }
    let mut measured = Vec::new();
    let done = requests(&scene, extent, &mut measured);
    // What was measured before something failed is worth knowing too.
    print(&measured);
    done.with_context(|| format!("the agent's last words:\n{}", scene.last_words()))?;
    figures.extend(measured.iter().flat_map(Series::figures));
    Ok(figures)
}

fn requests(scene: &Scene, extent: Extent, measured: &mut Vec<Series>) -> Result<()> {
    let times = extent.of(40, 100);
    measured.extend(requests::policy_change(scene, times, extent.of(0, times))?);
    if extent == Extent::Full {
        measured.extend(requests::workload(scene, times, FEW)?);
        measured.push(requests::endpoint(scene, times)?);
        measured.push(requests::crowd(scene, FEW, 100)?);
        measured.push(requests::crowd(scene, FEW, 1000)?);
    }
    measured.push(requests::from_empty(scene, extent.of(14, FEW))?);
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
        "  Starting nft for nothing takes {:.2} ms of each.",
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
