//! `cargo xtask cluster check`: clusters of several kinds come up, carry traffic, and leave nothing.
//!
//! Every negative has a control: what must be gone after `down` is seen while the cluster is up, and
//! a probe that must fail is the neighbour of one that must succeed.

mod host;
mod manifests;
mod traces;
mod traffic;

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

pub use crate::component::tail;

use crate::cgroup::Cgroup;
use crate::component::HOLDER;
use crate::home::{Folder, Home};
use crate::ledger::{Ledger, ProcessId};
use crate::spec::{CniPlugin, IpFamily, Network, ProxyMode, Spec};
use crate::status::Status;
use crate::wait::eventually;
use crate::{Cluster, binaries, teardown};
use host::HostState;
use traces::{Identity, Traces};
use traffic::Servers;

/// Numbers of started processes at which `up` is killed: when there is only the folder, in the
/// control plane, between the nodes' namespaces, when containerd runs, and when a kubelet does.
const KILLED_AT: [usize; 6] = [0, 1, 3, 5, 7, 10];

/// Returns what it did in a few words.
type Part = fn() -> Result<String>;

/// Runs the parts whose name contains `filter`.
pub fn run(filter: &str) -> Result<ExitCode> {
    let parts: [(&str, Part); 6] = [
        ("variants", variants),
        ("mixed", mixed),
        ("killed", killed),
        ("wounded", wounded),
        ("failing", failing),
        ("abandoned", abandoned),
    ];
    binaries::ensure_built()?;
    let (mut failed, mut ran) = (0, 0);
    for (name, part) in parts.into_iter().filter(|(name, _)| name.contains(filter)) {
        ran += 1;
        let before = HostState::now()?;
        let outcome = part().and_then(|summary| {
            HostState::now()?.must_equal(&before)?;
            Ok(summary)
        });
        match outcome {
            Ok(summary) => println!("ok    {name}: {summary}"),
            Err(error) => {
                failed += 1;
                println!("FAIL  {name}: {error:#}");
            }
        }
    }
    ensure!(ran > 0, "no part has {filter:?} in its name");
    println!(
        "cluster check: {} parts passed, {failed} failed",
        ran - failed
    );
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Two clusters that differ in everything.
fn variants() -> Result<String> {
    let other = Spec {
        ip_family: IpFamily::Dual,
        proxy: ProxyMode::Iptables,
        cni: CniPlugin::Bridge,
        network: Network::Vxlan,
        ..Spec::unnamed()
    };
    next_to_each_other(&Spec::unnamed(), &other)
}

/// Two others that differ in everything, each half like one of the first two.
fn mixed() -> Result<String> {
    let one = Spec {
        ip_family: IpFamily::Dual,
        network: Network::Vxlan,
        ..Spec::unnamed()
    };
    let other = Spec {
        proxy: ProxyMode::Iptables,
        cni: CniPlugin::Bridge,
        ..Spec::unnamed()
    };
    next_to_each_other(&one, &other)
}

/// Two clusters are up at the same time, and the first ends before the second.
fn next_to_each_other(one: &Spec, other: &Spec) -> Result<String> {
    let (first, up) = timed(|| Cluster::up(one))?;
    let servers = Servers::deploy(&first)?;
    let mut probes = servers.probe_all(&first)?;
    let (second, up_again) = timed(|| Cluster::up(other))?;
    let other_servers = Servers::deploy(&second)?;
    probes += other_servers.probe_all(&second)?;
    probes += servers.probe_all(&first)?;
    must_be_healthy(&first)?;
    let down = end_whole(first)?;
    probes += other_servers.probe_all(&second)?;
    must_be_healthy(&second)?;
    let down_again = end_whole(second)?;
    Ok(format!(
        "{probes} probes; up after {up:.1} and {up_again:.1} s, down after {down:.1} and {down_again:.1} s"
    ))
}

/// `up` is killed at several moments, and `down` ends what it left.
fn killed() -> Result<String> {
    let home = Home::default_place()?;
    for processes in KILLED_AT {
        let folder = home.folder(&Spec::unnamed().name)?;
        let outcome = kill_up(&folder, processes);
        teardown::down(&folder)?;
        let identity = outcome.with_context(|| format!("killed at {processes} processes"))?;
        Traces::of(&identity)?
            .must_be_gone()
            .with_context(|| format!("killed at {processes} processes"))?;
    }
    Ok(format!(
        "at {KILLED_AT:?} processes: nothing left after down"
    ))
}

/// Kills `up` when it has started so many processes; what it left must be there and not healthy.
fn kill_up(folder: &Folder, processes: usize) -> Result<Identity> {
    let mut up = Command::new(std::env::current_exe()?)
        .args(["up", "--name", folder.name()])
        .stdout(Stdio::null())
        .spawn()
        .context("starting `up`")?;
    let waited = wait_for_processes(folder, &mut up, processes);
    up.kill()?;
    up.wait()?;
    waited?;
    let identity = Identity::of(folder)?;
    let left = Traces::of(&identity)?;
    ensure!(
        left.processes() >= processes,
        "the control found too little: {left}"
    );
    let refused = Cluster::up(&Spec::new(folder.name()));
    ensure!(
        refused.is_err(),
        "a second `up` took the place of the first"
    );
    let status = Status::of(&Cluster::attach(folder.clone())?)?;
    ensure!(
        !status.is_healthy(),
        "a cluster without the end of its `up` is called healthy"
    );
    Ok(identity)
}

fn wait_for_processes(folder: &Folder, up: &mut Child, processes: usize) -> Result<()> {
    let (deadline, pause) = (Duration::from_secs(120), Duration::from_millis(1));
    eventually(deadline, pause, "the processes of `up`", || {
        ensure!(up.try_wait()?.is_none(), "`up` ended early");
        let started = Ledger::at(folder.ledger()).all()?.len();
        Ok((folder.exists() && started >= processes).then_some(()))
    })
}

/// Each component is killed, missed by `status`, and started again; then all are killed, and `down`
/// ends what they had started.
fn wounded() -> Result<String> {
    let cluster = Cluster::up(&Spec::unnamed())?;
    Servers::deploy(&cluster)?;
    let components = cluster.components()?;
    let restartable = components.iter().filter(|entry| entry.component != HOLDER);
    for entry in restartable.clone() {
        let (component, place) = (entry.component.as_str(), entry.place.as_str());
        cluster.kill(component, place)?;
        let status = Status::of(&cluster)?;
        ensure!(
            status.ended() == [(component, place)] && !status.is_healthy(),
            "{component} of {place} was killed, but {status}"
        );
        cluster.start_again(component, place)?;
        wait_until_healthy(&cluster).with_context(|| format!("{component} was killed"))?;
    }
    for entry in &components {
        cluster.kill(&entry.component, &entry.place)?;
    }
    ensure!(
        Status::of(&cluster)?.ended().len() == components.len(),
        "status misses some"
    );
    let identity = Identity::of(cluster.folder())?;
    let left = Traces::of(&identity)?;
    ensure!(left.processes() >= 8, "pods should still run: {left}");
    cluster.down()?;
    Traces::of(&identity)?.must_be_gone()?;
    let count = restartable.count();
    Ok(format!(
        "{count} components killed and started again; all killed, nothing left after down"
    ))
}

fn wait_until_healthy(cluster: &Cluster) -> Result<()> {
    let (deadline, pause) = (Duration::from_secs(60), Duration::from_millis(200));
    eventually(deadline, pause, "a healthy cluster", || {
        Ok(Status::of(cluster)?.is_healthy().then_some(()))
    })
}

/// An `up` that fails ends what it had begun, and only that.
fn failing() -> Result<String> {
    let spec = Spec::unnamed();
    let folder = Home::default_place()?.folder(&spec.name)?;
    let neighbour = Cluster::up(&Spec::unnamed())?;
    // In the way of the first step after the folder.
    Cgroup::named(&folder.cgroup())?.create(&[])?;
    let outcome = Cluster::up(&spec).map(Cluster::down);
    ensure!(outcome.is_err(), "`up` did not fail");
    Traces::of(&Identity::of(&folder)?)?.must_be_gone()?;
    must_be_healthy(&neighbour)?;
    end_whole(neighbour)?;
    Ok("an `up` that failed left nothing, and its neighbour in peace".to_owned())
}

/// The cluster of a test that was killed is ended by the next test that wants one.
fn abandoned() -> Result<String> {
    let mut test = Command::new("sleep").arg("infinity").spawn()?;
    let owner = ProcessId::now(i32::try_from(test.id())?).context("just started")?;
    let first = Cluster::up_in(&Home::default_place()?, &Spec::unnamed(), Some(owner))?;
    let identity = Identity::of(first.folder())?;
    first.keep();
    Cluster::up(&Spec::unnamed())?.down()?;
    let kept = Traces::of(&identity)?;
    test.kill()?;
    test.wait()?;
    ensure!(kept.has_every_kind(), "ended while its owner lived: {kept}");
    Cluster::up(&Spec::unnamed())?.down()?;
    Traces::of(&identity)?.must_be_gone()?;
    Ok("a cluster lived as long as its owner, and ended with the next `up`".to_owned())
}

fn must_be_healthy(cluster: &Cluster) -> Result<()> {
    let status = Status::of(cluster)?;
    ensure!(status.is_healthy(), "{status}");
    Ok(())
}

/// Ends a cluster; seconds that it took. Everything of it must have been there, and be gone.
fn end_whole(cluster: Cluster) -> Result<f32> {
    let folder = cluster.folder().clone();
    let identity = Identity::of(&folder)?;
    let before = Traces::of(&identity)?;
    ensure!(
        before.has_every_kind(),
        "the control found too little: {before}"
    );
    let ((), seconds) = timed(|| cluster.down())?;
    Traces::of(&identity)?.must_be_gone()?;
    Ok(seconds)
}

fn timed<T>(f: impl FnOnce() -> Result<T>) -> Result<(T, f32)> {
    let begun = Instant::now();
    let value = f()?;
    Ok((value, begun.elapsed().as_secs_f32()))
}
