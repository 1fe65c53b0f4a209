//! A variant: two workloads on a node, and the fence between them.
//!
//! A packet goes from the first workload through the node to the second one and passes two hooks.
//! Each fence has a node of its own (except the two modes of an agent), so that no fence includes
//! the connection tracking of another, and is compared with the no-op on its own interfaces.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ringfence_testbed::{Agent, AgentSpec, Node, Workload, fence_state};

use super::hooks::{Hooks, Limits, On, Pair};
use super::ipset::Ipset;
use super::metric::{Kind, Metric};
use super::nftables::{Lookup, Nftables};
use super::stopwatch::Clock;
use super::traffic::{self, Traffic};
use super::world;
use crate::bpf::{Hook, flow_table::FlowTable};

const SOON: Duration = Duration::from_secs(60);

/// What is between two workloads, in addition to the programs on the hooks.
enum Fence {
    None,
    /// A program of the benchmark that tracks flows and lets everything pass.
    Remember {
        memory: FlowTable,
        everywhere: bool,
    },
    Nftables(Nftables),
    Ipset(Ipset),
    Ringfence(Arc<Agent>),
}

/// Two workloads with a fence between them.
pub(crate) struct Variant {
    /// The fence's name in figures.
    pub(crate) name: String,
    traffic: Vec<(Metric, Box<dyn Traffic>)>,
    /// Whether the fence is active.
    up: bool,
    hooks: Hooks,
    fence: Fence,
    ends: [Workload; 2],
    // Keeps the network alive.
    _node: Arc<Node>,
}

impl Variant {
    /// Nothing between the workloads.
    pub(crate) fn open_way() -> Result<Self> {
        let node = Node::new()?;
        let ends = pair(&node, world::ENFORCED)?;
        Self::new("none", Arc::new(node), ends, Fence::None)
    }

    /// A program that only tracks flows, or one with all maps of the packet path: the limit of a
    /// stateful fence. It is measured for metrics that open flows, or for all.
    pub(crate) fn flow_table(name: &str, all_maps: bool, everywhere: bool) -> Result<Self> {
        let node = Node::new()?;
        let ends = pair(&node, world::ENFORCED)?;
        let memory = FlowTable::new(all_maps)?;
        let [from, to] = &ends;
        let programs = Pair {
            from_workload: memory.program(Hook::FromWorkload)?,
            to_workload: memory.program(Hook::ToWorkload)?,
        };
        let hooks = Hooks::own(&node, [from, to], Some(programs))?;
        let fence = Fence::Remember { memory, everywhere };
        Ok(Self::with(name, Arc::new(node), (ends, hooks), fence))
    }

    /// nftables between them.
    pub(crate) fn nftables(name: &str, lookup: Lookup, peers: u32) -> Result<Self> {
        let node = Node::new()?;
        let ends = pair(&node, world::ENFORCED)?;
        let [from, to] = &ends;
        let peers = world::addresses(peers, &[from, to]);
        let fence = Nftables::new(&node.ns, lookup, &peers, [from, to])?;
        Self::new(name, Arc::new(node), ends, Fence::Nftables(fence))
    }

    /// iptables with ipset between them.
    pub(crate) fn ipset(peers: u32) -> Result<Self> {
        let node = Node::new()?;
        let ends = pair(&node, world::ENFORCED)?;
        let [from, to] = &ends;
        let peers = world::addresses(peers, &[from, to]);
        let fence = Ipset::new(&node.ns, &peers, [from, to])?;
        Self::new("ipset", Arc::new(node), ends, Fence::Ipset(fence))
    }

    /// An agent with one pair of workloads in a namespace that enforces and one in one that observes.
    pub(crate) fn ringfence(peers: u32) -> Result<[Self; 2]> {
        let node = Node::new()?;
        let enforced = pair(&node, world::ENFORCED)?;
        let observed = pair(&node, world::OBSERVED)?;
        let local: Vec<&Workload> = enforced.iter().chain(&observed).collect();
        let mode = |namespace: &str, mode: &str| (namespace.to_owned(), mode.to_owned());
        let spec = AgentSpec {
            inventory: world::inventory(&node, &local, peers),
            policies: world::policies(),
            modes: vec![
                mode(world::ENFORCED, "enforce"),
                mode(world::OBSERVED, "observe"),
            ],
            default_mode: "observe".to_owned(),
            config: "[flows]\nlog = \"flows.jsonl\"\n".to_owned(),
            ..AgentSpec::default()
        };
        let agent = Arc::new(Agent::start(&node, &spec)?);
        agent.wait_enforcing(SOON)?;
        let node = Arc::new(node);
        let variant = |name: &str, ends| {
            let (node, fence) = (Arc::clone(&node), Fence::Ringfence(Arc::clone(&agent)));
            Self::new(&format!("{name}@{peers}"), node, ends, fence)
        };
        Ok([variant("enforce", enforced)?, variant("observe", observed)?])
    }

    fn new(name: &str, node: Arc<Node>, ends: [Workload; 2], fence: Fence) -> Result<Self> {
        let [from, to] = &ends;
        let hooks = match &fence {
            Fence::Ringfence(agent) => Hooks::adopt(&node, agent, [from, to])?,
            _ => Hooks::own(&node, [from, to], None)?,
        };
        Ok(Self::with(name, node, (ends, hooks), fence))
    }

    fn with(
        name: &str,
        node: Arc<Node>,
        (ends, hooks): ([Workload; 2], Hooks),
        fence: Fence,
    ) -> Self {
        Self {
            name: name.to_owned(),
            traffic: Vec::new(),
            up: false,
            hooks,
            fence,
            ends,
            _node: node,
        }
    }

    /// Opens the traffic of the metrics that apply to this variant.
    pub(crate) fn open(&mut self, metrics: &[Metric], limits: &Limits) -> Result<()> {
        let [from, to] = &self.ends;
        let open = |metric: &Metric| Ok((*metric, traffic::open(*metric, from, to)?));
        let wanted = metrics.iter().filter(|metric| self.has(**metric));
        self.traffic = wanted.map(open).collect::<Result<_>>()?;
        for on in [On::Noop, On::Subject] {
            self.switch(on, limits)?;
            for (metric, traffic) in &mut self.traffic {
                // A denied flow can be shown to arrive only without a fence.
                if (metric.kind == Kind::Denied) == (on == On::Noop) {
                    let established = traffic.establish();
                    established.with_context(|| format!("establishing {metric}"))?;
                }
            }
        }
        Ok(())
    }

    /// Whether it makes sense to measure this here.
    fn has(&self, metric: Metric) -> bool {
        let denies = match self.fence {
            Fence::None => false,
            Fence::Remember { everywhere, .. } => {
                return metric.kind.opens_flows() || everywhere && metric.kind != Kind::Denied;
            }
            Fence::Nftables(_) | Fence::Ipset(_) => true,
            Fence::Ringfence(_) => self.name.starts_with("enforce"),
        };
        denies || metric.kind != Kind::Denied
    }

    /// The metrics that apply to this variant.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        self.traffic.iter().map(|(metric, _)| *metric).collect()
    }

    /// Whether switching takes far longer than a sample.
    pub(crate) fn is_slow_to_switch(&self) -> bool {
        matches!(self.fence, Fence::Nftables(_) | Fence::Ipset(_))
    }

    /// Activates the fence, or one of the limits in its place.
    pub(crate) fn switch(&mut self, on: On, limits: &Limits) -> Result<()> {
        let up = on == On::Subject;
        match (&self.fence, self.up, up) {
            (Fence::Nftables(fence), false, true) => fence.on()?,
            (Fence::Nftables(fence), true, false) => fence.off()?,
            (Fence::Ipset(fence), false, true) => fence.on()?,
            (Fence::Ipset(fence), true, false) => fence.off()?,
            _ => {}
        }
        self.up = up;
        self.hooks.set(on, limits)
    }

    /// Nanoseconds of one operation, as the mean of a number of them.
    pub(crate) fn sample(&mut self, metric: Metric, count: u32, clock: Clock) -> Result<f64> {
        match &self.fence {
            Fence::Remember { memory, .. } if metric.kind.opens_flows() => {
                memory.clear()?;
            }
            Fence::Ringfence(agent) if metric.kind == Kind::New => forget_attempts(agent)?,
            _ => {}
        }
        let mut traffic = self.traffic.iter_mut();
        let traffic = traffic.find_map(|(of, traffic)| (*of == metric).then_some(traffic));
        let traffic = traffic.with_context(|| format!("{} has no {metric}", self.name))?;
        traffic.prepare()?;
        if self.up {
            traffic.refresh()?;
        }
        for _ in 0..count / 8 {
            traffic.once()?;
        }
        let start = clock.now()?;
        for _ in 0..count {
            traffic.once()?;
        }
        let took = clock.now()?.saturating_sub(start);
        traffic.finish()?;
        Ok(took.as_secs_f64() * 1e9 / f64::from(count))
    }
}

/// Removes the unreplied entries from the agent's maps, and resets each workload's usage: a sample
/// opens more flows than a workload's share in that time, and none may be replaced. So each
/// sample finds room, as in nftables' conntrack. The cost of a full map is measured in `growth`.
fn forget_attempts(agent: &Agent) -> Result<()> {
    fence_state::forget_unreplied(agent.bpffs())
}

/// The workload that sends and the one that receives.
fn pair(node: &Node, namespace: &str) -> Result<[Workload; 2]> {
    Ok([
        node.workload(namespace, &format!("{namespace}-from"))?,
        node.workload(namespace, &format!("{namespace}-to"))?,
    ])
}
