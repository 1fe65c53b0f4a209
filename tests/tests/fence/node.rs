//! Packets from and to the host, which the kernel hands to the programs in special ways.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};

use ringfence_testbed::{End, Stream};

use crate::testbed::{DENY_ALL, SHORT, SOON, Testbed, apply};

/// The workload's port and the host's two ports; each port plus one is used for IPv6.
const SERVED: u16 = 9500;
const REFUSED: u16 = 9600;
const ALLOWED: u16 = 9700;

#[test]
fn the_host_receives_the_error_about_a_closed_port() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[])])?.with_labels("shop/closed", &[])?;
    let _agent = testbed.agent("enforce", DENY_ALL)?;
    for v6 in [false, true] {
        // No socket listens on this port.
        let to = SocketAddr::new(testbed.host("closed").workload.ip(v6), 54);
        let received = testbed.node.ns.run(|| -> Result<io::Result<usize>> {
            let any = if v6 { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(SOON))?;
            socket.connect(to)?;
            socket.send(b"probe").context("sending")?;
            Ok(socket.recv(&mut [0; 16]))
        })??;
        let is_error = received.as_ref().is_err_and(is_refused);
        ensure!(is_error, "v6 {v6}: {received:?}");
    }
    Ok(())
}

#[test]
fn only_connections_opened_by_the_host_or_allowed_survive_the_fence() -> Result<()> {
    let testbed = Testbed::new(&[("shop", &[])])?.with_labels("shop/closed", &[])?;
    let allowed = format!(
        "{DENY_ALL}[[policy.egress]]\nto = [{{ entity = \"host\" }}]\nports = [\"tcp/{ALLOWED}-{}\"]\n",
        ALLOWED + 1
    );
    let allowed = allowed.replace("egress = []\n", "");
    let (node, host) = (&testbed.node, &testbed.host("closed").workload);
    let mut streams = Vec::new();
    for (index, v6) in [(0, false), (1, true)] {
        let at_node = node.ips()[usize::from(v6)];
        let open = |port| Stream::open(&host.ns, &node.ns, at_node, port + index, SOON);
        let served = Stream::open(&node.ns, &host.ns, host.ip(v6), SERVED + index, SOON)?;
        streams.push((served, open(REFUSED)?, open(ALLOWED)?));
    }
    for (served, refused, allowed) in &mut streams {
        for stream in [served, refused, allowed] {
            stream.expect_delivered(End::Client, SOON)?;
            stream.expect_delivered(End::Server, SOON)?;
        }
    }
    let agent = testbed.agent("enforce", &allowed)?;
    for (served, refused, allowed) in &mut streams {
        // The host sends first: its packets arrive, no matter which end opened the connection.
        refused.expect_delivered(End::Server, SOON)?;
        refused.expect_silent(End::Client, SHORT)?;
        allowed.expect_delivered(End::Server, SOON)?;
        allowed.expect_delivered(End::Client, SOON)?;
        served.expect_delivered(End::Client, SOON)?;
        served.expect_delivered(End::Server, SOON)?;
    }
    apply(&agent, DENY_ALL)?;
    for (served, _, allowed) in &mut streams {
        allowed.expect_silent(End::Client, SHORT)?;
        served.expect_delivered(End::Client, SOON)?;
        served.expect_delivered(End::Server, SOON)?;
    }
    Ok(())
}

fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}
