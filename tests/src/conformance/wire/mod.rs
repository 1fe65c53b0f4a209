//! Playing cases on the wire: real interfaces in network namespaces, the real agent, real sockets.
//!
//! A stage has a node of its own (the agent runs there), a host outside, and the workloads of the
//! present world. It lives on from case to case: starting an agent is what costs most. Changing
//! the world means changing files and interfaces and nothing else; the agent has to notice.

mod exchange;
mod flight;
mod post;
mod servers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::exchange::{Aim, Exchange, Patience};
use super::case::Stop;
use super::grid::{Judged, Miss};
use super::name::{End, WorkloadName};
use super::stage::{Policies, Reception, Sight, Stage};
use super::world::{Ends, Mode, World};
use crate::agent::{Agent, AgentSpec};
use crate::interrupt;
use crate::topology::{Addresses, Node, Workload};

/// Within this after a change the grid must be as expected.
const SETTLED: Duration = Duration::from_secs(2);
/// The steps in which waiting listens for an interrupt.
const SLICE: Duration = Duration::from_millis(50);

/// A stage on the wire.
#[derive(Debug)]
pub(super) struct Wire {
    // First, because it cleans up in the node's namespace.
    agent: Agent,
    exchange: Exchange,
    present: BTreeMap<WorkloadName, Workload>,
    outside: Workload,
    node: Node,
    world: Option<World>,
    policies: Policies,
    /// Modes other than `enforce`.
    modes: BTreeMap<String, Mode>,
    marker: post::Marker,
    /// When something last changed.
    changed: Instant,
}

impl Wire {
    /// A stage with a running agent and an empty world.
    pub(super) fn new(binary: &Path) -> Result<Self> {
        // Every probe is a socket on either side.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising RLIMIT_NOFILE")?;
        let node = Node::new()?;
        let outside = node.outside("ext")?;
        let mut exchange = Exchange::new()?;
        exchange.enter(&End::Node, &node.ns)?;
        exchange.enter(&End::Outside, &outside.ns)?;
        let spec = AgentSpec {
            inventory: node.inventory().build(),
            documents: vec![(post::OBJECTS.to_owned(), String::new())],
            default_mode: Mode::Enforce.name().to_owned(),
            binary: Some(binary.to_owned()),
            ..AgentSpec::default()
        };
        Ok(Self {
            agent: Agent::start(&node, &spec)?,
            exchange,
            present: BTreeMap::new(),
            outside,
            node,
            world: None,
            policies: Policies::default(),
            modes: BTreeMap::new(),
            marker: post::Marker::default(),
            changed: Instant::now(),
        })
    }

    /// Makes and removes workloads, interface included.
    fn change_places(&mut self, world: &World) -> Result<()> {
        let stale = self.present.extract_if(.., |name, workload| {
            let wanted = world.workloads.get(name).map(|member| member.addresses);
            wanted != Some(addresses(workload))
        });
        let stale: Vec<(WorkloadName, Workload)> = stale.collect();
        for (name, workload) in stale {
            self.exchange.leave(&End::Workload(name));
            self.node.remove(workload)?;
        }
        self.exchange.serve(&world.grid)?;
        for (name, member) in &world.workloads {
            if self.present.contains_key(name) {
                continue;
            }
            interrupt::check()?;
            let workload =
                self.node
                    .workload_at(name.namespace(), name.name(), member.addresses)?;
            self.exchange
                .enter(&End::Workload(name.clone()), &workload.ns)?;
            self.present.insert(name.clone(), workload);
        }
        Ok(())
    }

    fn change_modes(&mut self, world: &World) -> Result<()> {
        let mut wanted: BTreeMap<String, Mode> = self
            .modes
            .keys()
            .map(|name| (name.clone(), Mode::Enforce))
            .collect();
        for (name, namespace) in &world.namespaces {
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

    fn aims<'a>(&self, cells: impl IntoIterator<Item = &'a Judged>) -> Result<Vec<Aim<'a>>> {
        let world = self.world.as_ref().context("judging without a world")?;
        let aim = |judged: &'a Judged| {
            let cell = &judged.cell;
            let address = world.address(&cell.to, cell.family)?;
            Ok(Aim {
                judged,
                target: SocketAddr::new(address, cell.port.number),
            })
        };
        cells.into_iter().map(aim).collect()
    }

    /// Polls until every cell was as wanted at some time, each for itself; returns those that
    /// were not until the time was up.
    fn settle(&mut self, cells: &[Judged]) -> Result<Vec<Miss>> {
        let end = self.changed + SETTLED;
        let mut aims = self.aims(cells)?;
        loop {
            interrupt::check()?;
            let last = Instant::now() >= end;
            let misses = self.exchange.round(&aims, Patience::Short)?;
            if misses.is_empty() || last {
                return Ok(misses);
            }
            aims.retain(|aim| misses.iter().any(|miss| miss.judged == *aim.judged));
        }
    }
}

impl Stage for Wire {
    fn ends(&self) -> Ends {
        Ends {
            node: self.node.addresses,
            outside: addresses(&self.outside),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn update(&mut self, world: &World, policies: &Policies) -> Result<Option<String>> {
        if self.world.as_ref() == Some(world) && self.policies == *policies {
            return Ok(None);
        }
        // A namespace must be known while its mode is set, and no policy may outlive it.
        self.change_modes(world)?;
        self.write_policies(policies)?;
        if self.world.as_ref() != Some(world) {
            self.change_places(world)?;
            self.world = Some(world.clone());
            self.write_inventory()?;
        }
        self.changed = Instant::now();
        Ok(None)
    }

    fn offer(&mut self, policies: &Policies) -> Result<Reception> {
        self.write_policies(policies)?;
        let complaint = self.complaint_once_read()?;
        self.changed = Instant::now();
        Ok(complaint.map_or(Reception::Accepted, Reception::Refused))
    }

    fn closed(&mut self, cells: &[Judged]) -> Result<Vec<Miss>> {
        let complaint = self.complaint_once_read()?;
        ensure!(complaint.is_none(), "without policies: {complaint:?}");
        self.changed = Instant::now();
        self.settle(cells)
    }

    fn look(&mut self, cells: &[Judged]) -> Result<Sight> {
        let late = self.settle(cells)?;
        // The grid may have been as expected before the agent had even read what changed.
        let complaint = self.complaint_once_read()?;
        let aims = self.aims(cells)?;
        let mut misses = self.exchange.round(&aims, Patience::Long)?;
        if misses.is_empty() {
            misses = late;
        }
        Ok(Sight { misses, complaint })
    }

    fn wait(&mut self, span: Duration) -> Result<()> {
        let end = Instant::now() + span;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            interrupt::check()?;
            std::thread::sleep(left.min(SLICE));
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
                    "the agent ended with {status} after SIGTERM"
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
