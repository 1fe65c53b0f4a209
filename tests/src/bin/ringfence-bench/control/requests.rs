//! What is asked of the agent: policies, workloads and labels that change, and a whole cluster.

use anyhow::{Result, bail};

use super::everyone;
use super::probe::Probe;
use super::series::Series;
use crate::scene::{
    self, CHANGING, MOVING, MOVING_AT, Scene, Wires, changing, cluster, cluster_file, moving,
    policies,
};
use crate::world;

/// No series has as many versions of the changing policy.
const LATER: usize = 10_000;

/// One policy in a file of its own, and one in a file with all the others.
pub(super) fn policy_change(scene: &Scene, times: usize, with_all: usize) -> Result<Vec<Series>> {
    let mut probe = scene.wires.probe(MOVING_AT[0])?;
    let mut measured = vec![files(
        scene,
        &mut probe,
        ("policy-change", "policy-change"),
        times,
        CHANGING,
        changing,
    )?];
    if with_all > 0 {
        let others = policies(scene.size.endpoints);
        let all = |open, round| format!("{others}\n{}", changing(open, LATER + round));
        scene.stage(CHANGING, "")?.publish()?;
        let name = "policy-change-all-in-one-file";
        let file = "policies.toml";
        measured.push(files(scene, &mut probe, (name, name), with_all, file, all)?);
        scene.stage(file, &others)?.publish()?;
    }
    Ok(measured)
}

/// A workload that appears and goes, and one that gets another label, in an inventory file of their
/// own; and in one file with the whole cluster.
pub(super) fn workload(scene: &Scene, times: usize, with_all: usize) -> Result<Vec<Series>> {
    let mut probe = scene.wires.probe(MOVING_AT[0])?;
    scene.stage(MOVING, "")?.publish()?;
    scene
        .stage(CHANGING, &changing(true, 2 * LATER))?
        .publish()?;
    let app = |other| move |open, _| moving(if open { Some("sender") } else { other });
    let comes = ("new-workload", "workload-gone");
    let mut measured = vec![
        files(scene, &mut probe, comes, times, MOVING, app(None))?,
        files(
            scene,
            &mut probe,
            ("relabel", "relabel"),
            times,
            MOVING,
            app(Some("other")),
        )?,
    ];
    if with_all > 0 {
        scene.stage(MOVING, "")?.publish()?;
        let cluster = |open, _| {
            let moving = if open { "sender" } else { "other" };
            cluster(0..scene.size.peers, Some(moving))
        };
        let (name, file) = ("relabel-all-in-one-file", cluster_file(0));
        let names = (name, name);
        measured.push(files(scene, &mut probe, names, with_all, &file, cluster)?);
    }
    scene.stage(MOVING, &moving(Some("sender")))?.publish()?;
    scene
        .stage(CHANGING, &changing(false, 3 * LATER))?
        .publish()?;
    Ok(measured)
}

/// A workload on this node that appears and goes: from the file to its fence.
pub(super) fn endpoint(scene: &Scene, times: usize) -> Result<Series> {
    let Wires { outside, late, .. } = &scene.wires;
    let mut probe = Probe::open(outside, late, MOVING_AT[0])?;
    let text = |open: bool, _| scene::late(&scene.wires, !open);
    scene.stage(MOVING, &text(false, 0))?.publish()?;
    let names = ("endpoint-gone", "new-endpoint");
    let measured = files(scene, &mut probe, names, times, MOVING, text)?;
    scene.stage(MOVING, &moving(Some("sender")))?.publish()?;
    Ok(measured)
}

/// Many workloads of one file that all take other addresses at once. The probe comes from the one
/// that is written last.
pub(super) fn crowd(scene: &Scene, times: usize, number: u32) -> Result<Series> {
    let name = match number {
        100 => "100-readdressed",
        1000 => "1000-readdressed",
        _ => bail!("{number} has no name"),
    };
    let [_, last] = scene::crowd_at(number - 1, true);
    let mut probe = scene.wires.probe(last)?;
    scene
        .stage(CHANGING, &changing(true, 4 * LATER))?
        .publish()?;
    let text = |open, _| scene::crowd(number, open);
    scene.stage(MOVING, &text(false, 0))?.publish()?;
    let measured = files(scene, &mut probe, (name, name), times, MOVING, text)?;
    scene.stage(MOVING, &moving(Some("sender")))?.publish()?;
    Ok(measured)
}

/// Every remote workload appears at once. The probe comes from the one that is written last.
pub(super) fn from_empty(scene: &Scene, times: usize) -> Result<Series> {
    let peers = scene.size.peers;
    let [_, last] = world::remote(peers.saturating_sub(1));
    let mut probe = scene.wires.probe(last)?;
    let full = cluster(0..peers, None);
    let file = cluster_file(0);
    scene.stage(&file, "")?.publish()?;
    Series::measure(
        ("from-empty", "to-empty"),
        format!("ringfence@{peers}"),
        &mut probe,
        times,
        |open, _| {
            if !open {
                everyone::is_let_in(&scene.wires, peers)?;
            }
            let staged = scene.stage(&file, if open { &full } else { "" })?;
            Ok(move || staged.publish())
        },
    )
}

/// Requests that each replace one file.
fn files(
    scene: &Scene,
    probe: &mut Probe,
    names: (&'static str, &'static str),
    times: usize,
    file: &str,
    text: impl Fn(bool, usize) -> String,
) -> Result<Series> {
    let variant = format!("ringfence@{}", scene.size.peers);
    Series::measure(names, variant, probe, times, |open, round| {
        let staged = scene.stage(file, &text(open, round + 1))?;
        Ok(move || staged.publish())
    })
}
