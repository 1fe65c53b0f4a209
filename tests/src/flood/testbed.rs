//! The node with the flooder, the sink, the forbidden workload, a server and the bystanders.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::frames::{Frames, Target};
use super::sender::{Counter, Sender};
use super::{Outcome, Spec};
use crate::agent::{Agent, AgentSpec};
use crate::frame;
use crate::inventory::Attributes;
use crate::load::{Load, LoadSpec, Totals};
use crate::server::{Proto, Server};
use crate::stream::{End, Stream};
use crate::topology::{Node, Workload};
use crate::wait::eventually;

const POLICIES: &str = r#"
[[policy]]
name = "flooder"
namespace = "lab"
subject = "app=flooder"
ingress = []
[[policy.egress]]
to = [{ pods = "app=sink" }]
ports = ["udp"]

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
/// Deadline of a new connection: a lost SYN, retransmitted after a second, is too late.
const CONNECT_DEADLINE: Duration = Duration::from_millis(950);

pub(super) struct Testbed {
    flooder: Workload,
    sink: Workload,
    forbidden: Workload,
    server: (Workload, Server),
    bystanders: Vec<Workload>,
    gateway: [u8; 6],
    agent: Agent,
    _node: Node,
}

impl Testbed {
    pub(super) fn build(spec: &Spec) -> Result<Self> {
        let node = Node::new()?;
        let lab = |name: &str| node.workload("lab", name);
        let (flooder, sink, forbidden) = (lab("flooder")?, lab("sink")?, lab("forbidden")?);
        let server = node.workload("shop", "server")?;
        let listening = Server::start(&server.ns, &[(Proto::Tcp, 0)])?;
        let bystanders: Vec<Workload> = (0..spec.bystanders)
            .map(|number| node.workload("shop", &format!("client-{number}")))
            .collect::<Result<_>>()?;
        let app = |name: &str| Attributes::labels(&[("app", name)]);
        let mut inventory = node
            .inventory()
            .namespace("lab", &[])
            .namespace("shop", &[])
            .local(&flooder, &app("flooder"))
            .local(&sink, &app("sink"))
            .local(&forbidden, &app("forbidden"))
            .local(&server, &app("server"));
        for bystander in &bystanders {
            inventory = inventory.local(bystander, &app("client"));
        }
        // Without routes the targets send no replies, so every packet of the lab is a flood packet.
        for quiet in [&sink, &forbidden] {
            quiet.ns.ip("route del default via 169.254.1.1 dev eth0\nroute del default via fe80::1 dev eth0\n")?;
        }
        let gateway = frame::mac(&node.ns, &flooder.interface)?;
        let agent = Agent::start(
            &node,
            &AgentSpec {
                inventory: inventory.build(),
                policies: POLICIES.to_owned(),
                default_mode: "observe".to_owned(),
                ..AgentSpec::default()
            },
        )?;
        Ok(Self {
            flooder,
            sink,
            forbidden,
            server: (server, listening),
            bystanders,
            gateway,
            agent,
            _node: node,
        })
    }

    pub(super) fn flood(self, spec: &Spec) -> Result<Outcome> {
        let mut frames = Frames::new(
            spec.seed,
            (&self.flooder, self.gateway),
            &self.sink,
            &self.forbidden,
        )?;
        let sender = Sender::open(&self.flooder.ns, "eth0")?;
        let control = self.control(&sender, &mut frames)?;
        for namespace in ["lab", "shop"] {
            let set = self.agent.cli(&["mode", "set", namespace, "enforce"])?;
            ensure!(set.status.success(), "setting the mode failed: {set:?}");
        }

        let mut idle = self.connect(spec)?;
        let loads = self.open_new()?;
        let (sink, forbidden) = self.taps()?;
        let before = self.drops()?;
        let start = Instant::now();
        let sent = sender.flood(spec.rate, spec.duration, || Ok(frames.next()?.1))?;
        let took = start.elapsed();
        let mut opened = Totals::default();
        for load in loads {
            let totals = load.stop()?;
            opened.answered += totals.answered;
            opened.failed += totals.failed;
            opened.first_failure = opened.first_failure.or(totals.first_failure);
        }
        let delivered = sink.close()?;
        let leaked = forbidden.close()?;
        let after = self.drops()?;
        let dropped = after.all - before.all;
        let works = |stream: &mut Stream| {
            [End::Server, End::Client]
                .into_iter()
                .all(|end| stream.expect_delivered(end, DEADLINE).is_ok())
        };
        let kept = idle.iter_mut().map(works).filter(|works| *works).count();
        Ok(Outcome {
            sent,
            rate: u64::try_from(u128::from(sent) * 1000 / took.as_millis().max(1))?,
            delivered,
            leaked,
            dropped,
            limited: after.limited - before.limited,
            unaccounted: i128::from(sent) - i128::from(delivered + leaked + dropped),
            connections: idle.len(),
            kept,
            opened,
            control,
        })
    }

    /// The control run: frames of the same shapes while nothing is enforced.
    fn control(&self, sender: &Sender, frames: &mut Frames) -> Result<(u64, u64)> {
        let (_sink, forbidden) = self.taps()?;
        let mut expected = 0;
        for _ in 0..CONTROL_FRAMES {
            let (target, frame) = frames.next()?;
            sender.send(&frame)?;
            expected += u64::from(target == Target::Forbidden);
        }
        let all = || Ok((forbidden.seen() >= expected).then_some(()));
        // Missing frames show in the counts.
        let _ = eventually(DEADLINE, "frames of the control run", all);
        Ok((forbidden.close()?, expected))
    }

    fn taps(&self) -> Result<(Counter, Counter)> {
        Ok((
            Counter::open(&self.sink.ns, "eth0")?,
            Counter::open(&self.forbidden.ns, "eth0")?,
        ))
    }

    fn connect(&self, spec: &Spec) -> Result<Vec<Stream>> {
        let mut streams = Vec::new();
        for bystander in &self.bystanders {
            for number in 0..spec.connections {
                let server = &self.server.0;
                let ip = server.ip(number % 2 == 1);
                let mut stream = Stream::open(&bystander.ns, &server.ns, ip, 0, DEADLINE)?;
                stream.expect_delivered(End::Client, DEADLINE)?;
                streams.push(stream);
            }
        }
        Ok(streams)
    }

    fn open_new(&self) -> Result<Vec<Load>> {
        let port = self.server.1.port(Proto::Tcp)?;
        let spec = LoadSpec {
            clients: 1,
            reply_within: CONNECT_DEADLINE,
            interval: Duration::from_millis(200),
        };
        self.bystanders
            .iter()
            .enumerate()
            .map(|(number, bystander)| {
                let target = SocketAddr::new(self.server.0.ip(number % 2 == 1), port);
                Load::start(&bystander.ns, Proto::Tcp, target, spec)
            })
            .collect()
    }

    /// The fence's drop counters, read once they no longer change.
    fn drops(&self) -> Result<Drops> {
        let mut last = self.agent.metrics()?;
        loop {
            thread::yield_now();
            let page = self.agent.metrics()?;
            let (before, now) = (Drops::parse(&last), Drops::parse(&page));
            if before == now {
                return Ok(now);
            }
            last = page;
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Drops {
    all: u64,
    limited: u64,
}

impl Drops {
    /// Sums the drop counters of a metrics page.
    fn parse(page: &str) -> Self {
        let mut drops = Self::default();
        let lines = page
            .lines()
            .filter(|line| line.starts_with("ringfence_drops_total{"));
        for line in lines.filter(|line| line.contains("\"dropped\"")) {
            let count = line
                .rsplit(' ')
                .next()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            drops.all += count;
            if line.contains("\"flow-limit\"") {
                drops.limited += count;
            }
        }
        drops
    }
}
