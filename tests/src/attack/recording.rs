//! Records real traffic: what the kernel sends for sockets of two hosts on one link, before any network
//! card splits or completes it.
//!
//! For a new corpus only: attacks use the frames of [`super::traffic`], so that a seed repeats them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::traffic::{CLIENT, SERVER};
use crate::frame::Tap;
use crate::netns::NetNs;

/// Maximum transmission units: that of Ethernet, and jumbo frames that have room to grow up to 9000 bytes.
const MTUS: [u16; 2] = [1500, 8800];
/// How long a tap waits for a further frame.
const QUIET: Duration = Duration::from_millis(300);

/// Frames in both directions, first those to the server.
///
/// # Errors
/// When the namespaces cannot be made or the traffic fails.
pub fn record() -> Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    for mtu in MTUS {
        frames.extend(exchange(mtu)?);
    }
    Ok(frames)
}

fn exchange(mtu: u16) -> Result<Vec<Vec<u8>>> {
    let (client, server) = (NetNs::new()?, NetNs::new()?);
    client.ip(&format!(
        "link add eth0 mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}\n",
        server.path().display()
    ))?;
    for (ns, [ip4, ip6]) in [(&client, CLIENT), (&server, SERVER)] {
        ns.ip(&format!(
            "addr add {ip4}/24 dev eth0\naddr add {ip6}/64 dev eth0 nodad\nlink set eth0 up\n"
        ))?;
    }
    let taps = [Tap::open(&server, "eth0")?, Tap::open(&client, "eth0")?];
    for (from, to) in CLIENT.into_iter().zip(SERVER) {
        connection(&client, &server, to).context("a TCP connection")?;
        datagrams(&client, &server, (from, to), mtu).context("UDP datagrams")?;
        echo(&client, (from, to)).context("an echo request")?;
    }
    let mut frames = Vec::new();
    for tap in taps {
        while let Some(frame) = tap.next(QUIET)? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

/// A request with an answer of several segments, and an orderly end.
fn connection(client: &NetNs, server: &NetNs, to: IpAddr) -> Result<()> {
    let listener = server.run(|| TcpListener::bind((to, 0)))??;
    let port = listener.local_addr()?.port();
    let mut one = client.run(|| TcpStream::connect((to, port)))??;
    let (mut other, _) = listener.accept()?;
    one.write_all(b"GET /cart HTTP/1.1\r\nHost: shop\r\n\r\n")?;
    let mut request = [0; 8];
    other.read_exact(&mut request)?;
    other.write_all(&[b'a'; 12_000])?;
    other.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    one.read_to_end(&mut answer)?;
    ensure!(answer.len() == 12_000, "{} bytes", answer.len());
    Ok(())
}

/// A query and its answer, one that is segmented by the kernel, one that fills a frame, one of several
/// fragments.
fn datagrams(client: &NetNs, server: &NetNs, (from, to): (IpAddr, IpAddr), mtu: u16) -> Result<()> {
    let one = client.run(|| UdpSocket::bind((from, 0)))??;
    let other = server.run(|| UdpSocket::bind((to, 0)))??;
    other.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (here, there) = (one.local_addr()?, other.local_addr()?);
    let mut buffer = vec![0; 65_536];
    for length in [31, usize::from(mtu) - 80, 20_000] {
        one.send_to(&vec![b'q'; length], there)?;
        other.recv_from(&mut buffer)?;
        other.send_to(&vec![b'a'; length.min(500)], here)?;
    }
    setsockopt(&one, sockopt::UdpGsoSegment, &500)?;
    one.send_to(&[b'g'; 3000], there)?;
    other.recv_from(&mut buffer)?;
    Ok(())
}

/// Echo requests: one of a frame, one of several fragments.
fn echo(client: &NetNs, (from, to): (IpAddr, IpAddr)) -> Result<()> {
    let (domain, protocol, kind) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
    };
    let socket = client.run(|| Socket::new(domain, Type::DGRAM, Some(protocol)))??;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect(&SocketAddr::new(to, 0).into())?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    for length in [56, 10_000] {
        let mut message = vec![0; 8 + length];
        if let Some(first) = message.first_mut() {
            *first = kind;
        }
        socket.send(&message)?;
        (&socket).read_exact(&mut [0; 8])?;
    }
    Ok(())
}
