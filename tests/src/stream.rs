//! A live TCP connection whose two ends the test holds: for established flows while policy
//! revokes or allows them, in either direction.
//!
//! TCP retransmits what was lost. A dropped nonce may arrive later, when packets pass again, and
//! until then the sender's retransmission timer backs off: after a second without delivery allow a
//! few seconds for the next one.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::os::fd::AsFd as _;

use crate::netns::NetNs;
use crate::nonce::{HEADER, Nonce};
use crate::wait::{eventually, for_this_machine};

/// One end of a [`Stream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The end that connected.
    Client,
    /// The end that accepted.
    Server,
}

/// What happened to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// It arrived at the other end.
    Delivered,
    /// Nothing arrived before the deadline.
    Silent,
    /// The connection was reset or closed.
    Closed,
}

/// An established connection.
#[derive(Debug)]
pub struct Stream {
    client: TcpStream,
    server: TcpStream,
    /// Received bytes that are not a whole message yet.
    to_client: Vec<u8>,
    to_server: Vec<u8>,
}

impl Stream {
    /// Connects from `client` to the address `ip` and port (0 picks a free one) in `server`.
    pub fn open(
        client: &NetNs,
        server: &NetNs,
        ip: impl Into<IpAddr>,
        port: u16,
        deadline: Duration,
    ) -> Result<Self> {
        let wait = for_this_machine(deadline)?;
        let at = SocketAddr::new(ip.into(), port);
        let listener = server.run(|| listen_until(at, Instant::now() + wait))?;
        let listener = listener.context("listening")?;
        let target = listener.local_addr()?;
        let client = client
            .run(|| TcpStream::connect_timeout(&target, wait))?
            .with_context(|| format!("connecting to {target}"))?;
        listener.set_nonblocking(true)?;
        let expected = client.local_addr()?;
        let server = eventually(deadline, "the connection's accept", || {
            match listener.accept() {
                Ok((stream, peer)) => Ok((peer == expected).then_some(stream)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(error) => Err(error.into()),
            }
        })?;
        for stream in [&client, &server] {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
        }
        Ok(Self {
            client,
            server,
            to_client: Vec::new(),
            to_server: Vec::new(),
        })
    }

    /// The non-blocking socket of one end.
    #[must_use]
    pub fn socket(&self, end: End) -> &TcpStream {
        match end {
            End::Client => &self.client,
            End::Server => &self.server,
        }
    }

    /// Sends a new nonce from one end and waits for it at the other.
    pub fn deliver(&mut self, from: End, deadline: Duration) -> Result<Delivery> {
        let end = Instant::now() + for_this_machine(deadline)?;
        let nonce = Nonce::fresh();
        match self.socket(from).write_all(&nonce.header()) {
            Ok(()) => {}
            Err(error) if closed(error.kind()) => return Ok(Delivery::Closed),
            Err(error) => return Err(error).context("sending on a stream"),
        }
        let (mut socket, buffer) = match from {
            End::Client => (&self.server, &mut self.to_server),
            End::Server => (&self.client, &mut self.to_client),
        };
        loop {
            let mut bytes = [0; 4096];
            match socket.read(&mut bytes) {
                Ok(0) => return Ok(Delivery::Closed),
                Ok(length) => buffer.extend_from_slice(bytes.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(Delivery::Silent);
                    }
                    let timeout = PollTimeout::try_from(left + Duration::from_millis(1))?;
                    poll(
                        &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
                        timeout,
                    )?;
                }
                Err(error) if closed(error.kind()) => return Ok(Delivery::Closed),
                Err(error) => return Err(error).context("reading from a stream"),
            }
            let rest = buffer.split_off(buffer.len() - buffer.len() % HEADER);
            let messages = std::mem::replace(buffer, rest);
            let mut arrived = messages.chunks(HEADER).filter_map(Nonce::parse);
            if arrived.any(|arrived| arrived == nonce) {
                return Ok(Delivery::Delivered);
            }
        }
    }

    /// Fails unless a message from this end arrives.
    pub fn expect_delivered(&mut self, from: End, deadline: Duration) -> Result<()> {
        let delivery = self.deliver(from, deadline)?;
        ensure!(
            delivery == Delivery::Delivered,
            "a message from the {from:?} end should arrive within {deadline:?}: {delivery:?}"
        );
        Ok(())
    }

    /// Fails unless a message from this end is dropped silently.
    pub fn expect_silent(&mut self, from: End, deadline: Duration) -> Result<()> {
        let delivery = self.deliver(from, deadline)?;
        ensure!(
            delivery == Delivery::Silent,
            "a message from the {from:?} end should be dropped: {delivery:?}"
        );
        Ok(())
    }
}

/// Listens as soon as the address is free: the kernel may still hold an earlier listener's.
fn listen_until(at: SocketAddr, end: Instant) -> std::io::Result<TcpListener> {
    loop {
        match listen(at) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// Listens on exactly `at`, so that replies have this source address.
fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(16)?;
    Ok(socket.into())
}

fn closed(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::BrokenPipe
            | ErrorKind::TimedOut
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}
