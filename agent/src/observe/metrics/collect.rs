//! Encodes the current totals for a scrape.
//!
//! Invariants: every reason, stage and map has a series from the start, so that a rate includes the
//! first event. This module stores no numbers.

use std::fmt::Error;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use ringfence_common::drop_reason::DropReason;

use super::{LossStage, Totals};

type Labels<'a> = Vec<(&'static str, &'a str)>;

pub(super) fn encode(totals: &Totals, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
    drops(totals, &mut encoder)?;
    rejects(totals, &mut encoder)?;
    forgotten(totals, &mut encoder)?;
    lost(totals, &mut encoder)?;
    flows(totals, &mut encoder)?;
    state(totals, &mut encoder)?;
    fences(totals, &mut encoder)?;
    maps(totals, &mut encoder)
}

fn counters<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels<'a>, u64)>,
) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in series {
        ConstCounter::new(value).encode(metric.encode_family(&labels.as_slice())?)?;
    }
    Ok(())
}

fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels<'a>, u64)>,
) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in series {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        ConstGauge::new(value).encode(metric.encode_family(&labels.as_slice())?)?;
    }
    Ok(())
}

fn drops(totals: &Totals, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let series = DropReason::ALL.iter().flat_map(|reason| {
        let found = totals
            .kernel
            .drops
            .iter()
            .find(|(known, ..)| known == reason);
        let (_, dropped, observed) = found.copied().unwrap_or((*reason, 0, 0));
        let labels = |action| vec![("reason", reason.name()), ("action", action)];
        [(labels("dropped"), dropped), (labels("observed"), observed)]
    });
    let help = "Packets dropped, or passed in observe mode, by reason";
    counters(encoder, "ringfence_drops", help, series)
}

fn rejects(totals: &Totals, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let rejects = totals.kernel.rejects.into_iter();
    let series = rejects.filter(|(outcome, _)| !outcome.is_empty());
    let series = series.map(|(outcome, value)| (vec![("outcome", outcome)], value));
    let help = "Packets rejected by a rule, by outcome of their reject packet";
    counters(encoder, "ringfence_rejects", help, series)
}

fn forgotten(totals: &Totals, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let causes = totals.kernel.forgotten.into_iter();
    let series = causes.filter(|(cause, _)| !cause.is_empty());
    let series = series.map(|(cause, value)| (vec![("cause", cause)], value));
    let help = "Unreplied flows without a conntrack entry for lack of room, by cause";
    counters(encoder, "ringfence_conntrack_forgotten", help, series)?;
    let help = "Looked-up records that were given to another key while they were read";
    let name = "ringfence_records_recycled";
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(totals.kernel.records_recycled).encode(metric)?;
    let help = "Discovery messages and ARP packets of workloads that passed without policy";
    let name = "ringfence_discovery_passed";
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(totals.kernel.discovery_passed).encode(metric)
}

fn lost(totals: &Totals, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let of = |stage| totals.lost.get(&stage).copied().unwrap_or_default();
    let stages = [
        ("kernel-ring", totals.kernel.events_lost),
        ("kernel-denies", totals.kernel.denies_lost),
        ("decode", of(LossStage::Decode)),
        ("follower", of(LossStage::Follower)),
        ("log", of(LossStage::Log)),
    ];
    let series = stages.map(|(stage, value)| (vec![("stage", stage)], value));
    counters(
        encoder,
        "ringfence_events_lost",
        "Flow records lost, by stage",
        series,
    )
}

fn flows(totals: &Totals, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let flows = totals.flows.iter();
    let flows = flows.flat_map(|(workload, flows)| flows.iter().map(move |of| (workload, of)));
    let series = flows.map(|(workload, ((direction, verdict), count))| {
        let (namespace, name) = workload
            .as_ref()
            .map_or(("", ""), |id| (id.namespace.as_str(), id.name.as_str()));
        let labels = vec![
            ("namespace", namespace),
            ("workload", name),
            ("direction", direction.name()),
            ("verdict", verdict.name()),
        ];
        (labels, *count)
    });
    let help = "Flow records by the workload whose policy was evaluated";
    counters(encoder, "ringfence_flows", help, series)
}

fn state(totals: &Totals, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let state = &totals.state;
    let endpoints = state.endpoints.iter().map(|(namespace, mode, count)| {
        (
            vec![("namespace", namespace.as_str()), ("mode", mode.name())],
            *count,
        )
    });
    gauges(
        encoder,
        "ringfence_endpoints",
        "Endpoints on this node",
        endpoints,
    )?;
    let refused = totals.refused_files.iter();
    let refused = refused.filter(|(in_force, _)| !in_force.is_empty());
    gauges(
        encoder,
        "ringfence_refused_files",
        "Source files whose present content is refused, by what of them is in force",
        refused.map(|(in_force, count)| (vec![("in_force", *in_force)], *count)),
    )?;
    for (name, help, value) in [
        (
            "ringfence_identities",
            "Identities: sets of peers that policy cannot tell apart",
            state.identities,
        ),
        ("ringfence_policies", "Policies in force", state.policies),
        (
            "ringfence_policies_without_room",
            "Policies that are not in force because the kernel's maps have no room for them",
            state.policies_without_room,
        ),
        (
            "ringfence_services_without_room",
            "Namespaces whose Services are denied because the kernel's maps have no room for them",
            state.services_without_room,
        ),
        (
            "ringfence_policy_rows",
            "Rows in the kernel's policy map",
            state.policy_rows,
        ),
        (
            "ringfence_unknown_addresses",
            "Addresses that several workloads or nodes claim, without an owner",
            state.unknown_addresses,
        ),
        ("ringfence_revision", "Revision in force", state.revision),
    ] {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        let gauge = ConstGauge::new(value);
        gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
    }
    Ok(())
}

fn fences(totals: &Totals, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let unfenced = totals.unfenced.iter();
    gauges(
        encoder,
        "ringfence_unfenced_workloads",
        "Workloads of this node without a fence, by reason",
        unfenced.map(|(reason, count)| (vec![("reason", *reason)], *count)),
    )?;
    let degraded = totals.degraded.iter();
    gauges(
        encoder,
        "ringfence_degraded_fences",
        "Fences that may not do what was asked for, by reason",
        degraded.map(|(reason, count)| (vec![("reason", *reason)], *count)),
    )?;
    let repairs = totals.repairs.iter();
    counters(
        encoder,
        "ringfence_repairs",
        "What was changed behind the agent's back and put right, by kind",
        repairs.map(|(kind, count)| (vec![("kind", *kind)], *count)),
    )
}

fn maps(totals: &Totals, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let maps = &totals.kernel.maps;
    let entries = maps
        .iter()
        .map(|(name, entries, _)| (vec![("map", *name)], *entries));
    gauges(
        encoder,
        "ringfence_map_entries",
        "Entries in a map",
        entries,
    )?;
    let capacity = maps
        .iter()
        .map(|(name, _, capacity)| (vec![("map", *name)], *capacity));
    gauges(
        encoder,
        "ringfence_map_capacity",
        "The most entries a map can hold",
        capacity,
    )
}
