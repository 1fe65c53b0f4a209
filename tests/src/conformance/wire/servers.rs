//! The servers: echo servers that record what reached them, all handled by one loop.
//!
//! A nonce is recorded before it is echoed, an accepted connection before anything is read.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::conformance::port::{Port, Transport};
use crate::nonce::{HEADER, Nonce};

/// What has reached any server since the last clear.
#[derive(Debug, Default)]
pub(super) struct Seen {
    nonces: HashSet<Nonce>,
    /// Client and server address of accepted connections.
    accepted: HashSet<(SocketAddr, SocketAddr)>,
}

impl Seen {
    pub(super) fn clear(&mut self) {
        self.nonces.clear();
        self.accepted.clear();
    }

    /// Whether a probe's payload arrived, or its connection was accepted.
    pub(super) fn has(&self, nonce: Nonce, local: Option<SocketAddr>, target: SocketAddr) -> bool {
        self.nonces.contains(&nonce)
            || local.is_some_and(|local| self.accepted.contains(&(local, target)))
    }

    fn record(&mut self, message: &[u8]) {
        self.nonces.extend(Nonce::parse(message));
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Server {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Server {
    /// Serves a port for both families in the namespace of the calling thread.
    pub(super) fn open(port: Port) -> io::Result<Self> {
        let (kind, protocol) = match port.transport {
            Transport::Tcp => (Type::STREAM, Protocol::TCP),
            Transport::Udp => (Type::DGRAM, Protocol::UDP),
        };
        let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
        socket.set_only_v6(false)?;
        socket.set_nonblocking(true)?;
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.number));
        match port.transport {
            Transport::Tcp => {
                // Connections of an earlier server on this port may still be closing.
                socket.set_reuse_address(true)?;
                socket.bind(&address.into())?;
                socket.listen(1024)?;
                Ok(Self::Tcp(socket.into()))
            }
            Transport::Udp => {
                socket.bind(&address.into())?;
                Ok(Self::Udp(socket.into()))
            }
        }
    }

    /// Handles everything that has arrived; returns new connections.
    pub(super) fn serve(&self, seen: &mut Seen) -> Vec<Connection> {
        match self {
            Self::Tcp(listener) => accept(listener, seen),
            Self::Udp(socket) => {
                echo(socket, seen);
                Vec::new()
            }
        }
    }
}

fn accept(listener: &TcpListener, seen: &mut Seen) -> Vec<Connection> {
    let mut fresh = Vec::new();
    while let Ok((stream, peer)) = listener.accept() {
        if let Ok(local) = stream.local_addr() {
            seen.accepted.insert((canonical(peer), canonical(local)));
        }
        if stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok() {
            let partial = Vec::new();
            fresh.push(Connection { stream, partial });
        }
    }
    fresh
}

fn echo(socket: &UdpSocket, seen: &mut Seen) {
    let mut buffer = [0; 2048];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        let message = buffer.get(..length).unwrap_or_default();
        seen.record(message);
        // If sending fails, the probe reports the missing echo.
        let _ = socket.send_to(message, peer);
    }
}

/// A connection that a server has accepted.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// The start of a message whose rest has not arrived yet.
    partial: Vec<u8>,
}

impl Connection {
    /// Echoes what has arrived; false when the peer has closed the connection.
    pub(super) fn serve(&mut self, seen: &mut Seen) -> bool {
        self.try_serve(seen).unwrap_or(false)
    }

    fn try_serve(&mut self, seen: &mut Seen) -> io::Result<bool> {
        let mut buffer = [0; 4 * HEADER];
        loop {
            let got = match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            self.partial.extend_from_slice(got);
            if self.partial.len() >= HEADER {
                seen.record(&self.partial);
                self.stream.write_all(&self.partial)?;
                self.partial.clear();
            }
        }
    }
}

/// A dual-stack socket reports IPv4 addresses as mapped IPv6 addresses.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
