//! New fences are in force before their links are attached, and leave no qdisc behind.
//!
//! Many interfaces that nothing is behind keep the links busy, so that the workloads under test have a
//! bridge for long enough to be looked at.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Agent, AgentSpec, Attributes, InventoryBuilder, Node, fence_state};

use crate::testbed::{DENY_ALL, ProbeSpec, SOON, Tcp, Testbed, programs, run, start_clean};

const POLICIES: &str = r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"
egress = []

[[policy.ingress]]
from = [{ pods = "app=client" }]
ports = ["tcp/8080"]
"#;

const ALLOWED: [ProbeSpec; 1] = [("client", "server", Tcp(8080))];
const DENIED: [ProbeSpec; 2] = [
    ("client", "server", Tcp(8081)),
    ("server", "client", Tcp(8080)),
];

/// Interfaces that nothing is behind.
struct Idle(u32);

impl Idle {
    fn create(self, node: &Node) -> Result<Self> {
        let mut batch = String::new();
        for name in self.names() {
            writeln!(batch, "link add {name} type veth peer name {name}p")?;
            writeln!(batch, "link set {name} up\nlink set {name}p up")?;
        }
        node.ns.ip(&batch)?;
        Ok(self)
    }

    fn names(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.0).map(|index| format!("idle{index}"))
    }

    fn declared(&self, inventory: InventoryBuilder) -> InventoryBuilder {
        let mut address = Ipv4Addr::new(198, 18, 200, 0).to_bits();
        self.names().fold(inventory, |inventory, name| {
            address += 1;
            let ip: IpAddr = Ipv4Addr::from_bits(address).into();
            let attributes = Attributes::labels(&[("app", "idle")]);
            inventory.workload("shop", &name, &[ip], Some(&name), &attributes)
        })
    }
}

/// A client and a server, whose links are attached after those of so many other interfaces.
fn testbed(idle: u32) -> Result<(Testbed, Idle)> {
    let testbed = Testbed::new(&[("shop", &[])])?;
    let idle = Idle(idle).create(&testbed.node)?;
    let testbed = testbed
        .with_labels("shop/client", &[("app", "client")])?
        .with_labels("shop/server", &[("app", "server")])?;
    Ok((testbed, idle))
}

/// An agent in `enforce` that knows no workload yet.
fn agent(node: &Node, policies: &str) -> Result<Agent> {
    let spec = AgentSpec {
        inventory: node.inventory().namespace("shop", &[]).build(),
        policies: policies.to_owned(),
        default_mode: "enforce".to_owned(),
        ..AgentSpec::default()
    };
    Agent::start(node, &spec)
}

fn attached(agent: &Agent, count: u64) -> impl FnMut() -> Result<bool> {
    move || Ok(agent.cli_json(&["status"])?["attached"] == count)
}

fn wait_fenced(agent: &Agent, count: u64) -> Result<()> {
    agent.wait_until(attached(agent, count), SOON, &format!("{count} fences"))
}

/// The interfaces with a clsact qdisc.
fn with_clsact(node: &Node) -> Result<usize> {
    let output = node.ns.command("tc").args(["qdisc", "show"]).output()?;
    ensure!(output.status.success());
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .lines()
        .filter(|line| line.contains("qdisc clsact"))
        .count())
}

fn wait_without_clsact(agent: &Agent, node: &Node) -> Result<()> {
    let gone = || Ok(with_clsact(node)? == 0);
    agent.wait_until(gone, SOON, "no clsact qdisc")
}

/// Adds and removes what the CNI plugin `bandwidth` adds.
fn expect_free_for_ingress(node: &Node, interface: &str) -> Result<()> {
    for action in ["add", "del"] {
        let mut tc = node.ns.command("tc");
        let output = tc
            .args(["qdisc", action, "dev", interface, "ingress"])
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{action} ingress at {interface}: {error}"
        );
    }
    Ok(())
}

/// The ordinary state: one program at each hook of tcx, no filters.
fn expect_links_only(testbed: &Testbed, agent: &Agent) -> Result<()> {
    wait_without_clsact(agent, &testbed.node)?;
    for hook in programs(testbed, "tcx")? {
        ensure!(hook.len() == 1, "{hook:?}");
    }
    for host in &testbed.hosts {
        expect_free_for_ingress(&testbed.node, &host.workload.interface)?;
    }
    Ok(())
}

/// Numbered datagrams from one host to another, as fast as they can be sent.
struct Numbered {
    sender: UdpSocket,
    receiver: UdpSocket,
    sent: AtomicU64,
    last: AtomicU64,
}

impl Numbered {
    fn new(testbed: &Testbed, from: &str, to: &str) -> Result<Self> {
        let bind = |host: &str| {
            let at = SocketAddr::new(testbed.host(host).workload.ip(false), 0);
            testbed
                .host(host)
                .workload
                .ns
                .run(move || UdpSocket::bind(at))?
                .context("a socket")
        };
        let (sender, receiver) = (bind(from)?, bind(to)?);
        sender.connect(receiver.local_addr()?)?;
        receiver.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self {
            sender,
            receiver,
            sent: AtomicU64::new(0),
            last: AtomicU64::new(0),
        })
    }

    fn send_until(&self, done: &AtomicBool) {
        while !done.load(Ordering::Acquire) {
            let number = self.sent.fetch_add(1, Ordering::AcqRel) + 1;
            // A packet that the kernel drops at once is an error of this call.
            let _ = self.sender.send(&number.to_be_bytes());
            std::thread::yield_now();
        }
    }

    fn receive_until(&self, done: &AtomicBool) {
        let mut bytes = [0; 8];
        loop {
            match self.receiver.recv(&mut bytes) {
                Ok(8) => {
                    let number = u64::from_be_bytes(bytes);
                    self.last.fetch_max(number, Ordering::AcqRel);
                }
                Err(_) if done.load(Ordering::Acquire) => return,
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    fn last_arrived(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }
}

#[test]
fn a_bridged_fence_holds_from_the_first_moment_until_its_links_are_attached() -> Result<()> {
    let (testbed, idle) = testbed(30)?;
    let agent = agent(&testbed.node, DENY_ALL)?;
    let flows = [
        Numbered::new(&testbed, "client", "server")?,
        Numbered::new(&testbed, "server", "client")?,
    ];
    let done = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| -> Result<[u64; 2]> {
        for flow in &flows {
            scope.spawn(|| flow.send_until(&done));
            scope.spawn(|| flow.receive_until(&done));
        }
        let check = || {
            let arriving = || Ok(flows.iter().all(|flow| flow.last_arrived() > 100));
            agent.wait_until(arriving, SOON, "the control: packets both ways")?;
            agent.write_inventory(&idle.declared(testbed.inventory()).build())?;
            wait_fenced(&agent, 32)?;
            let fenced = [flows[0].sent(), flows[1].sent()];
            let bridged = with_clsact(&testbed.node)?;
            ensure!(bridged > 10, "{bridged} bridges");
            let status = agent.cli_json(&["status"])?;
            ensure!(status["enforcing"] == true, "{status}");
            wait_without_clsact(&agent, &testbed.node)?;
            let later = flows.iter().map(|flow| flow.sent() + 100);
            let later: Vec<u64> = later.collect();
            let sent = || {
                Ok(flows
                    .iter()
                    .zip(&later)
                    .all(|(flow, most)| flow.sent() > *most))
            };
            agent.wait_until(sent, SOON, "packets after the change")?;
            Ok(fenced)
        };
        let outcome = check();
        done.store(true, Ordering::Release);
        outcome
    });
    for (flow, fenced) in flows.iter().zip(outcome?) {
        let last = flow.last_arrived();
        ensure!(
            last <= fenced,
            "packet {last} arrived, fenced since {fenced}"
        );
        ensure!(flow.sent() > fenced + 100, "packets while fenced");
    }
    expect_links_only(&testbed, &agent)?;
    let status = agent.cli_json(&["status"])?;
    ensure!(
        status["ready"] == true && status["repairs"].as_array().is_none_or(Vec::is_empty),
        "{status}"
    );
    let log = agent.stderr();
    ensure!(!log.contains(" WARN "), "{log}");
    Ok(())
}

/// The flow records so far.
fn reported(agent: &Agent) -> Result<Vec<String>> {
    let text = run(agent, &["flows", "--last", "500", "-o", "json"])?;
    let describe = |line: &str| {
        let flow: serde_json::Value = serde_json::from_str(line)?;
        let part = |key: &str| flow["flow"][key].to_string();
        Ok(["verdict", "IP", "l4", "traffic_direction"]
            .map(part)
            .join(" "))
    };
    text.lines().map(describe).collect()
}

#[test]
fn a_fence_of_links_and_filters_decides_once_and_reports_once() -> Result<()> {
    let (testbed, _) = testbed(0)?;
    let agent = agent(&testbed.node, POLICIES)?;
    agent.write_inventory(&testbed.inventory().build())?;
    wait_fenced(&agent, 2)?;
    wait_without_clsact(&agent, &testbed.node)?;
    // What there is for a moment, for longer.
    let maps = fence_state::pin(agent.bpffs(), "ENDPOINTS")?;
    let base = maps.ancestors().nth(2).context("the ABI's directory")?;
    for host in &testbed.hosts {
        let interface = &host.workload.interface;
        let program = |name: &str| base.join("programs").join(name).display().to_string();
        let (from, to) = (program("from_workload"), program("to_workload"));
        let filter = |hook: &str, program: &str| {
            format!(
                "filter add dev {interface} {hook} pref 1 handle 0x5246 bpf da object-pinned {program}"
            )
        };
        for command in [
            format!("qdisc add dev {interface} clsact"),
            filter("ingress", &from),
            filter("egress", &to),
        ] {
            let mut tc = testbed.node.ns.command("tc");
            let output = tc.args(command.split_whitespace()).output()?;
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{command}: {error}");
        }
    }
    testbed.expect_answered(&ALLOWED)?;
    testbed.expect_silent(&DENIED)?;
    let mut flows = Vec::new();
    let read = || {
        flows = reported(&agent)?;
        // Over IPv4 and over IPv6: what is allowed at both ends, what is denied at one.
        Ok(flows.len() >= 2 * (2 + 2))
    };
    agent.wait_until(read, SOON, "flow records")?;
    let count = flows.len();
    flows.sort();
    flows.dedup();
    ensure!(flows.len() == count, "reported twice: {flows:#?}");
    Ok(())
}

#[test]
fn an_agent_that_is_killed_leaves_no_qdisc_after_its_next_start_or_cleanup() -> Result<()> {
    let (testbed, idle) = testbed(40)?;
    let mut agent = agent(&testbed.node, POLICIES)?;
    let inventory = idle.declared(testbed.inventory()).build();
    let bridged_and_killed = |agent: &mut Agent| -> Result<()> {
        agent.write_inventory(&inventory)?;
        wait_fenced(agent, 42)?;
        agent.kill()?;
        let bridged = with_clsact(&testbed.node)?;
        ensure!(bridged > 10, "{bridged} bridges");
        testbed.expect_silent(&DENIED)?;
        testbed.expect_answered(&ALLOWED)
    };
    let empty = testbed.node.inventory().namespace("shop", &[]).build();
    let unfenced = |agent: &Agent| {
        agent.write_inventory(&empty)?;
        wait_fenced(agent, 0)
    };
    bridged_and_killed(&mut agent)?;
    agent.restart()?;
    wait_fenced(&agent, 42)?;
    testbed.expect_silent(&DENIED)?;
    expect_links_only(&testbed, &agent)?;
    // Workloads that are gone when it starts again.
    unfenced(&agent)?;
    bridged_and_killed(&mut agent)?;
    agent.write_inventory(&testbed.inventory().build())?;
    agent.restart()?;
    wait_fenced(&agent, 2)?;
    expect_links_only(&testbed, &agent)?;
    unfenced(&agent)?;
    bridged_and_killed(&mut agent)?;
    let path = agent.config_path();
    run(&agent, &["cleanup", "--config", &path.to_string_lossy()])?;
    ensure!(with_clsact(&testbed.node)? == 0);
    testbed.expect_answered(&DENIED).context("the control")
}

#[test]
fn nothing_is_bridged_where_the_plugin_bandwidth_is_in_use_or_the_configuration_says_so()
-> Result<()> {
    let idle = Idle(5);
    let cases: [(&str, &[&str]); 3] = [
        ("", &["link add bwp0a1b2c3d4e5f type ifb\n"]),
        ("", &["ingress"]),
        ("attach-bridge = false", &[]),
    ];
    for (line, setup) in cases {
        let node = Node::new()?;
        let idle = Idle(idle.0).create(&node)?;
        let mut agent = agent(&node, DENY_ALL)?;
        if !line.is_empty() {
            start_clean(&mut agent, line)?;
        }
        match setup {
            ["ingress"] => {
                let mut tc = node.ns.command("tc");
                let added = tc
                    .args(["qdisc", "add", "dev", "idle0", "ingress"])
                    .status()?;
                ensure!(added.success());
            }
            _ => setup.iter().try_for_each(|batch| node.ns.ip(batch))?,
        }
        // When this one has its fence, the agent has seen what was there before.
        let ip: IpAddr = Ipv4Addr::new(198, 18, 201, 1).into();
        let inventory = node.inventory().namespace("shop", &[]).workload(
            "shop",
            "last",
            &[ip],
            Some("last"),
            &Attributes::default(),
        );
        agent.write_inventory(&inventory.build())?;
        let add = "link add last type veth peer name lastp\nlink set last up\n";
        node.ns.ip(add)?;
        wait_fenced(&agent, 1)?;
        wait_without_clsact(&agent, &node)?;
        let (seen, done) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| -> Result<()> {
            let watch = scope.spawn(|| -> Result<()> {
                while !done.load(Ordering::Acquire) {
                    seen.fetch_max(with_clsact(&node)? as u64, Ordering::AcqRel);
                }
                Ok(())
            });
            let fenced = agent
                .write_inventory(&idle.declared(inventory).build())
                .and_then(|()| wait_fenced(&agent, 6));
            done.store(true, Ordering::Release);
            watch.join().unwrap()?;
            fenced
        })?;
        let seen = seen.load(Ordering::Acquire);
        ensure!(seen == 0, "{seen} bridges with {line:?} {setup:?}");
    }
    Ok(())
}

/// How long the agent took for the pass that fenced so many interfaces, in milliseconds.
fn time_to_fence(agent: &Agent, count: usize) -> Result<f64> {
    let log = agent.stderr();
    let marker = format!(" {count} endpoints fenced, ");
    let line = log.lines().rev().find(|line| line.contains(&marker));
    let (_, time) = line
        .and_then(|line| line.split_once(&marker))
        .with_context(|| log.clone())?;
    let units = [("ms", 1.0), ("µs", 0.001), ("s", 1000.0)];
    let found = units.iter().find_map(|(unit, factor)| {
        let number: f64 = time.trim().strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    });
    found.with_context(|| format!("no time in {time:?}"))
}

#[test]
fn a_hundred_and_ten_interfaces_are_fenced_in_a_fraction_of_the_time() -> Result<()> {
    let node = Node::new()?;
    let idle = Idle(110).create(&node)?;
    let empty = node.inventory().namespace("shop", &[]);
    let declared = idle.declared(empty.clone()).build();
    let mut agent = agent(&node, DENY_ALL)?;
    let fence_all = |agent: &Agent| {
        agent.write_inventory(&declared)?;
        agent.wait_until(attached(agent, 110), 3 * SOON, "110 fences")?;
        time_to_fence(agent, 110)
    };
    // Other tests hold the kernel's lock over all network devices, too. Alone it is a hundredth.
    let bridged = fence_all(&agent)?;
    agent.write_inventory(&empty.build())?;
    wait_fenced(&agent, 0)?;
    start_clean(&mut agent, "attach-bridge = false")?;
    let waited = fence_all(&agent)?;
    println!("110 interfaces: {bridged:.1} ms bridged, {waited:.1} ms without");
    ensure!(bridged <= 0.5 * waited, "{bridged} ms of {waited} ms");
    Ok(())
}
