//! Senders to which the node gives one of its addresses: the workload itself, through its own Service, a
//! neighbour, and an outside host at a port of the node.
//!
//! Each is tried on a node that routes and on one with a bridge, whose packets netfilter sees or not. The
//! control is that everything is answered in `observe`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::probe::run_all;
use ringfence_testbed::{Agent, NetNs, Node, Outcome, Probe, Proto};
use serde_json::Value;

use crate::testbed::{SHORT, SOON, Testbed, apply, run};

/// The server's Service.
const SERVICE: [&str; 2] = ["198.18.7.7", "2001:db8:18:7::7"];
/// Its port, and that of the node.
const PORT: u16 = 80;
const NODE_PORT: u16 = 30080;
/// What the server serves over TCP and UDP.
const SERVED: u16 = 9005;

/// The server may be reached from these, and reach its Service.
fn policy(from: &str) -> String {
    let [v4, v6] = SERVICE;
    format!(
        r#"
[[policy]]
name = "server"
namespace = "shop"
subject = "app=server"
{from}

[[policy.egress]]
to = [{{ cidr = "{v4}/32" }}, {{ cidr = "{v6}/128" }}]
"#
    )
}

const NOTHING: &str = "ingress = []";

fn from_entity(entity: &str) -> String {
    format!("[[policy.ingress]]\nfrom = [{{ entity = \"{entity}\" }}]")
}

fn nft(ns: &NetNs, script: &str) -> Result<()> {
    let mut nft = ns.command("nft");
    let mut child = nft
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting nft (nftables)")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{error}\n{script}");
    Ok(())
}

/// What writes the node's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Nftables,
    /// Also that of the CNI plugin `portmap`, whose ports on the node are like these.
    Iptables,
}

/// What kube-proxy does: Service and node port lead to the server, with the node as source.
fn serve(node: &Node, server: [IpAddr; 2], backend: Backend) -> Result<()> {
    match backend {
        Backend::Nftables => serve_by_nftables(node, server),
        Backend::Iptables => serve_by_iptables(node, server),
    }
}

fn serve_by_iptables(node: &Node, server: [IpAddr; 2]) -> Result<()> {
    for (v6, ip) in server.into_iter().enumerate() {
        let program = ["iptables", "ip6tables"][v6];
        let to = SocketAddr::new(ip, SERVED).to_string();
        let at_node = node.ips()[v6].to_string();
        let append = |rule: &[&str]| {
            let mut command = node.ns.command(program);
            let output = command.args(["-w", "-t", "nat", "-A"]).args(rule).output();
            let output = output.with_context(|| format!("starting {program}"))?;
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{program} {rule:?}: {error}");
            Ok(())
        };
        for (address, port) in [(SERVICE[v6], PORT), (&at_node, NODE_PORT)] {
            for protocol in ["tcp", "udp"] {
                let port = port.to_string();
                let packets = [
                    "PREROUTING",
                    "-d",
                    address,
                    "-p",
                    protocol,
                    "--dport",
                    &port,
                ];
                append(&[packets.as_slice(), &["-j", "DNAT", "--to-destination", &to]].concat())?;
            }
        }
        let translated = ["POSTROUTING", "-m", "conntrack", "--ctstate", "DNAT"];
        append(
            &[
                translated.as_slice(),
                &["-j", "SNAT", "--to-source", &at_node],
            ]
            .concat(),
        )?;
    }
    Ok(())
}

fn serve_by_nftables(node: &Node, server: [IpAddr; 2]) -> Result<()> {
    for (v6, ip) in server.into_iter().enumerate() {
        let (family, to) = match ip {
            IpAddr::V4(ip) => ("ip", format!("{ip}:{SERVED}")),
            IpAddr::V6(ip) => ("ip6", format!("[{ip}]:{SERVED}")),
        };
        let (service, at_node) = (SERVICE[v6], node.ips()[v6]);
        nft(
            &node.ns,
            &format!(
                "table {family} service {{
                    chain to {{
                        type nat hook prerouting priority dstnat;
                        {family} daddr {service} meta l4proto {{ tcp, udp }} th dport {PORT} dnat to {to}
                        {family} daddr {at_node} meta l4proto {{ tcp, udp }} th dport {NODE_PORT} dnat to {to}
                    }}
                    chain from {{
                        type nat hook postrouting priority srcnat;
                        ct status dnat snat to {at_node}
                    }}
                }}\n"
            ),
        )?;
    }
    Ok(())
}

/// How the workloads are connected to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Routed,
    Bridged,
    /// Bridged, and netfilter sees what the bridge forwards (`br_netfilter`): kube-proxy's usual setting. What is
    /// translated back to its own port needs the port in hairpin mode, in which CNI's bridge plugin can put it.
    BridgedAndFiltered,
}

/// Puts the workloads of a routing node on a bridge, whose addresses are their gateways.
fn bridge(testbed: &Testbed, is_filtered: bool) -> Result<()> {
    use std::fmt::Write as _;
    let mut batch = "link add br0 type bridge\nlink set br0 up\n\
         addr add 169.254.1.1/32 dev br0\naddr add fe80::1/64 dev br0 nodad\n"
        .to_owned();
    for host in &testbed.hosts {
        let interface = &host.workload.interface;
        writeln!(batch, "addr flush dev {interface}")?;
        writeln!(batch, "link set {interface} master br0")?;
        if is_filtered {
            writeln!(batch, "link set {interface} type bridge_slave hairpin on")?;
        }
        writeln!(batch, "route replace {}/32 dev br0", host.workload.ip4)?;
        writeln!(batch, "route replace {}/128 dev br0", host.workload.ip6)?;
    }
    let ns = &testbed.node.ns;
    ns.ip(&batch)?;
    let is_known = ns.run(|| Path::new("/proc/sys/net/bridge").exists())?;
    ensure!(
        is_known || !is_filtered,
        "br_netfilter is not loaded, without which this cannot be tested: modprobe br_netfilter"
    );
    if is_known {
        let value = if is_filtered { "1" } else { "0" };
        for family in ["ip", "ip6"] {
            ns.sysctl(&format!("net.bridge.bridge-nf-call-{family}tables"), value)?;
        }
    }
    Ok(())
}

struct Setup {
    testbed: Testbed,
    link: Link,
}

impl Setup {
    fn new(link: Link, backend: Backend) -> Result<Self> {
        let testbed = Testbed::new(&[("shop", &[])])?
            .with_labels("shop/server", &[("app", "server")])?
            .with_labels("shop/neighbour", &[("app", "neighbour")])?
            .with_labels("outside", &[])?;
        serve(
            &testbed.node,
            testbed.host("server").workload.ips(),
            backend,
        )?;
        if link != Link::Routed {
            bridge(&testbed, link == Link::BridgedAndFiltered)?;
        }
        Ok(Self { testbed, link })
    }

    /// Probes a port at both addresses from a host, over TCP and UDP.
    #[track_caller]
    fn expect(&self, from: &str, to: [IpAddr; 2], port: u16, expected: Outcome) -> Result<()> {
        let server = &self.testbed.host("server").server;
        let mut probes = Vec::new();
        for ip in to {
            for proto in [Proto::Tcp, Proto::Udp] {
                probes.push(Probe::new(proto, SocketAddr::new(ip, port)).seen_by(server));
            }
        }
        let ns = match from {
            "node" => &self.testbed.node.ns,
            name => &self.testbed.host(name).workload.ns,
        };
        let deadline = if expected == Outcome::Answered {
            SOON
        } else {
            SHORT
        };
        let outcomes = run_all(ns, &probes, deadline)?;
        ensure!(
            outcomes.iter().all(|outcome| *outcome == expected),
            "{from} to {to:?} port {port}, {:?}: {outcomes:?}",
            self.link
        );
        Ok(())
    }

    fn service() -> Result<[IpAddr; 2]> {
        let [v4, v6] = SERVICE;
        Ok([v4.parse()?, v6.parse()?])
    }

    /// What arrives of the others to which the node gives its address.
    fn expect_others(&self, expected: Outcome) -> Result<()> {
        self.expect("neighbour", Self::service()?, PORT, expected)?;
        for from in ["neighbour", "outside"] {
            self.expect(from, self.testbed.node.ips(), NODE_PORT, expected)?;
        }
        Ok(())
    }

    /// What arrives of the server itself.
    fn expect_itself(&self, expected: Outcome) -> Result<()> {
        self.expect("server", Self::service()?, PORT, expected)
    }

    /// Waits until the records after the first `earlier` ones name these senders and verdicts, and no others,
    /// of what arrived at the server from an address of the node. Sends again what is dropped: of a flow that was
    /// denied before, there is one record every five seconds.
    fn expect_records(&self, agent: &Agent, earlier: usize, expected: &[&str]) -> Result<()> {
        let mut named = BTreeSet::new();
        let expected = expected.iter().map(ToString::to_string).collect();
        let all_named = || {
            let records = records(agent)?;
            let new = records.iter().skip(earlier);
            named = new
                .filter_map(|record| self.sender_and_verdict(record))
                .collect();
            let is_complete = named.is_superset(&expected);
            if !is_complete {
                self.expect_others(Outcome::Silent)?;
            }
            Ok(is_complete)
        };
        let waited = agent.wait_until(all_named, 3 * SOON, "the records of a step");
        waited.with_context(|| format!("{:?}: {named:?}", self.link))?;
        ensure!(named == expected, "{:?}: {named:?}", self.link);
        Ok(())
    }

    fn sender_and_verdict(&self, record: &Value) -> Option<String> {
        let source: IpAddr = record["IP"]["source"].as_str()?.parse().ok()?;
        let is_enforced = record["verdict"] != "AUDIT";
        if !self.testbed.node.ips().contains(&source) || !is_enforced {
            return None;
        }
        let sender = if record["source"]["identity"] == record["destination"]["identity"] {
            "itself"
        } else {
            record["source"]["labels"][0].as_str()?
        };
        Some(format!("{sender} {}", record["verdict"].as_str()?))
    }

    fn expect_node(&self) -> Result<()> {
        let server = self.testbed.host("server").workload.ips();
        self.expect("node", server, SERVED, Outcome::Answered)
    }
}

/// The flow records so far.
fn records(agent: &Agent) -> Result<Vec<Value>> {
    let text = run(agent, &["flows", "--last", "1000", "-o", "json"])?;
    let record = |line: &str| -> Result<Value> {
        let line: Value = serde_json::from_str(line)?;
        Ok(line["flow"].clone())
    };
    text.lines().map(record).collect()
}

#[test]
fn only_sockets_of_the_node_pass_without_a_rule() -> Result<()> {
    for (link, backend) in [
        (Link::Routed, Backend::Nftables),
        (Link::Routed, Backend::Iptables),
        (Link::Bridged, Backend::Nftables),
        (Link::BridgedAndFiltered, Backend::Nftables),
        (Link::BridgedAndFiltered, Backend::Iptables),
    ] {
        let setup = Setup::new(link, backend)?;
        let agent = setup.testbed.agent("observe", &policy(NOTHING))?;
        setup
            .expect_others(Outcome::Answered)
            .and_then(|()| setup.expect_itself(Outcome::Answered))
            .context("the control, in observe")?;
        setup.testbed.set_mode(&agent, "enforce")?;
        // What the node routes back to a bridge has the bridge as ingress interface, for any sender.
        let itself = match link {
            Link::Bridged => Outcome::Silent,
            Link::Routed | Link::BridgedAndFiltered => Outcome::Answered,
        };
        let mut expected = vec!["reserved:host FORWARDED", "reserved:remote-node DROPPED"];
        if itself == Outcome::Answered {
            expected.push("itself FORWARDED");
        }
        for from in [NOTHING.to_owned(), from_entity("host")] {
            apply(&agent, &policy(&from))?;
            let earlier = records(&agent)?.len();
            setup.expect_others(Outcome::Silent)?;
            setup.expect_itself(itself)?;
            setup.expect_node()?;
            setup.expect_records(&agent, earlier, &expected)?;
        }
        apply(&agent, &policy(&from_entity("remote-node")))?;
        setup.expect_others(Outcome::Answered)?;
        setup.expect_itself(Outcome::Answered)?;
        let admitted = Some("reserved:remote-node FORWARDED".to_owned());
        let is_named = || {
            let records = records(&agent)?;
            let mut named = records.iter().map(|it| setup.sender_and_verdict(it));
            Ok(named.any(|named| named == admitted))
        };
        agent.wait_until(is_named, SOON, "a record of an admitted client")?;
        // What it may not reach otherwise it does not reach at the node's ports either.
        apply(&agent, &policy(NOTHING))?;
        setup.expect_others(Outcome::Silent)?;
        setup.expect_itself(itself)?;
    }
    Ok(())
}
