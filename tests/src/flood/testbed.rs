//! The node with the flooders, the sink, the forbidden workload, a server and the bystanders.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ringfence_common::quota::Share;

use super::accounts::{Accounts, Ledger};
use super::connections::{Connections, Listeners};
use super::counter::ROOM;
use super::frames::{Frames, Host};
use super::sender::{Flooder, Sender, Sent};
use super::{Outcome, Spec};
use crate::agent::{Agent, AgentSpec};
use crate::fence_state::end_pickup_window;
use crate::frame;
use crate::inventory::Attributes;
use crate::topology::{Node, Workload};
use crate::wait::eventually;

const POLICIES: &str = r#"
[[policy]]
name = "flooder"
namespace = "lab"
subject = "app=flooder"
ingress = []
[[policy.egress]]
to = [{ pods = "app=sink" }, { pods = "app=flooder" }]
ports = ["tcp", "udp"]

[[policy]]
name = "sink"
namespace = "lab"
subject = "app=sink"
egress = []
[[policy.ingress]]
from = [{ pods = "app=flooder" }]

[[policy]]
name = "forbidden"
namespace = "lab"
subject = "app=forbidden"
ingress = []
egress = []

[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"
egress = []
[[policy.ingress]]
from = [{ pods = "app=client" }]
ports = ["tcp"]

[[policy]]
name = "client"
namespace = "shop"
subject = "app=client"
ingress = []
[[policy.egress]]
to = [{ pods = "app=server" }]
ports = ["tcp"]
"#;

/// Deadline for what must happen, generous for a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);
/// Frames of the control run.
const CONTROL_FRAMES: u32 = 2000;
/// New connections are opened in this many groups.
const GROUPS: usize = 5;
/// The agent's default capacity of conntrack.
const CONNTRACK: u32 = ringfence_common::maps::CONNTRACK_CAPACITY;

pub(super) struct Testbed {
    flooders: Vec<Workload>,
    sink: Workload,
    forbidden: Workload,
    server: Workload,
    bystanders: Vec<Workload>,
    agent: Agent,
    node: Node,
}

impl Testbed {
    pub(super) fn build(spec: &Spec) -> Result<Self> {
        check_share(spec)?;
        let node = Node::new()?;
        let several = |count: usize, namespace: &str, name: &str| -> Result<Vec<Workload>> {
            (0..count)
                .map(|number| node.workload(namespace, &format!("{name}-{number}")))
                .collect()
        };
        let flooders = several(spec.flooders, "lab", "flooder")?;
        let (sink, forbidden) = (
            node.workload("lab", "sink")?,
            node.workload("lab", "forbidden")?,
        );
        let server = node.workload("shop", "server")?;
        let bystanders = several(spec.bystanders, "shop", "client")?;
        let app = |name: &str| Attributes::labels(&[("app", name)]);
        let mut inventory = node
            .inventory()
            .namespace("lab", &[])
            .namespace("shop", &[])
            .local(&sink, &app("sink"))
            .local(&forbidden, &app("forbidden"))
            .local(&server, &app("server"));
        for flooder in &flooders {
            inventory = inventory.local(flooder, &app("flooder"));
        }
        for bystander in &bystanders {
            inventory = inventory.local(bystander, &app("client"));
        }
        for quiet in flooders.iter().chain([&sink, &forbidden]) {
            mute(&node, quiet)?;
        }
        let maps = |capacity| format!("[maps]\nconntrack = {capacity}\n");
        let agent = Agent::start(
            &node,
            &AgentSpec {
                inventory: inventory.build(),
                policies: POLICIES.to_owned(),
                default_mode: "observe".to_owned(),
                config: spec.conntrack.map(maps).unwrap_or_default(),
                ..AgentSpec::default()
            },
        )?;
        Ok(Self {
            flooders,
            sink,
            forbidden,
            server,
            bystanders,
            agent,
            node,
        })
    }

    pub(super) fn flood(mut self, spec: &Spec) -> Result<Outcome> {
        let control = if spec.family.is_permitted() {
            (0, 0)
        } else {
            self.control(spec)?
        };
        for namespace in ["lab", "shop"] {
            let set = self.agent.cli(&["mode", "set", namespace, "enforce"])?;
            ensure!(set.status.success(), "setting the mode failed: {set:?}");
        }
        end_pickup_window(&mut self.agent)?;
        let listeners = Listeners::open(&self.server)?;
        let open = |count| Connections::open(&self.bystanders, &listeners, count, DEADLINE);
        // Half of the idle connections have carried data, the others nothing since the handshake.
        let mut used = open(spec.connections)?;
        let mut idle = used.split_off_half();
        let ready = idle.established() + used.exchange(DEADLINE);
        ensure!(
            ready == spec.connections,
            "{ready} of {} connections before the flood",
            spec.connections
        );
        idle.append(used);

        let mut ledger = self.ledger(spec.receive_buffer.unwrap_or(ROOM))?;
        let flooders = self.start(spec)?;
        let start = Instant::now();
        wait_for_flows(&flooders, spec)?;
        let mut fresh = Connections::none();
        for _ in 0..GROUPS {
            let mut group = open(spec.connections / GROUPS)?;
            group.exchange(DEADLINE);
            fresh.append(group);
        }
        let flooding = || Ok((start.elapsed() >= spec.duration).then_some(()));
        eventually(spec.duration + DEADLINE, "the end of the flood", flooding)?;
        let mut sent = 0;
        let all: Vec<Sent> = flooders
            .into_iter()
            .map(Flooder::stop)
            .collect::<Result<_>>()?;
        let took = start.elapsed();
        for (number, flooder) in all.into_iter().enumerate() {
            sent += flooder.frames;
            let [own, sink] = flooder.returned;
            ledger.returned(number, own);
            ledger.returned(self.flooders.len(), sink);
        }
        let accounts = self.account(&ledger, sent)?;
        let (kept, succeeded) = (idle.exchange(DEADLINE), fresh.exchange(DEADLINE));
        ledger.close()?;
        Ok(Outcome {
            family: spec.family,
            sent,
            rate: u64::try_from(u128::from(sent) * 1000 / took.as_millis().max(1))?,
            accounts,
            connections: idle.len(),
            kept,
            opened: fresh.len(),
            succeeded,
            control,
        })
    }

    /// Waits until every frame is accounted for. The kernel's queues may still hold some.
    fn account(&self, ledger: &Ledger, sent: u64) -> Result<Accounts> {
        let mut accounts = ledger.counted(&self.agent)?;
        // Frames that are missing in the end show in the result.
        let _ = eventually(DEADLINE, "every frame accounted for", || {
            accounts = ledger.counted(&self.agent)?;
            Ok((accounts.unaccounted(sent) <= 0).then_some(()))
        });
        Ok(accounts)
    }

    /// The control run: frames of the same shapes while nothing is enforced.
    fn control(&self, spec: &Spec) -> Result<(u64, u64)> {
        let ledger = self.ledger(ROOM)?;
        let flooder = self
            .flooders
            .first()
            .map(|flooder| self.frames(spec, 0, flooder));
        let Some(mut frames) = flooder.transpose()? else {
            return Ok((0, 0));
        };
        let mut expected = 0;
        for workload in self.flooders.iter().take(1) {
            let mut sender = Sender::open(&workload.ns)?;
            for _ in 0..CONTROL_FRAMES {
                for frame in frames.next_flow()? {
                    sender.send(&frame.bytes)?;
                    expected += u64::from(frame.forbidden);
                }
            }
        }
        let all = || Ok((ledger.leaked() >= expected).then_some(()));
        // Missing frames show in the counts.
        let _ = eventually(DEADLINE, "frames of the control run", all);
        let arrived = ledger.leaked();
        ledger.close()?;
        Ok((arrived, expected))
    }

    /// Counts at the flooders, then the sink, then the forbidden workload.
    fn ledger(&self, receive_buffer: usize) -> Result<Ledger> {
        let mut workloads: Vec<&Workload> = self.flooders.iter().collect();
        workloads.extend([&self.sink, &self.forbidden]);
        Ledger::open(&self.node.ns, &workloads, receive_buffer, &self.agent)
    }

    fn frames(&self, spec: &Spec, number: u64, flooder: &Workload) -> Result<Frames> {
        let node = &self.node.ns;
        let ends = [Host::of(flooder, node)?, Host::of(&self.sink, node)?];
        let seed = spec.seed.wrapping_add(number << 32);
        let (what, forbidden) = ((spec.family, number & 1 == 0), self.forbidden.ips());
        Ok(Frames::new(what, seed, ends, forbidden))
    }

    fn start(&self, spec: &Spec) -> Result<Vec<Flooder>> {
        let cpus = std::thread::available_parallelism()?.get();
        let rate = spec.rate / u32::try_from(spec.flooders.max(1))?;
        let mut started = Vec::new();
        for (number, flooder) in self.flooders.iter().enumerate() {
            // Not the sequence of the control run.
            let frames = self.frames(spec, 1 + number as u64, flooder)?;
            let senders = [Sender::open(&flooder.ns)?, Sender::open(&self.sink.ns)?];
            started.push(Flooder::start(frames, senders, (rate, number / 2 % cpus)));
        }
        Ok(started)
    }
}

/// Fails if the server, which has an entry for every connection, is over its share: others may then
/// replace its entries, so that lost connections say nothing.
fn check_share(spec: &Spec) -> Result<()> {
    // The sink, the forbidden workload and the server, too.
    let endpoints = u32::try_from(spec.flooders + spec.bystanders + 3)?;
    let share = Share::of(spec.conntrack.unwrap_or(CONNTRACK), endpoints).assured;
    let connections = 2 * spec.connections;
    ensure!(
        usize::try_from(share)? >= connections,
        "the server's share of conntrack is {share} entries, and it has {connections} connections: \
         expected a larger capacity, or fewer connections or workloads"
    );
    Ok(())
}

/// Waits until each flooder has sent far more flows than its share of conntrack holds.
fn wait_for_flows(flooders: &[Flooder], spec: &Spec) -> Result<()> {
    let enough = u64::from(spec.conntrack.unwrap_or(CONNTRACK)) / 2;
    eventually(10 * DEADLINE, "the flows of the flooders", || {
        let failed = flooders.iter().any(Flooder::has_failed);
        let done = flooders.iter().all(|flooder| flooder.flows() >= enough);
        Ok((failed || done).then_some(()))
    })
}

/// Takes care that a workload sends nothing but frames of the flood, and that no other packets are
/// needed to reach it: it has no routes, its neighbours are known, and the node sends it no
/// redirects.
fn mute(node: &Node, workload: &Workload) -> Result<()> {
    let interface = &workload.interface;
    workload.ns.ip(
        "route del default via 169.254.1.1 dev eth0\nroute del default via fe80::1 dev eth0\n",
    )?;
    let mac = frame::mac(&workload.ns, "eth0")?;
    let mac: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    let mac = mac.join(":");
    for ip in workload.ips() {
        node.ns.ip(&format!(
            "neigh replace {ip} lladdr {mac} dev {interface} nud permanent\n"
        ))?;
    }
    node.ns.sysctls(&[
        ("net.ipv4.conf.all.send_redirects", "0"),
        (&format!("net.ipv4.conf.{interface}.send_redirects"), "0"),
    ])
}
