//! The requests to the agent: changes of policies, workloads and labels, and a whole cluster.

use anyhow::{Result, bail};

use super::all_peers;
use super::probe::Probe;
use super::series::Series;
use crate::bench_node::{
    self, BenchNode, CHANGING, MOVING, MOVING_AT, Network, changing, cluster, cluster_file, moving,
    policies,
};
use crate::world;

/// More than the number of versions of the changing policy in a series.
const LATER: usize = 10_000;

/// Changes a policy in a file of its own, and in a file with all other policies.
pub(super) fn policy_change(
    bench: &BenchNode,
    times: usize,
    with_all: usize,
) -> Result<Vec<Series>> {
    let mut probe = bench.network.probe(MOVING_AT[0])?;
    let mut measured = vec![files(
        bench,
        &mut probe,
        ("policy-change", "policy-change"),
        times,
        CHANGING,
        changing,
    )?];
    if with_all > 0 {
        let others = policies(bench.size.endpoints);
        let all = |open, round| format!("{others}\n{}", changing(open, LATER + round));
        bench.stage(CHANGING, "")?.publish()?;
        let name = "policy-change-all-in-one-file";
        let file = "policies.toml";
        measured.push(files(bench, &mut probe, (name, name), with_all, file, all)?);
        bench.stage(file, &others)?.publish()?;
    }
    Ok(measured)
}

/// Adds and removes a workload, and changes the label of one, in an inventory file of its own; and
/// changes its label in one file with the whole cluster.
pub(super) fn workload(bench: &BenchNode, times: usize, with_all: usize) -> Result<Vec<Series>> {
    let mut probe = bench.network.probe(MOVING_AT[0])?;
    bench.stage(MOVING, &moving(None))?.publish()?;
    bench
        .stage(CHANGING, &changing(true, 2 * LATER))?
        .publish()?;
    let app = |other| move |open, _| moving(if open { Some("sender") } else { other });
    let names = ("new-workload", "workload-gone");
    let mut measured = vec![
        files(bench, &mut probe, names, times, MOVING, app(None))?,
        files(
            bench,
            &mut probe,
            ("relabel", "relabel"),
            times,
            MOVING,
            app(Some("other")),
        )?,
    ];
    if with_all > 0 {
        bench.stage(MOVING, &moving(None))?.publish()?;
        let cluster = |open, _| {
            let moving = if open { "sender" } else { "other" };
            cluster(0..bench.size.peers, Some(moving))
        };
        let (name, file) = ("relabel-all-in-one-file", cluster_file(0));
        let names = (name, name);
        measured.push(files(bench, &mut probe, names, with_all, &file, cluster)?);
    }
    bench.stage(MOVING, &moving(Some("sender")))?.publish()?;
    bench
        .stage(CHANGING, &changing(false, 3 * LATER))?
        .publish()?;
    Ok(measured)
}

/// Adds and removes a workload of this node: from the file to its fence.
pub(super) fn endpoint(bench: &BenchNode, times: usize) -> Result<Series> {
    let Network { outside, late, .. } = &bench.network;
    let mut probe = Probe::open(outside, late, MOVING_AT[0])?;
    let text = |open: bool, _| bench_node::late(&bench.network, !open);
    bench.stage(MOVING, &text(false, 0))?.publish()?;
    let names = ("endpoint-gone", "new-endpoint");
    let measured = files(bench, &mut probe, names, times, MOVING, text)?;
    bench.stage(MOVING, &moving(Some("sender")))?.publish()?;
    Ok(measured)
}

/// Changes the addresses of many workloads of one file at once. The probe sends from the workload
/// that is written last.
pub(super) fn crowd(bench: &BenchNode, times: usize, number: u32) -> Result<Series> {
    let name = match number {
        100 => "100-readdressed",
        1000 => "1000-readdressed",
        _ => bail!("no metric for {number} workloads"),
    };
    let [_, last] = bench_node::crowd_at(number - 1, true);
    let mut probe = bench.network.probe(last)?;
    bench
        .stage(CHANGING, &changing(true, 4 * LATER))?
        .publish()?;
    let text = |open, _| bench_node::crowd(number, open);
    bench.stage(MOVING, &text(false, 0))?.publish()?;
    let measured = files(bench, &mut probe, (name, name), times, MOVING, text)?;
    bench.stage(MOVING, &moving(Some("sender")))?.publish()?;
    Ok(measured)
}

/// Adds every remote workload but one at once: a file that says nothing would lose its content only after
/// half a second. The probe sends from the workload that is written last.
pub(super) fn from_empty(bench: &BenchNode, times: usize) -> Result<Series> {
    let peers = bench.size.peers;
    let [_, last] = world::remote(peers.saturating_sub(1));
    let mut probe = bench.network.probe(last)?;
    let full = cluster(0..peers, None);
    let file = cluster_file(0);
    let one = cluster(0..1, None);
    bench.stage(&file, &one)?.publish()?;
    Series::measure(
        ("from-empty", "to-empty"),
        format!("ringfence@{peers}"),
        &mut probe,
        times,
        |open, _| {
            if !open {
                all_peers::check_all_allowed(&bench.network, peers)?;
            }
            let staged = bench.stage(&file, if open { &full } else { &one })?;
            Ok(move || staged.publish())
        },
    )
}

/// Measures requests that each replace one file.
fn files(
    bench: &BenchNode,
    probe: &mut Probe,
    names: (&'static str, &'static str),
    times: usize,
    file: &str,
    text: impl Fn(bool, usize) -> String,
) -> Result<Series> {
    let variant = format!("ringfence@{}", bench.size.peers);
    Series::measure(names, variant, probe, times, |open, round| {
        let staged = bench.stage(file, &text(open, round + 1))?;
        Ok(move || staged.publish())
    })
}
