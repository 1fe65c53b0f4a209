//! What rules for the world, and for ranges as wide as it, do not reach on a real node: its link-local and
//! unlisted addresses, and the cluster's unlisted ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::probe::run_all;
use ringfence_testbed::{Agent, AgentSpec, Outcome, Probe, Proto, Server};

use crate::testbed::{SHORT, SOON, Testbed, run};

/// The ports that are open to the world, to every address, and to the node with its link-local addresses.
const WORLD: u16 = 9801;
const EVERY: u16 = 9802;
const NAMED: u16 = 9803;

const POLICY: &str = r#"
[[policy]]
name = "outgoing"
namespace = "shop"
subject = ""

[[policy.egress]]
to = [{ entity = "world" }]
ports = ["tcp/9801"]

[[policy.egress]]
to = [{ cidr = "0.0.0.0/0" }, { cidr = "::/0" }]
ports = ["tcp/9802"]

[[policy.egress]]
to = [{ entity = "host" }]
ports = ["tcp/9803"]
"#;

/// The addresses that every node of this test bed has at the workload's link.
const LINK_LOCAL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];
/// Addresses of the node that no inventory lists: of its start, and of later.
const UNLISTED: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 77, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0x77, 0, 0, 0, 1)),
];
/// An address that is the node's because it is in a prefix of the loopback device, and that prefix.
const IN_RANGE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 79, 9));
const RANGE: &str = "198.18.79.1/24";
const LATER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 77, 2)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0x77, 0, 0, 0, 2)),
];

struct Scene {
    testbed: Testbed,
    at_node: Server,
    outside: Server,
}

impl Scene {
    fn new() -> Result<Self> {
        let testbed = Testbed::new(&[("shop", &[])])?
            .with_labels("shop/client", &[])?
            .with_labels("outside", &[])?;
        let served = [WORLD, EVERY, NAMED].map(|port| (Proto::Tcp, port));
        let at_node = Server::start(&testbed.node.ns, &served)?;
        let outside = Server::start(&testbed.host("outside").workload.ns, &served)?;
        add(&testbed, UNLISTED)?;
        testbed.node.ns.ip(&format!("addr add {RANGE} dev lo\n"))?;
        Ok(Self {
            testbed,
            at_node,
            outside,
        })
    }

    fn agent(&self, keys: &str) -> Result<Agent> {
        let spec = AgentSpec {
            inventory: self.testbed.inventory().build(),
            policies: POLICY.to_owned(),
            default_mode: "observe".to_owned(),
            keys: keys.to_owned(),
            ..AgentSpec::default()
        };
        Agent::start(&self.testbed.node, &spec)
    }

    fn probe(&self, server: &Server, to: IpAddr, port: u16, most: Duration) -> Result<Outcome> {
        let client = &self.testbed.host("client").workload;
        let to = match to {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                let index = client.ns.run(|| nix::net::if_::if_nametoindex("eth0"))??;
                SocketAddrV6::new(ip, port, 0, index).into()
            }
            ip => SocketAddr::new(ip, port),
        };
        // Its own link-local address is good for discovery only.
        let from = SocketAddr::new(client.ip(to.is_ipv6()), 0);
        let probe = Probe::new(Proto::Tcp, to).from(from).seen_by(server);
        let outcomes = run_all(&client.ns, &[probe], most)?;
        outcomes.first().copied().context("no outcome")
    }

    /// Which of the ports the client reaches at an address.
    fn reached(&self, server: &Server, to: IpAddr) -> Result<Vec<u16>> {
        let mut reached = Vec::new();
        for port in [WORLD, EVERY, NAMED] {
            match self.probe(server, to, port, SHORT)? {
                Outcome::Silent => {}
                _ => reached.push(port),
            }
        }
        Ok(reached)
    }

    fn expect_all(&self) -> Result<()> {
        let outside = self.testbed.host("outside").workload.ips();
        let node = LINK_LOCAL.into_iter().chain(UNLISTED).chain([IN_RANGE]);
        let node = node.map(|ip| (&self.at_node, ip));
        for (server, ip) in outside
            .map(|ip| (&self.outside, ip))
            .into_iter()
            .chain(node)
        {
            for port in [WORLD, EVERY, NAMED] {
                let outcome = self.probe(server, ip, port, SOON)?;
                ensure!(outcome == Outcome::Answered, "{ip} {port}: {outcome:?}");
            }
        }
        Ok(())
    }
}

fn add(testbed: &Testbed, [v4, v6]: [IpAddr; 2]) -> Result<()> {
    testbed.node.ns.ip(&format!(
        "addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\n"
    ))
}

#[test]
fn the_world_ends_at_the_node_and_at_the_link() -> Result<()> {
    let scene = Scene::new()?;
    let agent = scene.agent("")?;
    scene.expect_all().context("the control, in observe")?;
    run(&agent, &["mode", "set", "shop", "enforce"])?;
    for ip in scene.testbed.host("outside").workload.ips() {
        ensure!(scene.reached(&scene.outside, ip)? == [WORLD, EVERY], "{ip}");
    }
    for ip in LINK_LOCAL {
        ensure!(scene.reached(&scene.at_node, ip)? == [NAMED], "{ip}");
    }
    for ip in UNLISTED.into_iter().chain([IN_RANGE]) {
        ensure!(scene.reached(&scene.at_node, ip)? == [EVERY, NAMED], "{ip}");
    }
    for ip in LATER {
        let outcome = scene.probe(&scene.at_node, ip, WORLD, SHORT)?;
        ensure!(outcome != Outcome::Answered, "it is nowhere yet: {ip}");
    }
    add(&scene.testbed, LATER)?;
    for ip in LATER {
        let is_host = || Ok(scene.reached(&scene.at_node, ip)? == [EVERY, NAMED]);
        agent.wait_until(is_host, SOON, &format!("{ip} as the node's"))?;
    }
    Ok(())
}

#[test]
fn unlisted_addresses_of_the_cluster_are_not_the_world() -> Result<()> {
    let scene = Scene::new()?;
    let ranges = scene.testbed.host("outside").workload.ips();
    let ranges = ranges.map(|ip| format!("\"{}\"", ipnet::IpNet::from(ip)));
    let agent = scene.agent(&format!("cluster-ranges = [{}]\n", ranges.join(", ")))?;
    scene.expect_all().context("the control, in observe")?;
    run(&agent, &["mode", "set", "shop", "enforce"])?;
    for ip in scene.testbed.host("outside").workload.ips() {
        ensure!(scene.reached(&scene.outside, ip)? == [EVERY], "{ip}");
    }
    Ok(())
}
