//! An agent that finds the fence of an agent with another layout: it takes over the flows and the
//! interfaces, and nothing of the other one is left.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_common::ABI_VERSION;
use ringfence_testbed::agent::{binary, other_layout_binary};
use ringfence_testbed::other_layout::{OtherLayout, disguise};
use ringfence_testbed::{Agent, Delivery, End, NetNs, Stream, eventually};

use crate::changes::{expect_no_failures, load_within};
use crate::testbed::{
    ProbeSpec, SHORT, SOON, Tcp, Testbed, Udp, apply, probing, programs, run, use_clsact,
};

/// Isolates both directions of both, so that only who opened a flow lets its replies pass.
fn policies(revocable: &str) -> String {
    format!(
        r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"
egress = []

[[policy.ingress]]
from = [{{ pods = "app=client" }}]
ports = ["tcp/8080", "udp/53", "tcp/7001", "udp/7003"{revocable}]

[[policy]]
name = "client"
namespace = "shop"
subject = "app=client"
ingress = []

[[policy.egress]]
to = [{{ pods = "app=server" }}]
"#
    )
}

const REVOCABLE: &str = ", \"tcp/7002\"";
const ALLOWED: [ProbeSpec; 1] = [("client", "server", Tcp(8080))];
const DENIED: [ProbeSpec; 4] = [
    ("client", "server", Tcp(8081)),
    ("client", "server", Udp(9005)),
    ("server", "client", Tcp(8080)),
    ("server", "client", Udp(53)),
];

/// A client's datagram and where to answer it.
struct Asked {
    client: UdpSocket,
    server: UdpSocket,
    from: SocketAddr,
}

impl Asked {
    fn open(client: &NetNs, server: &NetNs, at: SocketAddr) -> Result<Self> {
        let server = server.run(|| UdpSocket::bind(at))??;
        let any = if at.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let client = client.run(|| UdpSocket::bind(any))??;
        client.connect(at)?;
        client.send(b"question")?;
        server.set_read_timeout(Some(SOON))?;
        client.set_read_timeout(Some(SOON))?;
        let (_, from) = server.recv_from(&mut [0; 64])?;
        Ok(Self {
            client,
            server,
            from,
        })
    }

    fn answer(&self) -> Result<()> {
        self.server.send_to(b"answer", self.from)?;
        self.client.recv(&mut [0; 64]).context("no answer")?;
        Ok(())
    }
}

/// Connections over both families.
struct Connections {
    used: Vec<Stream>,
    idle: Vec<Stream>,
    revoked: Vec<Stream>,
    asked: Vec<Asked>,
}

impl Connections {
    fn open(testbed: &Testbed) -> Result<Self> {
        let server = &testbed.host("server").workload;
        let client = &testbed.host("client").workload.ns;
        let open = |port| -> Result<Vec<Stream>> {
            let ips = server.ips().into_iter();
            ips.map(|ip| Stream::open(client, &server.ns, ip, port, SOON))
                .collect()
        };
        let (mut used, idle, mut revoked) = (open(7001)?, open(7001)?, open(7002)?);
        for stream in used.iter_mut().chain(&mut revoked) {
            for end in [End::Client, End::Server, End::Client] {
                ensure!(stream.deliver(end, SOON)? == Delivery::Delivered);
            }
        }
        let ips = server.ips().into_iter();
        let asked = ips.map(|ip| Asked::open(client, &server.ns, SocketAddr::new(ip, 7003)));
        Ok(Self {
            used,
            idle,
            revoked,
            asked: asked.collect::<Result<_>>()?,
        })
    }

    /// The server sends first: what it sends passes as a reply only.
    fn check(&mut self) -> Result<()> {
        for asked in &self.asked {
            asked.answer()?;
        }
        for stream in self.used.iter_mut().chain(&mut self.idle) {
            for end in [End::Server, End::Client] {
                ensure!(stream.deliver(end, SOON)? == Delivery::Delivered, "{end:?}");
            }
        }
        for stream in &mut self.revoked {
            for end in [End::Server, End::Client] {
                let delivery = stream.deliver(end, SHORT)?;
                ensure!(
                    delivery == Delivery::Silent,
                    "{end:?} of a revoked connection"
                );
            }
        }
        Ok(())
    }
}

/// The names of what is in the agent's directory on bpffs, but for the record of who uses it.
fn pinned(agent: &Agent) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(agent.bpffs())?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<Vec<_>>>()?.into_iter();
    let ours = |name: &String| !name.ends_with(".debug") && name != "held-by";
    Ok(names.filter(ours).collect())
}

/// The flows that were denied, for messages.
fn denied_flows(agent: &Agent) -> String {
    let shown = run(agent, &["flows", "--verdict", "denied"]);
    shown.unwrap_or_else(|error| error.to_string())
}

/// A test bed with one fence after another.
struct Succession {
    testbed: Testbed,
    agent: Agent,
    attach: &'static str,
}

impl Succession {
    fn new(attach: &'static str) -> Result<Self> {
        let testbed = Testbed::new(&[("shop", &[])])?
            .with_labels("shop/client", &[("app", "client")])?
            .with_labels("shop/server", &[("app", "server")])?;
        let mut agent = testbed.agent("observe", &policies(REVOCABLE))?;
        testbed.expect_answered(&DENIED).context("the control")?;
        if attach == "clsact" {
            use_clsact(&mut agent)?;
        }
        run(&agent, &["mode", "set", "shop", "enforce"])?;
        testbed.expect_silent(&DENIED)?;
        Ok(Self {
            testbed,
            agent,
            attach,
        })
    }

    /// Stops the agent and revokes a rule; what `start` starts must take over with every connection
    /// but those of the rule, and with those that begin meanwhile if it `has_load`.
    fn take_over(
        &mut self,
        (from, to): (u32, u32),
        has_load: bool,
        start: impl FnOnce(&mut Agent) -> Result<()>,
    ) -> Result<()> {
        let testbed = &self.testbed;
        let mut connections = Connections::open(testbed)?;
        // The reply to a SYN of the milliseconds between the copies is lost, and comes again after a
        // second (ADR 17).
        let within = Duration::from_secs(4);
        let loads = if has_load {
            load_within(testbed, "client", "server", within)?
        } else {
            Vec::new()
        };
        self.agent.kill()?;
        self.agent.write_policies(&policies(""))?;
        let agent = &mut self.agent;
        let allowed: &[ProbeSpec] = if has_load { &ALLOWED } else { &[] };
        probing(testbed, &DENIED, allowed, || start(agent))?;
        connections.check().with_context(|| self.agent.stderr())?;
        let failures = expect_no_failures(loads);
        failures.with_context(|| denied_flows(&self.agent))?;
        testbed.expect_silent(&DENIED)?;
        testbed.expect_answered(&ALLOWED)?;
        let pins = pinned(&self.agent)?;
        ensure!(pins == [format!("v{to}")], "{pins:?}");
        // The kernel frees a link some time after its last reference.
        eventually(SOON, "one program at each hook", || {
            let hooks = programs(testbed, self.attach)?;
            Ok(hooks.iter().all(|ids| ids.len() == 1).then_some(()))
        })?;
        let status = self.agent.cli_json(&["status"])?;
        ensure!(
            status["enforcing"] == true && status["attached"] == 2,
            "{status}"
        );
        let log = self.agent.stderr();
        let taken = format!("took over from ABI version {from}");
        ensure!(log.contains(&taken) && !log.contains(" WARN "), "{log}");
        Ok(())
    }
}

fn check_taken_over(layout: OtherLayout, attach: &'static str) -> Result<()> {
    let mut succession = Succession::new(attach)?;
    // The maps of the other layouts are copies made when the agent stops: what its programs, which are
    // those of this build, remember from then on is not in them.
    let has_load = layout == OtherLayout::NewerUnchanged;
    succession.take_over((layout.version(), ABI_VERSION), has_load, |agent| {
        let flows = disguise(agent.bpffs(), layout)?;
        ensure!(flows >= 20, "{flows} flows, both fences, both families");
        agent.restart()
    })
}

#[test]
fn builds_of_two_layouts_take_over_from_each_other() -> Result<()> {
    let (this, other) = (binary()?, other_layout_binary()?);
    let newer = ABI_VERSION + 1;
    let mut succession = Succession::new("tcx")?;
    let start = |agent: &mut Agent| agent.restart_as(other);
    succession
        .take_over((ABI_VERSION, newer), true, start)
        .context("the upgrade")?;
    apply(&succession.agent, &policies(REVOCABLE))?;
    let start = |agent: &mut Agent| agent.restart_as(this);
    succession
        .take_over((newer, ABI_VERSION), true, start)
        .context("the downgrade")
}

#[test]
fn the_fence_of_abi_6_is_taken_over_with_its_flows() -> Result<()> {
    check_taken_over(OtherLayout::Six, "tcx")
}

#[test]
fn the_fence_of_a_newer_layout_is_taken_over_with_its_flows() -> Result<()> {
    check_taken_over(OtherLayout::NewerMoved, "tcx")
}

#[test]
fn flows_that_begin_while_a_fence_is_taken_over_are_not_lost() -> Result<()> {
    check_taken_over(OtherLayout::NewerUnchanged, "tcx")
}

#[test]
fn the_filters_of_another_layout_are_replaced() -> Result<()> {
    check_taken_over(OtherLayout::NewerUnchanged, "clsact")
}
