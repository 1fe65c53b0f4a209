//! Tests of the test bed itself: every component works without an agent.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::probe::run_all;
use ringfence_testbed::{
    Addresses, Agent, AgentSpec, Attributes, Delivery, End, Load, LoadSpec, NetNs, Node, Nonce,
    Outcome, Probe, Proto, Server, Stream, Workload, eventually, frame,
};

const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(150);
const ALL: [(Proto, u16); 3] = [(Proto::Tcp, 0), (Proto::Udp, 0), (Proto::Icmp, 0)];

/// All probes of one server, over every protocol and address family.
fn probes<'a>(server: &'a Server, ips: &[IpAddr]) -> Result<Vec<Probe<'a>>> {
    let mut probes = Vec::new();
    for &ip in ips {
        for (proto, size) in [
            (Proto::Tcp, 0),
            (Proto::Udp, 0),
            (Proto::Udp, 4000),
            (Proto::Icmp, 0),
            (Proto::Icmp, 4000),
        ] {
            probes.push(Probe::of(server, proto, ip)?.size(size));
        }
    }
    Ok(probes)
}

fn reaches(from: &NetNs, server: &Server, ips: &[IpAddr]) -> Result<()> {
    let outcomes = run_all(from, &probes(server, ips)?, SOON)?;
    let all = outcomes.iter().all(|outcome| *outcome == Outcome::Answered);
    ensure!(all, "{ips:?}: {outcomes:?}");
    Ok(())
}

#[test]
fn workloads_external_hosts_and_the_node_reach_each_other() -> Result<()> {
    let node = Node::new()?;
    let ends = [
        node.workload("shop", "orders-1")?,
        node.workload("shop", "frontend-1")?,
        node.outside("ext")?,
    ];
    let at_node = Server::start(&node.ns, &ALL)?;
    for to in &ends {
        let server = Server::start(&to.ns, &ALL)?;
        reaches(&node.ns, &server, &to.ips())?;
        reaches(&to.ns, &at_node, &node.ips())?;
        for from in ends.iter().filter(|from| from.interface != to.interface) {
            reaches(&from.ns, &server, &to.ips())?;
        }
        // Three clients, ten probes each.
        ensure!(server.seen()? == 30, "{} nonces seen", server.seen()?);
    }
    Ok(())
}

#[test]
fn workloads_have_own_addresses_and_interfaces() -> Result<()> {
    let node = Node::new()?;
    let workloads = (0..10)
        .map(|number| node.workload("x", &format!("w-{number}")))
        .collect::<Result<Vec<Workload>>>()?;
    let addresses: HashSet<_> = workloads.iter().flat_map(Workload::ips).collect();
    let interfaces: HashSet<_> = workloads.iter().map(|it| &it.interface).collect();
    ensure!((addresses.len(), interfaces.len()) == (20, 10));
    Ok(())
}

/// Makes the node silently drop packets to this workload.
fn cut(node: &Node, workload: &Workload) -> Result<()> {
    let Workload { ip4, ip6, .. } = workload;
    node.ns.ip(&format!(
        "route del {ip4}/32\nroute add blackhole {ip4}/32\n\
         route del {ip6}/128\nroute add blackhole {ip6}/128\n"
    ))
}

fn reconnect(node: &Node, workload: &Workload) -> Result<()> {
    let Workload {
        ip4,
        ip6,
        interface,
        ..
    } = workload;
    node.ns.ip(&format!(
        "route del blackhole {ip4}/32\nroute add {ip4}/32 dev {interface}\n\
         route del blackhole {ip6}/128\nroute add {ip6}/128 dev {interface}\n"
    ))
}

#[test]
fn an_undelivered_probe_is_silent_and_a_lost_answer_counts_as_delivered() -> Result<()> {
    let node = Node::new()?;
    let from = node.workload("x", "a")?;
    let to = node.workload("x", "b")?;
    let server = Server::start(&to.ns, &ALL)?;
    reaches(&from.ns, &server, &to.ips())?;
    let check = |proto: Proto, expected: Outcome| -> Result<()> {
        for ip in to.ips() {
            let outcome = Probe::of(&server, proto, ip)?.run(&from.ns, SHORT)?;
            ensure!(outcome == expected, "{proto:?} {ip}: {outcome:?}");
        }
        Ok(())
    };

    cut(&node, &to)?;
    for proto in [Proto::Tcp, Proto::Udp, Proto::Icmp] {
        check(proto, Outcome::Silent)?;
    }
    reconnect(&node, &to)?;
    reaches(&from.ns, &server, &to.ips())?;

    cut(&node, &from)?;
    check(Proto::Udp, Outcome::Delivered)?;
    check(Proto::Icmp, Outcome::Delivered)?;
    // If only the SYN of a handshake arrives, nothing is delivered.
    check(Proto::Tcp, Outcome::Silent)
}

#[test]
fn a_closed_port_refuses() -> Result<()> {
    let node = Node::new()?;
    let from = node.workload("x", "a")?;
    let to = node.workload("x", "b")?;
    for ip in to.ips() {
        for proto in [Proto::Tcp, Proto::Udp] {
            let outcome = Probe::new(proto, SocketAddr::new(ip, 9)).run(&from.ns, SOON)?;
            ensure!(outcome == Outcome::Refused, "{proto:?} {ip}: {outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn a_connection_to_another_port_does_not_count_as_accepted() -> Result<()> {
    let ns = NetNs::new()?;
    let server = Server::start(&ns, &[(Proto::Tcp, 0), (Proto::Tcp, 0)])?;
    let &[(_, one), (_, other)] = server.ports() else {
        anyhow::bail!("two ports, {:?}", server.ports());
    };
    let since = Instant::now();
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let stream = ns.run(|| std::net::TcpStream::connect(at(one)))??;
    // The kernel may use this source port at the same time for a connection to the other port.
    let source = stream.local_addr()?;
    eventually(SOON, "the accept", || {
        Ok(server.accepted(one, source, since)?.then_some(()))
    })?;
    ensure!(!server.accepted(other, source, since)?);
    Ok(())
}

#[test]
fn recreate_keeps_the_interface_name_and_changes_its_index() -> Result<()> {
    let node = Node::new()?;
    let from = node.workload("x", "a")?;
    let mut to = node.workload("x", "b")?;
    let server = Server::start(&to.ns, &ALL)?;
    reaches(&from.ns, &server, &to.ips())?;
    let before = node.ifindex(&to.interface)?;
    node.recreate(&mut to)?;
    ensure!(node.ifindex(&to.interface)? != before);
    reaches(&from.ns, &server, &to.ips())?;

    // The addresses may change as well.
    let address = Addresses {
        ip4: from.ip4,
        ip6: from.ip6,
    };
    node.remove(from)?;
    (to.ip4, to.ip6) = (address.ip4, address.ip6);
    node.recreate(&mut to)?;
    reaches(&node.ns, &server, &to.ips())
}

#[test]
fn dropping_a_workload_removes_its_interface_and_namespace() -> Result<()> {
    let node = Node::new()?;
    let kept = node.workload("x", "kept")?;
    let removed = node.workload("x", "removed")?;
    let dropped = node.workload("x", "dropped")?;
    let (removed_name, dropped_name) = (removed.interface.clone(), dropped.interface.clone());
    let path = dropped.ns.path();
    node.remove(removed)?;
    ensure!(node.ifindex(&removed_name).is_err(), "removed at once");
    // Also while a panic unwinds.
    let unwound = std::thread::spawn(move || {
        let _dropped = dropped;
        assert!(_dropped.name.is_empty(), "this panic is meant to happen");
    });
    ensure!(unwound.join().is_err());
    ensure!(std::fs::read_link(path).map_or(true, |target| !target.starts_with("net:")));
    eventually(SOON, "the dropped workload's interface gone", || {
        Ok(node.ifindex(&dropped_name).is_err().then_some(()))
    })?;
    node.ifindex(&kept.interface)?;
    Ok(())
}

#[test]
fn sysctls_are_set_per_namespace() -> Result<()> {
    let key = "net.ipv4.ip_forward";
    let read = |ns: &NetNs| ns.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward"));
    let (one, other) = (NetNs::new()?, NetNs::new()?);
    let ours = read(&NetNs::current()?)??;
    one.sysctl(key, "1")?;
    other.sysctl(key, "0")?;
    ensure!(read(&one)??.trim() == "1");
    ensure!(read(&other)??.trim() == "0");
    ensure!(read(&NetNs::current()?)?? == ours);
    Ok(())
}

#[test]
fn a_tap_sees_an_injected_frame() -> Result<()> {
    let node = Node::new()?;
    let from = node.workload("x", "a")?;
    let to = node.workload("x", "b")?;
    let server = Server::start(&to.ns, &[(Proto::Udp, 0)])?;
    let tap = frame::Tap::open(&to.ns, "eth0")?;
    let port = server.port(Proto::Udp)?;
    let macs = (
        frame::mac(&node.ns, &from.interface)?,
        frame::mac(&from.ns, "eth0")?,
    );
    for (kind, v6) in [(frame::IPV4, false), (frame::IPV6, true)] {
        let nonce = Nonce::fresh();
        let (source, target) = ((from.ip(v6), 4321), (to.ip(v6), port));
        let packet = frame::udp(source, target, &nonce.header())?;
        let bytes = frame::ethernet(macs.0, macs.1, kind, &packet);
        frame::inject(&from.ns, "eth0", &bytes)?;
        ensure!(tap.saw(&nonce.header(), SOON)?, "on the tap");
        eventually(SOON, "the datagram at the server", || {
            Ok(server.saw(nonce)?.then_some(()))
        })?;
        ensure!(!tap.saw(&Nonce::fresh().header(), SHORT)?);
    }
    Ok(())
}

#[test]
fn a_stream_delivers_in_both_directions_and_detects_a_cut() -> Result<()> {
    let node = Node::new()?;
    let client = node.workload("x", "a")?;
    let server = node.workload("x", "b")?;
    for v6 in [false, true] {
        let mut stream = Stream::open(&client.ns, &server.ns, server.ip(v6), 0, SOON)?;
        for end in [End::Client, End::Server, End::Client] {
            stream.expect_delivered(end, SOON)?;
        }
        cut(&node, &server)?;
        stream.expect_silent(End::Client, SHORT)?;
        reconnect(&node, &server)?;
        cut(&node, &client)?;
        stream.expect_silent(End::Server, SHORT)?;
        reconnect(&node, &client)?;
        stream.expect_delivered(End::Client, SOON)?;
        stream.expect_delivered(End::Server, SOON)?;
    }
    let mut stream = Stream::open(&client.ns, &server.ns, server.ip4, 0, SOON)?;
    stream
        .socket(End::Server)
        .shutdown(std::net::Shutdown::Both)?;
    ensure!(stream.deliver(End::Server, SOON)? == Delivery::Closed);
    Ok(())
}

#[test]
fn load_counts_every_request() -> Result<()> {
    let node = Node::new()?;
    let from = node.workload("x", "a")?;
    let to = node.workload("x", "b")?;
    let server = Server::start(&to.ns, &ALL)?;
    for proto in [Proto::Tcp, Proto::Udp] {
        for ip in to.ips() {
            let target = SocketAddr::new(ip, server.port(proto)?);
            let load = Load::start(&from.ns, proto, target, LoadSpec::default())?;
            load.wait_for_answers(50, SOON)?;
            let totals = load.stop()?;
            ensure!(totals.answered >= 50 && totals.failed == 0, "{totals:?}");
        }
        let closed_port = SocketAddr::new(to.ip(false), 9);
        let spec = LoadSpec {
            reply_within: SHORT,
            ..LoadSpec::default()
        };
        let load = Load::start(&from.ns, proto, closed_port, spec)?;
        eventually(SOON, "failures", || {
            Ok((load.totals().failed > 0).then_some(()))
        })?;
        let totals = load.stop()?;
        totals.first_failure.context("no first failure")?;
        ensure!(totals.answered == 0);
    }
    ensure!(server.seen()? == 0, "load must not be recorded");
    Ok(())
}

/// A stub of the agent: this tests how the test bed manages its child process.
const STUB: &str = r#"#!/bin/sh
case "$1" in
agent) echo "started with $3" >&2; : >"$RINGFENCE_SOCKET"
    trap 'echo "asked to stop" >&2; exit 0' TERM
    mkfifo "$0.$$"; read -r _ <>"$0.$$" ;;
status) test -e "$RINGFENCE_SOCKET" && echo '{"metrics_listen":"127.0.0.1:1"}' ;;
cleanup) echo "$3" >"$(dirname "$0")/stub-cleaned" ;;
esac
"#;

#[test]
fn an_agent_leaves_nothing_behind() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir()?;
    let stub = dir.path().join("stub");
    std::fs::write(&stub, STUB)?;
    std::fs::set_permissions(&stub, std::fs::Permissions::from_mode(0o755))?;

    let node = Node::new()?;
    let workload = node.workload("shop", "orders-1")?;
    let inventory = node
        .inventory()
        .namespace("shop", &[("env", "prod")])
        .local(&workload, &Attributes::labels(&[("app", "orders")]));
    let spec = AgentSpec {
        inventory: inventory.build(),
        default_mode: "enforce".to_owned(),
        modes: vec![("shop".to_owned(), "observe".to_owned())],
        documents: vec![("more.yaml".to_owned(), String::new())],
        binary: Some(stub),
        ..AgentSpec::default()
    };
    let mut agent = Agent::start(&node, &spec)?;
    let home = agent.dir().to_owned();
    let pid = agent.pid().context("a process")?;
    let config = std::fs::read_to_string(agent.config_path())?;
    ensure!(config.contains("\"default\" = \"enforce\"\n\"shop\" = \"observe\""));
    ensure!(config.contains("/more.yaml\"]"), "{config}");
    let mounted = || -> Result<bool> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        Ok(mounts.contains(&*home.to_string_lossy()))
    };
    ensure!(mounted()?);
    ensure!(agent.cli_json(&["status"])?.is_object());
    ensure!(agent.terminate()?.success());
    ensure!(agent.stderr().contains("asked to stop"));
    agent.restart()?;
    ensure!(agent.pid() != Some(pid));
    drop(agent);
    ensure!(
        dir.path().join("stub-cleaned").exists(),
        "cleanup did not run"
    );
    ensure!(!home.exists() && !mounted()?);
    Ok(())
}
