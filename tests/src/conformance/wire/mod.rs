//! Runs cases on the wire: real interfaces in network namespaces, the real agent, real sockets.
//!
//! Each backend has a node of its own (where the agent runs), an external host, and the workloads of the
//! current cluster. It is reused from case to case, because starting an agent takes the most time.
//! To change the cluster it changes only files and interfaces; the agent has to detect that.

mod event_loop;
mod files;
mod probe;
mod servers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::event_loop::{EventLoop, Target, Timing};
use super::backend::{Backend, CheckResult, Policies, Submission};
use super::case::Stop;
use super::cluster::{Cluster, HostAddresses, Mode};
use super::grid::{ExpectedCell, Mismatch};
use super::name::{End, WorkloadName};
use crate::agent::{Agent, AgentSpec};
use crate::interrupt;
use crate::topology::{Addresses, Node, Workload};

/// After a change the grid must be as expected within this time.
const CONVERGENCE: Duration = Duration::from_secs(2);
/// Interval at which waiting checks for an interrupt.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);

/// The backend on the wire.
#[derive(Debug)]
pub(super) struct Wire {
    // Declared first: dropping it runs commands in the node's namespace.
    agent: Agent,
    event_loop: EventLoop,
    present: BTreeMap<WorkloadName, Workload>,
    outside: Workload,
    node: Node,
    cluster: Option<Cluster>,
    policies: Policies,
    /// Modes other than `enforce`.
    modes: BTreeMap<String, Mode>,
    marker: files::Marker,
    /// When something was last changed.
    changed: Instant,
}

impl Wire {
    /// A backend with a running agent and an empty cluster.
    pub(super) fn new(binary: &Path) -> Result<Self> {
        // Every probe uses a socket at both ends.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising RLIMIT_NOFILE")?;
        let node = Node::new()?;
        let outside = node.outside("ext")?;
        let mut event_loop = EventLoop::new()?;
        event_loop.add_end(&End::Node, &node.ns)?;
        event_loop.add_end(&End::Outside, &outside.ns)?;
        let spec = AgentSpec {
            inventory: node.inventory().build(),
            documents: vec![(files::OBJECTS.to_owned(), String::new())],
            default_mode: Mode::Enforce.name().to_owned(),
            binary: Some(binary.to_owned()),
            ..AgentSpec::default()
        };
        Ok(Self {
            agent: Agent::start(&node, &spec)?,
            event_loop,
            present: BTreeMap::new(),
            outside,
            node,
            cluster: None,
            policies: Policies::default(),
            modes: BTreeMap::new(),
            marker: files::Marker::default(),
            changed: Instant::now(),
        })
    }

    /// Creates and removes workloads with their interfaces.
    fn update_workloads(&mut self, cluster: &Cluster) -> Result<()> {
        let stale = self.present.extract_if(.., |name, workload| {
            let wanted = cluster.workloads.get(name).map(|member| member.addresses);
            wanted != Some(addresses(workload))
        });
        let stale: Vec<(WorkloadName, Workload)> = stale.collect();
        for (name, workload) in stale {
            self.event_loop.remove_end(&End::Workload(name));
            self.node.remove(workload)?;
        }
        self.event_loop.serve(&cluster.grid)?;
        for (name, member) in &cluster.workloads {
            if self.present.contains_key(name) {
                continue;
            }
            interrupt::check()?;
            let workload =
                self.node
                    .workload_at(name.namespace(), name.name(), member.addresses)?;
            self.event_loop
                .add_end(&End::Workload(name.clone()), &workload.ns)?;
            self.present.insert(name.clone(), workload);
        }
        Ok(())
    }

    fn update_modes(&mut self, cluster: &Cluster) -> Result<()> {
        let mut wanted: BTreeMap<String, Mode> = self
            .modes
            .keys()
            .map(|name| (name.clone(), Mode::Enforce))
            .collect();
        for (name, namespace) in &cluster.namespaces {
            if namespace.mode != Mode::Enforce || wanted.contains_key(name) {
                wanted.insert(name.clone(), namespace.mode);
            }
        }
        for (name, mode) in wanted {
            let present = self.modes.get(&name).copied().unwrap_or(Mode::Enforce);
            if present == mode {
                continue;
            }
            let output = self.agent.cli(&["mode", "set", &name, mode.name()])?;
            ensure!(
                output.status.success(),
                "ringfence mode set {name} {}: {}",
                mode.name(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
            if mode == Mode::Enforce {
                self.modes.remove(&name);
            } else {
                self.modes.insert(name, mode);
            }
        }
        Ok(())
    }

    fn targets<'a>(
        &self,
        cells: impl IntoIterator<Item = &'a ExpectedCell>,
    ) -> Result<Vec<Target<'a>>> {
        let cluster = self.cluster.as_ref().context("there is no cluster yet")?;
        let target = |expected: &'a ExpectedCell| {
            let cell = &expected.cell;
            let address = cluster.address(&cell.to, cell.family)?;
            Ok(Target {
                expected,
                address: SocketAddr::new(address, cell.port.number),
            })
        };
        cells.into_iter().map(target).collect()
    }

    /// Repeats the round until each cell has had the expected result once; returns the cells that
    /// did not within the time limit.
    fn poll_until_expected(&mut self, cells: &[ExpectedCell]) -> Result<Vec<Mismatch>> {
        let end = self.changed + CONVERGENCE;
        let mut targets = self.targets(cells)?;
        loop {
            interrupt::check()?;
            let last = Instant::now() >= end;
            let mismatches = self.event_loop.round(&targets, Timing::Poll)?;
            if mismatches.is_empty() || last {
                return Ok(mismatches);
            }
            targets.retain(|target| {
                mismatches
                    .iter()
                    .any(|mismatch| mismatch.expected == *target.expected)
            });
        }
    }
}

impl Backend for Wire {
    fn host_addresses(&self) -> HostAddresses {
        HostAddresses {
            node: self.node.addresses,
            outside: addresses(&self.outside),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn update(&mut self, cluster: &Cluster, policies: &Policies) -> Result<Option<String>> {
        if self.cluster.as_ref() == Some(cluster) && self.policies == *policies {
            return Ok(None);
        }
        // The agent must know a namespace while its mode is set, and policies of a namespace must
        // be removed before it.
        self.update_modes(cluster)?;
        self.write_policies(policies)?;
        if self.cluster.as_ref() != Some(cluster) {
            self.update_workloads(cluster)?;
            self.cluster = Some(cluster.clone());
            self.write_inventory()?;
        }
        self.changed = Instant::now();
        Ok(None)
    }

    fn submit(&mut self, policies: &Policies) -> Result<Submission> {
        self.write_policies(policies)?;
        let agent_error = self.error_after_reading()?;
        self.changed = Instant::now();
        Ok(agent_error.map_or(Submission::Accepted, Submission::Refused))
    }

    fn check_controls(&mut self, cells: &[ExpectedCell]) -> Result<Vec<Mismatch>> {
        let agent_error = self.error_after_reading()?;
        ensure!(
            agent_error.is_none(),
            "the agent reports an error without policies: {agent_error:?}"
        );
        self.changed = Instant::now();
        self.poll_until_expected(cells)
    }

    fn check(&mut self, cells: &[ExpectedCell]) -> Result<CheckResult> {
        let late = self.poll_until_expected(cells)?;
        // The grid may be as expected before the agent has read the change.
        let agent_error = self.error_after_reading()?;
        let targets = self.targets(cells)?;
        let mut mismatches = self.event_loop.round(&targets, Timing::Final)?;
        if mismatches.is_empty() {
            mismatches = late;
        }
        Ok(CheckResult {
            mismatches,
            agent_error,
        })
    }

    fn wait(&mut self, span: Duration) -> Result<()> {
        let end = Instant::now() + span;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            interrupt::check()?;
            std::thread::sleep(left.min(INTERRUPT_INTERVAL));
        }
        self.changed = Instant::now();
        Ok(())
    }

    fn restart(&mut self, how: Stop) -> Result<()> {
        match how {
            Stop::Kill => self.agent.kill()?,
            Stop::Term => {
                let status = self.agent.terminate()?;
                ensure!(
                    status.success(),
                    "the agent exited with {status} after SIGTERM"
                );
            }
        }
        self.agent.restart()?;
        self.changed = Instant::now();
        Ok(())
    }
}

fn addresses(workload: &Workload) -> Addresses {
    Addresses {
        ip4: workload.ip4,
        ip6: workload.ip6,
    }
}
