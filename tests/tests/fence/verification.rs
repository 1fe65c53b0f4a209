//! Fences and maps that are changed behind the agent's back: denied traffic stops again, and the agent
//! says what happened.
//!
//! The control of each case is the agent's absence: while it is stopped, the change lets denied traffic
//! through.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringfence_common::mode::Mode;
use ringfence_testbed::{Agent, AgentSpec, Node, eventually, fence_state};

use crate::testbed::{
    CLIENT_TO_SERVER, Ping, ProbeSpec, SOON, Tcp, Testbed, apply, probing, programs, use_clsact,
};

const ALLOWED: [ProbeSpec; 1] = [("client", "server", Tcp(8080))];
const DENIED: [ProbeSpec; 3] = [
    ("client", "server", Tcp(8081)),
    ("client", "server", Ping),
    ("other", "server", Tcp(8080)),
];

fn testbed() -> Result<Testbed> {
    Testbed::new(&[("shop", &[])])?
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])?
        .with_labels("shop/other", &[])
}

/// An agent in `enforce`, whose policies are in force.
fn agent(testbed: &Testbed, attach: &str) -> Result<Agent> {
    let mut agent = testbed.agent("enforce", CLIENT_TO_SERVER)?;
    if attach == "clsact" {
        use_clsact(&mut agent)?;
    }
    agent.wait_enforcing(SOON)?;
    testbed.expect_silent(&DENIED)?;
    testbed.expect_answered(&ALLOWED)?;
    Ok(agent)
}

/// The agent does nothing until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn new(agent: &Agent) -> Result<Self> {
        let pid = Pid::from_raw(agent.pid().context("a pid")?.try_into()?);
        kill(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Fails if the agent is gone, which the test then finds.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Makes a change that lets denied traffic through, and waits until the agent has put it right.
fn expect_repair<T>(
    testbed: &Testbed,
    agent: &Agent,
    what: &str,
    change: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let before = repairs(agent, what)?;
    let stopped = Stopped::new(agent)?;
    let changed = change()?;
    let opened = testbed.expect_answered(&[DENIED[0]]);
    drop(stopped);
    opened.context("the control: the change lets denied traffic through")?;
    let repaired = || Ok(testbed.all_silent(&DENIED) && repairs(agent, what)? > before);
    agent.wait_until(repaired, SOON, &format!("a repair of {what}"))?;
    testbed.expect_answered(&ALLOWED)?;
    let (text, _) = agent.status_text()?;
    let mut lines = text.lines().filter(|line| line.starts_with("Repaired:"));
    ensure!(lines.any(|line| line.contains(what)), "{text}");
    let metric = format!("ringfence_repairs_total{{kind=\"{what}\"}}");
    ensure!(agent.metrics()?.contains(&metric));
    Ok(changed)
}

/// How many repairs of a kind the status shows.
fn repairs(agent: &Agent, what: &str) -> Result<u64> {
    let status = agent.cli_json(&["status"])?;
    let repairs = status["repairs"].as_array();
    let found = repairs.into_iter().flatten().find(|it| it["what"] == what);
    Ok(found.and_then(|it| it["count"].as_u64()).unwrap_or(0))
}

fn wait_ready(agent: &Agent) -> Result<()> {
    let ready = || Ok(agent.cli_json(&["status"])?["ready"] == true);
    agent.wait_until(ready, SOON, "the agent ready")
}

/// A pin below the agent's directory of its ABI version.
fn pin(agent: &Agent, name: &str) -> Result<PathBuf> {
    let maps = fence_state::pin(agent.bpffs(), "ENDPOINTS")?;
    let base = maps.ancestors().nth(2).context("the ABI's directory")?;
    Ok(base.join(name))
}

fn link_pin(testbed: &Testbed, agent: &Agent, host: &str, program: &str) -> Result<PathBuf> {
    let interface = &testbed.host(host).workload.interface;
    let ifindex = testbed.node.ifindex(interface)?;
    pin(agent, &format!("links/{ifindex}-{program}"))
}

/// A program of someone else, which passes every packet before a later program sees it: here the one that
/// shows the agent the clocks, which any other may be.
struct Foreign {
    program: SchedClassifier,
}

impl Foreign {
    fn passing(agent: &Agent) -> Result<Self> {
        let program = SchedClassifier::from_pin(pin(agent, "programs/clocks")?)?;
        Ok(Self { program })
    }

    /// Attaches it at the egress hook of the server's interface, until the result is dropped.
    fn attach(
        &mut self,
        testbed: &Testbed,
        options: TcAttachOptions,
    ) -> Result<SchedClassifierLink> {
        let interface = &testbed.host("server").workload.interface;
        let attach = || {
            let hook = TcAttachType::Egress;
            let link = self.program.attach_with_options(interface, hook, options)?;
            self.program.take_link(link)
        };
        Ok(testbed.node.ns.run(attach)??)
    }

    /// Detaches it: a filter is known by its interface, which only this network namespace has. A link
    /// stays attached as long as any process has a descriptor of it, and a child of another test has
    /// those of this process until it executes its program.
    fn detach(&self, testbed: &Testbed, link: SchedClassifierLink) -> Result<()> {
        testbed.node.ns.run(move || drop(link))?;
        let id = self.program.info()?.id();
        eventually(SOON, "the foreign program detached", || {
            let hooks = programs(testbed, "tcx")?;
            Ok((!hooks.iter().flatten().any(|it| *it == id)).then_some(()))
        })
    }
}

fn first() -> TcAttachOptions {
    TcAttachOptions::TcxOrder(LinkOrder::first())
}

/// A filter of our preference. The one that was added last runs first.
fn filter(handle: u16) -> TcAttachOptions {
    TcAttachOptions::Netlink(NlOptions {
        priority: 1,
        handle: TcHandle::new(0, handle),
        classid: None,
    })
}

fn tc(testbed: &Testbed, host: &str, arguments: &[&str]) -> Result<()> {
    let interface = &testbed.host(host).workload.interface;
    let mut tc = testbed.node.ns.command("tc");
    let [object, action, rest @ ..] = arguments else {
        anyhow::bail!("{arguments:?}");
    };
    let output = tc
        .args([object, action, "dev", interface])
        .args(rest)
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tc {arguments:?}: {error}");
    Ok(())
}

#[test]
fn a_link_that_was_detached_is_attached_again() -> Result<()> {
    let testbed = testbed()?;
    let agent = agent(&testbed, "tcx")?;
    let pin = link_pin(&testbed, &agent, "server", "to_workload")?;
    let what = "fence-missing";
    expect_repair(&testbed, &agent, what, || {
        Ok(ringfence::datapath::detach_pinned(&pin)?)
    })?;
    // Without its pin, a link is gone.
    expect_repair(&testbed, &agent, what, || Ok(std::fs::remove_file(&pin)?))?;
    wait_ready(&agent)?;
    let log = agent.stderr();
    let warned = log
        .lines()
        .any(|line| line.contains(" WARN ") && line.contains("to_workload was not attached"));
    ensure!(warned, "{log}");
    // A restart finds one program at each hook.
    for hook in programs(&testbed, "tcx")? {
        ensure!(hook.len() == 1, "{hook:?}");
    }
    Ok(())
}

#[test]
fn a_program_in_front_is_degraded_and_overtaken_once_a_minute() -> Result<()> {
    let testbed = testbed()?;
    let agent = agent(&testbed, "tcx")?;
    check_in_front(&testbed, &agent, first)?;
    let server = programs(&testbed, "tcx")?;
    ensure!(server.iter().all(|hook| hook.len() == 1), "{server:?}");
    Ok(())
}

#[test]
fn a_filter_in_front_is_degraded_and_overtaken_once_a_minute() -> Result<()> {
    let testbed = testbed()?;
    let agent = agent(&testbed, "clsact")?;
    check_in_front(&testbed, &agent, || filter(0x77))?;
    for hook in programs(&testbed, "clsact")? {
        ensure!(hook.len() == 1, "{hook:?}");
    }
    Ok(())
}

/// Someone else's program is overtaken, and another one within the same minute is not.
fn check_in_front(
    testbed: &Testbed,
    agent: &Agent,
    options: impl Fn() -> TcAttachOptions,
) -> Result<()> {
    let mut foreign = Foreign::passing(agent)?;
    let link = expect_repair(testbed, agent, "fence-not-first", || {
        foreign.attach(testbed, options())
    })?;
    wait_ready(agent).context("it is first again")?;
    foreign.detach(testbed, link)?;
    let link = foreign.attach(testbed, options())?;
    let degraded = || Ok(!agent.cli_json(&["status"])?["degraded"][0].is_null());
    agent.wait_until(degraded, SOON, "a degraded fence")?;
    testbed
        .expect_answered(&[DENIED[0]])
        .context("it is in front")?;
    expect_degraded(agent)?;
    ensure!(repairs(agent, "fence-not-first")? == 1, "within a minute");
    foreign.detach(testbed, link)?;
    wait_ready(agent)?;
    testbed.expect_silent(&DENIED)?;
    let log = agent.stderr();
    let said = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    let counts = (said("is degraded"), said("is in order again"));
    ensure!(counts == (2, 2), "{counts:?}\n{log}");
    Ok(())
}

/// A degraded fence of the server is shown everywhere.
fn expect_degraded(agent: &Agent) -> Result<()> {
    let status = agent.cli_json(&["status"])?;
    ensure!(
        status["ready"] == false && status["enforcing"] == false,
        "{status}"
    );
    ensure!(
        status["degraded"][0]["workload"] == "shop/server",
        "{status}"
    );
    let (text, healthy) = agent.status_text()?;
    ensure!(
        !healthy && text.contains("Degraded:") && text.contains("NOT ready"),
        "{text}"
    );
    let readyz = format!("{:?}", agent.http_get("/readyz").err());
    ensure!(readyz.contains("503"), "{readyz}");
    let metric = "ringfence_degraded_fences{reason=\"not-first\"} 1\n";
    ensure!(agent.metrics()?.contains(metric));
    Ok(())
}

#[test]
fn a_program_of_tcx_before_filters_is_degraded() -> Result<()> {
    let testbed = testbed()?;
    let agent = agent(&testbed, "clsact")?;
    let mut foreign = Foreign::passing(&agent)?;
    let link = foreign.attach(&testbed, first())?;
    let degraded = || Ok(!agent.cli_json(&["status"])?["degraded"][0].is_null());
    agent.wait_until(degraded, SOON, "a degraded fence")?;
    expect_degraded(&agent)?;
    foreign.detach(&testbed, link)?;
    wait_ready(&agent)
}

#[test]
fn moving_to_the_front_leaves_no_opening() -> Result<()> {
    for attach in ["tcx", "clsact"] {
        check_move(attach).context(attach)?;
    }
    Ok(())
}

/// While a program that leaves every packet to the next one is overtaken, no denied packet arrives, and
/// every allowed one does.
fn check_move(attach: &str) -> Result<()> {
    let testbed = testbed()?;
    let agent = agent(&testbed, attach)?;
    // Of an agent that observes, and has no endpoint here.
    let elsewhere = Node::new()?;
    let spec = AgentSpec {
        inventory: elsewhere.inventory().build(),
        default_mode: "observe".to_owned(),
        ..AgentSpec::default()
    };
    let observing = Agent::start(&elsewhere, &spec)?;
    let program = SchedClassifier::from_pin(pin(&observing, "programs/to_workload")?)?;
    let mut foreign = Foreign { program };
    let options = match attach {
        "tcx" => first(),
        _ => filter(0x77),
    };
    let mut link = None;
    probing(&testbed, &DENIED, &ALLOWED, || {
        link = Some(foreign.attach(&testbed, options)?);
        let moved = || Ok(repairs(&agent, "fence-not-first")? > 0);
        agent.wait_until(moved, SOON, "a move")?;
        wait_ready(&agent)
    })?;
    link.map_or(Ok(()), |link| foreign.detach(&testbed, link))
}

#[test]
fn filters_that_went_with_their_qdisc_are_added_again() -> Result<()> {
    let testbed = testbed()?;
    let agent = agent(&testbed, "clsact")?;
    expect_repair(&testbed, &agent, "fence-missing", || {
        tc(&testbed, "server", &["qdisc", "del", "clsact"])
    })?;
    wait_ready(&agent)
}

#[test]
fn an_ingress_qdisc_keeps_one_fence_off_and_nothing_else() -> Result<()> {
    let testbed = testbed()?;
    let mut agent = testbed.agent("enforce", CLIENT_TO_SERVER)?;
    tc(&testbed, "other", &["qdisc", "add", "ingress"])?;
    use_clsact(&mut agent)?;
    let mut status = serde_json::Value::Null;
    let reported = || {
        status = agent.cli_json(&["status"])?;
        Ok(status["unfenced"][0]["workload"] == "shop/other")
    };
    let outcome = agent.wait_until(reported, SOON, "an interface without a fence");
    outcome.with_context(|| format!("{status}"))?;
    let reason = status["unfenced"][0]["reason"].as_str();
    ensure!(
        reason.is_some_and(|reason| reason.contains("a qdisc of kind ingress is in its place")),
        "{status}"
    );
    ensure!(
        status["attached"] == 2 && status["ready"] == false,
        "{status}"
    );
    ensure!(!agent.status_text()?.0.contains("no policy applied yet"));
    testbed.expect_silent(&DENIED)?;
    testbed.expect_answered(&ALLOWED)?;
    // Policy still changes.
    apply(&agent, &CLIENT_TO_SERVER.replace("8080", "8081"))?;
    testbed.expect_silent(&ALLOWED)?;
    testbed.expect_answered(&[DENIED[0]])?;
    tc(&testbed, "other", &["qdisc", "del", "ingress"])?;
    wait_ready(&agent)?;
    let log = agent.stderr();
    let warned = log.lines().filter(|line| {
        line.contains(" WARN ") && line.contains("shop/other") && line.contains("kind ingress")
    });
    ensure!(warned.count() == 1, "{log}");
    Ok(())
}

#[test]
fn records_and_modes_are_written_again() -> Result<()> {
    let testbed = testbed()?;
    let agent = agent(&testbed, "tcx")?;
    expect_repair(&testbed, &agent, "endpoint", || {
        fence_state::rewrite_endpoints(agent.bpffs(), |record| {
            record.mode_override = Mode::Observe as u8;
        })
    })?;
    expect_repair(&testbed, &agent, "mode", || {
        fence_state::rewrite_modes(agent.bpffs(), Mode::Observe)
    })?;
    wait_ready(&agent)
}

#[test]
fn other_entries_are_written_again_and_unknown_ones_removed() -> Result<()> {
    let testbed = testbed()?;
    let agent = agent(&testbed, "tcx")?;
    let address = |host: &str| match testbed.host(host).workload.ip(false) {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => anyhow::bail!("{address}"),
    };
    let (client, other) = (address("client")?, address("other")?);
    let unknown = Ipv4Addr::new(198, 18, 77, 7);
    let stopped = Stopped::new(&agent)?;
    for to in [other, unknown] {
        fence_state::copy_identity(agent.bpffs(), client, to)?;
    }
    drop(stopped);
    // A round over so few entries takes some seconds.
    let repaired = || Ok(repairs(&agent, "entry")? >= 2);
    agent.wait_until(repaired, 3 * SOON, "a repair of both")?;
    testbed.expect_silent(&DENIED)?;
    ensure!(
        fence_state::copy_identity(agent.bpffs(), unknown, unknown).is_err(),
        "the unknown address has an identity"
    );
    testbed.expect_answered(&ALLOWED)
}
