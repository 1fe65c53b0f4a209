//! What the node itself sends, where the kernel decides how it looks to the programs.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};

use ringfence_testbed::{End, Stream};

use crate::world::{SHORT, SHUT, SOON, World, apply};

/// The workload's ports and the node's, the first of one for each family.
const SERVED: u16 = 9500;
const REFUSED: u16 = 9600;
const GRANTED: u16 = 9700;

#[test]
fn the_node_learns_that_a_port_is_closed() -> Result<()> {
    let world = World::new(&[("shop", &[])])?.labelled("shop/closed", &[])?;
    let _agent = world.agent("enforce", SHUT)?;
    for v6 in [false, true] {
        // Nobody serves it.
        let to = SocketAddr::new(world.at("closed").workload.ip(v6), 54);
        let learnt = world.node.ns.run(|| -> Result<io::Result<usize>> {
            let any = if v6 { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(SOON))?;
            socket.connect(to)?;
            socket.send(b"anybody there?").context("sending")?;
            Ok(socket.recv(&mut [0; 16]))
        })??;
        let told = learnt.as_ref().is_err_and(refused);
        ensure!(told, "v6 {v6}: {learnt:?}");
    }
    Ok(())
}

#[test]
fn of_connections_with_the_node_only_its_own_and_allowed_ones_live() -> Result<()> {
    let world = World::new(&[("shop", &[])])?.labelled("shop/closed", &[])?;
    let granted = format!(
        "{SHUT}[[policy.egress]]\nto = [{{ entity = \"host\" }}]\nports = [\"tcp/{GRANTED}-{}\"]\n",
        GRANTED + 1
    );
    let granted = granted.replace("egress = []\n", "");
    let (node, member) = (&world.node, &world.at("closed").workload);
    let mut streams = Vec::new();
    for (index, v6) in [(0, false), (1, true)] {
        let at_node = node.ips()[usize::from(v6)];
        let open = |port| Stream::open(&member.ns, &node.ns, at_node, port + index, SOON);
        let served = Stream::open(&node.ns, &member.ns, member.ip(v6), SERVED + index, SOON)?;
        streams.push((served, open(REFUSED)?, open(GRANTED)?));
    }
    for (served, refused, granted) in &mut streams {
        for stream in [served, refused, granted] {
            stream.expect_delivered(End::Client, SOON)?;
            stream.expect_delivered(End::Server, SOON)?;
        }
    }
    let agent = world.agent("enforce", &granted)?;
    for (served, refused, granted) in &mut streams {
        // The node speaks first: what it sends arrives, whoever opened the connection.
        refused.expect_delivered(End::Server, SOON)?;
        refused.expect_silent(End::Client, SHORT)?;
        granted.expect_delivered(End::Server, SOON)?;
        granted.expect_delivered(End::Client, SOON)?;
        served.expect_delivered(End::Client, SOON)?;
        served.expect_delivered(End::Server, SOON)?;
    }
    apply(&agent, SHUT)?;
    for (served, _, granted) in &mut streams {
        granted.expect_silent(End::Client, SHORT)?;
        served.expect_delivered(End::Client, SOON)?;
        served.expect_delivered(End::Server, SOON)?;
    }
    Ok(())
}

fn refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}
