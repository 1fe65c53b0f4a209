//! A workload that may reach its node puts packets into the node's tunnel, with the address of a workload that
//! may do more.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_testbed::attack::craft;
use ringfence_testbed::{Agent, NetNs, frame};

use crate::testbed::{SHORT, SOON, Testbed, apply, run};

/// The victim's port that the client may use, and the port of the node's tunnels.
const OPEN: u16 = 9406;
const TUNNEL: u16 = 4789;
/// The hardware address of the node's tunnel devices, and the identifier of the first one's network.
const DEVICE: [u8; 6] = [2, 0, 0, 0, 0, 0x42];
const NETWORK: u8 = 42;

const POLICY: &str = r#"
[[policy]]
name = "victim"
namespace = "shop"
subject = "app=victim"

[[policy.ingress]]
from = [{ pods = "app=client" }]
ports = ["udp/9406"]

[[policy]]
name = "attacker"
namespace = "shop"
subject = "app=attacker"

[[policy.egress]]
to = [{ entity = "host" }]
"#;

struct Scene {
    testbed: Testbed,
    /// Where the victim receives, over both families.
    victim: UdpSocket,
}

impl Scene {
    fn new() -> Result<Self> {
        let labels = |app| [("app", app)];
        let testbed = Testbed::new(&[("shop", &[])])?
            .with_labels("shop/victim", &labels("victim"))?
            .with_labels("shop/client", &labels("client"))?
            .with_labels("shop/attacker", &labels("attacker"))?;
        let device = DEVICE.map(|byte| format!("{byte:02x}")).join(":");
        for (id, ip) in (NETWORK..).zip(testbed.node.ips()) {
            testbed.node.ns.ip(&format!(
                "link add vx{id} type vxlan id {id} dstport {TUNNEL} local {ip}\n\
                 link set vx{id} address {device} up\n"
            ))?;
        }
        let victim = bind(&testbed.host("victim").workload.ns, OPEN)?;
        Ok(Self { testbed, victim })
    }

    /// A packet from the attacker that says it is from the client, in a tunnel packet to the node.
    fn borrow(&self, v6: bool, mark: u8) -> Result<()> {
        let node = self.testbed.node.ips()[usize::from(v6)];
        self.borrow_by(SocketAddr::new(node, TUNNEL), mark)
    }

    /// The same in a tunnel packet to all hosts on the attacker's link, of which the node is one.
    fn borrow_on_link(&self, v6: bool, mark: u8) -> Result<()> {
        if !v6 {
            return self.borrow_by((Ipv4Addr::BROADCAST, TUNNEL).into(), mark);
        }
        let attacker = &self.testbed.host("attacker").workload;
        let link = attacker
            .ns
            .run(|| nix::net::if_::if_nametoindex("eth0"))??;
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        self.borrow_by(SocketAddrV6::new(all_nodes, TUNNEL, 0, link).into(), mark)
    }

    fn borrow_by(&self, to: SocketAddr, mark: u8) -> Result<()> {
        let v6 = to.is_ipv6();
        let ip = |name| self.testbed.host(name).workload.ip(v6);
        let datagram = craft::udp(OPEN, OPEN, &[mark; 8]);
        let packet = craft::ip(ip("client"), ip("victim"), 17, &checked(&ip, datagram));
        let ethertype = craft::ethertype_of(ip("victim"));
        let inner = frame::ethernet(DEVICE, craft::FROM, ethertype, &packet);
        let header = [8, 0, 0, 0, 0, 0, NETWORK + u8::from(v6), 0];
        let attacker = &self.testbed.host("attacker").workload;
        // Its link-local address would not be its own for datagrams.
        let from = (attacker.ip(v6), 0);
        let attacker = attacker.ns.run(|| UdpSocket::bind(from))??;
        attacker.set_broadcast(!v6)?;
        attacker.send_to(&[header.as_slice(), &inner].concat(), to)?;
        Ok(())
    }

    /// Whether the victim receives a packet with this mark within this time. One that arrives later fails the
    /// step in which it does: what comes next is another mark, and nothing but this one is expected.
    fn received(&self, mark: u8, most: Duration) -> Result<bool> {
        self.victim.set_read_timeout(Some(most))?;
        let mut buffer = [0; 64];
        match self.victim.recv(&mut buffer) {
            Ok(8) if buffer.starts_with(&[mark; 8]) => Ok(true),
            Ok(_) => bail!("another packet than {mark}: {buffer:?}"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("receiving"),
        }
    }

    fn expect(&self, mark: u8, arrives: bool) -> Result<()> {
        self.expect_of(Self::borrow, mark, arrives)
    }

    fn expect_of(
        &self,
        borrow: fn(&Self, bool, u8) -> Result<()>,
        mark: u8,
        arrives: bool,
    ) -> Result<()> {
        for v6 in [false, true] {
            let mark = mark + u8::from(v6);
            borrow(self, v6, mark)?;
            let most = if arrives { SOON } else { SHORT };
            ensure!(
                self.received(mark, most)? == arrives,
                "v6 {v6}, mark {mark}"
            );
        }
        Ok(())
    }
}

/// The datagram with its checksum, without which IPv6 discards it.
fn checked(ip: &impl Fn(&'static str) -> IpAddr, mut datagram: Vec<u8>) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let length = u16::try_from(datagram.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let pseudo = [
        octets(ip("client")),
        octets(ip("victim")),
        vec![0, 17],
        length.to_vec(),
    ];
    let all = [pseudo.concat(), datagram.clone()].concat();
    let words = all
        .chunks(2)
        .map(|it| u32::from(it[0]) << 8 | u32::from(it[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or(0);
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

fn bind(ns: &NetNs, port: u16) -> Result<UdpSocket> {
    ns.run(|| UdpSocket::bind(("::", port)))?.context("binding")
}

fn enforce(agent: &Agent) -> Result<()> {
    run(agent, &["mode", "set", "shop", "enforce"]).map(drop)
}

#[test]
fn no_identity_is_borrowed_through_a_tunnel_of_the_node() -> Result<()> {
    let scene = Scene::new()?;
    let agent = scene.testbed.agent("observe", POLICY)?;
    scene.expect(1, true).context("the control, in observe")?;
    enforce(&agent)?;
    scene.expect(3, false)?;
    // The client itself is still believed.
    let client = bind(&scene.testbed.host("client").workload.ns, 0)?;
    let victim = SocketAddr::new(scene.testbed.host("victim").workload.ip(false), OPEN);
    client.send_to(&[5; 8], victim)?;
    ensure!(scene.received(5, SOON)?, "the client");
    // No policy selects the attacker any more, and no default allows tunnels either.
    let (open, _) = POLICY
        .split_once("[[policy]]\nname = \"attacker\"")
        .context("no such policy")?;
    apply(&agent, open)?;
    scene.expect(7, false).context("by default")?;
    let named = POLICY.replace(
        "to = [{ entity = \"host\" }]\n",
        "to = [{ entity = \"host\" }]\nports = [\"udp/4789\"]\n",
    );
    apply(&agent, &named)?;
    scene
        .expect(9, true)
        .context("by a rule that names the port")
}

#[test]
fn no_identity_is_borrowed_through_a_tunnel_by_broadcast_or_multicast() -> Result<()> {
    let scene = Scene::new()?;
    let on_link = r#"to = [{ cidr = "255.255.255.255/32" }, { cidr = "ff00::/8" }]"#;
    let policy = POLICY.replace(r#"to = [{ entity = "host" }]"#, on_link);
    let agent = scene.testbed.agent("observe", &policy)?;
    let expect = |mark, arrives| scene.expect_of(Scene::borrow_on_link, mark, arrives);
    expect(1, true).context("the control, in observe")?;
    enforce(&agent)?;
    expect(3, false)?;
    let named = policy.replace(on_link, &format!("{on_link}\nports = [\"udp/4789\"]"));
    apply(&agent, &named)?;
    expect(5, true).context("by a rule that names the port")
}
