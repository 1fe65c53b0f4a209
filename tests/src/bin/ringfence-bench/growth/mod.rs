//! Growth: how a packet's cost grows with the contents of the maps, by `BPF_PROG_TEST_RUN`.
//!
//! One dimension grows at a time: peers, policies, endpoints, established connections, CPUs. The
//! world is compiled and written as the agent does it; the programs are run on frames, without
//! interfaces. Nothing is extrapolated to larger machines.

mod conntrack;
mod cpus;
mod flows;
mod writes;

use anyhow::Result;
use ringfence_common::maps::CONNTRACK_CAPACITY;

use self::flows::{Costs, Flows};
use crate::extent::Extent;
use crate::figures::{Figure, Unit};
use crate::loaded::{LoadedPrograms, World};
use crate::report::{heading, table};

/// The base world, in which one dimension grows.
const BASE: World = World {
    peers: 10_000,
    endpoints: 30,
    policies: 0,
};
/// Number of connections whose packets are run in turn.
const FLOWS: u32 = 4096;

/// Measures and prints.
pub(crate) fn measure(extent: Extent) -> Result<Vec<Figure>> {
    let rounds = extent.of(3, 5);
    let mut figures = Vec::new();
    connections(extent, rounds, &mut figures)?;
    let mut loaded = LoadedPrograms::load(Vec::new())?;
    worlds(&mut loaded, extent, rounds, &mut figures)?;
    several_cpus(&mut loaded, rounds, &mut figures)?;
    changes(&mut loaded, rounds, &mut figures)?;
    Ok(figures)
}

fn worlds(
    loaded: &mut LoadedPrograms,
    extent: Extent,
    rounds: usize,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let steps = |all: &[u32]| -> Vec<u32> {
        match extent {
            Extent::Full => all.to_vec(),
            Extent::Default => all.iter().copied().step_by(all.len() - 1).collect(),
        }
    };
    let peers = steps(&[10, 100, 1000, 10_000, 100_000]).into_iter();
    let peers = peers.map(|peers| ("peers", peers, World { peers, ..BASE }));
    let endpoints = steps(&[1, 10, 100, 1000]).into_iter();
    let endpoints = endpoints.map(|endpoints| {
        let world = World { endpoints, ..BASE };
        ("endpoints", endpoints, world)
    });
    let policies = steps(&[0, 10, 100, 1000]).into_iter();
    let policies = policies.map(|policies| ("policies", policies, World { policies, ..BASE }));
    let mut rows = Vec::new();
    for (what, number, world) in peers.chain(endpoints).chain(policies) {
        let policy_rows = loaded.publish(world)?;
        let costs = Flows::open(loaded, world.peers, FLOWS)?.costs(loaded, rounds)?;
        let sizes = [world.peers, world.endpoints, world.policies].map(|n| n.to_string());
        let mut row = sizes.to_vec();
        row.push(policy_rows.to_string());
        let measured = of(&costs, &format!("{number}-{what}"));
        row.extend(measured.iter().map(shown));
        rows.push(row);
        figures.extend(measured);
    }
    heading(
        "IPv4 packets, ns above no-op, as the world grows: the same flow, and another \
         one of 4,096 each time",
    );
    let head = [
        "peers",
        "endpoints",
        "additional policies",
        "rows",
        "established",
        "spread",
        "new",
        "spread",
    ];
    table(&head, &rows);
    Ok(())
}

fn connections(extent: Extent, rounds: usize, figures: &mut Vec<Figure>) -> Result<()> {
    let mut rows = Vec::new();
    let tables: &[&[u32]] = match extent {
        Extent::Default => &[&[1, CONNTRACK_CAPACITY]],
        Extent::Full => &[
            &[1, 1000, 10_000, 100_000, CONNTRACK_CAPACITY],
            &[1, 1_000_000],
        ],
    };
    for steps in tables {
        for size in conntrack::measure(steps, BASE, rounds)? {
            let capacity = steps.last().copied().unwrap_or_default();
            let measured = of(&size.costs, &format!("{}-flows-of-{capacity}", size.flows));
            let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
            let mut row = vec![size.flows.to_string(), capacity.to_string()];
            row.extend(measured.iter().map(shown));
            row.extend([megabytes(size.counted), megabytes(size.grown)]);
            rows.push(row);
            figures.extend(measured);
            figures.push(Figure::of(
                format!("growth/ct4-memory/{}-flows-of-{capacity}", size.flows),
                Unit::Bytes,
                &[size.counted as f64],
            ));
        }
    }
    heading(
        "IPv4 packets, ns above no-op, as connections grow; MB of CT4 as the kernel \
         reports it, and growth of slab memory",
    );
    let head = [
        "connections",
        "capacity",
        "established",
        "spread",
        "new",
        "spread",
        "reported",
        "slabs",
    ];
    table(&head, &rows);
    Ok(())
}

fn several_cpus(
    loaded: &mut LoadedPrograms,
    rounds: usize,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let (cpus, costs) = cpus::measure(loaded, BASE, rounds)?;
    let figure = |what: &str, samples: &[f64]| {
        Figure::of(format!("growth/established-cpus/{what}"), Unit::Ns, samples)
    };
    let measured = [
        figure("1", &costs.alone),
        figure(&format!("{cpus}-other-flows"), &costs.other_flows),
        figure(&format!("{cpus}-same-flow"), &costs.same_flow),
    ];
    heading("An established IPv4 packet, ns including the run itself, on several CPUs at once");
    let names = ["one CPU", "different flows", "the same flow"];
    let rows: Vec<_> = names
        .into_iter()
        .zip([1, cpus, cpus])
        .zip(&measured)
        .map(|((name, cpus), figure)| vec![name.to_owned(), cpus.to_string(), shown(figure)])
        .collect();
    table(&["", "CPUs", "packet"], &rows);
    figures.extend(measured);
    Ok(())
}

fn changes(loaded: &mut LoadedPrograms, rounds: usize, figures: &mut Vec<Figure>) -> Result<()> {
    let mut rows = Vec::new();
    for (what, samples) in writes::measure(loaded, rounds)? {
        let name = format!("growth/write/{}", what.replace(' ', "-"));
        let figure = Figure::of(name, Unit::Ns, &samples);
        rows.push(vec![
            what.to_owned(),
            shown(&figure),
            format!("{:.0}", 1e9 / figure.median.max(1.0)),
        ]);
        figures.push(figure);
    }
    heading("Writes to the maps at 10,000 peers");
    table(&["write", "ns", "per second"], &rows);
    Ok(())
}

fn of(costs: &Costs, size: &str) -> Vec<Figure> {
    let figure = |path: &str, samples: &[f64]| {
        Figure::of(format!("growth/{path}/{size}"), Unit::Ns, samples)
    };
    vec![
        figure("established-same", &costs.established_same),
        figure("established-spread", &costs.established_spread),
        figure("new-same", &costs.new_same),
        figure("new-spread", &costs.new_spread),
    ]
}

/// The median with its quartiles.
fn shown(figure: &Figure) -> String {
    format!(
        "{:.0} ({:.0}–{:.0})",
        figure.median, figure.low, figure.high
    )
}
