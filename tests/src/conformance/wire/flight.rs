//! A probe under way: one socket, one nonce, one fresh source port.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::exchange::Aim;
use crate::conformance::grid::Got;
use crate::conformance::port::Transport;
use crate::nonce::{HEADER, Nonce};

/// The range of source ports; every probe takes the next, so that none meets what an earlier one
/// left in a conntrack table or in TIME_WAIT.
const FIRST: u16 = 10_000;
const LAST: u16 = 64_999;

/// The next source port of a namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourcePort(u16);

impl Default for SourcePort {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl SourcePort {
    fn take(&mut self) -> u16 {
        let port = self.0;
        self.0 = if port >= LAST { FIRST } else { port + 1 };
        port
    }
}

/// How a probe ended at its own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Answered,
    /// TCP reset, an ICMP error.
    Refused,
}

#[derive(Debug)]
pub(super) struct Flight {
    pub(super) socket: Socket,
    pub(super) nonce: Nonce,
    pub(super) local: Option<SocketAddr>,
    started: Instant,
    /// From launch to end.
    took: Option<Duration>,
    transport: Transport,
    connecting: bool,
    received: Vec<u8>,
    ended: Option<Ended>,
}

impl Flight {
    /// Opens the socket in the namespace of the calling thread and sends the first packet.
    pub(super) fn launch(aim: &Aim<'_>, source: &mut SourcePort) -> io::Result<Self> {
        let transport = aim.judged.cell.port.transport;
        let (kind, protocol) = match transport {
            Transport::Tcp => (Type::STREAM, Protocol::TCP),
            Transport::Udp => (Type::DGRAM, Protocol::UDP),
        };
        let socket = Socket::new(Domain::for_address(aim.target), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        bind(&socket, aim.target, source)?;
        let mut flight = Self {
            socket,
            nonce: Nonce::fresh(),
            local: None,
            started: Instant::now(),
            took: None,
            transport,
            connecting: transport == Transport::Tcp,
            received: Vec::new(),
            ended: None,
        };
        match flight.socket.connect(&aim.target.into()) {
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
            Err(error) => flight.fail(&error)?,
            Ok(()) => {}
        }
        flight.local = flight.socket.local_addr()?.as_socket();
        if transport == Transport::Udp {
            flight.send();
        }
        Ok(flight)
    }

    fn end(&mut self, how: Ended) {
        self.ended = Some(how);
        self.took = Some(self.started.elapsed());
    }

    /// What to wait for: every change of readiness.
    pub(super) fn interest(&self) -> EpollFlags {
        let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        match self.transport {
            Transport::Tcp => both | EpollFlags::EPOLLOUT,
            Transport::Udp => both,
        }
    }

    /// How long it took, if it is over.
    pub(super) fn took(&self) -> Option<Duration> {
        self.took
    }

    /// Whether nothing more is to come.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// Sends a datagram again; TCP does so itself.
    pub(super) fn resend(&mut self) {
        if self.transport == Transport::Udp && !self.is_over() {
            self.send();
        }
    }

    /// Takes in what the socket has become ready for.
    pub(super) fn advance(&mut self) {
        if self.is_over() {
            return;
        }
        if let Err(error) = self.try_advance() {
            // Anything that is no verdict of the network is left to the deadline.
            let _ = self.fail(&error);
        }
    }

    fn try_advance(&mut self) -> io::Result<()> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        if self.connecting {
            self.socket.peer_addr()?;
            self.connecting = false;
            self.send();
        }
        let mut buffer = [0; 4 * HEADER];
        loop {
            let length = (&self.socket).read(&mut buffer)?;
            let got = buffer.get(..length).unwrap_or_default();
            match self.transport {
                Transport::Tcp if got.is_empty() => return Err(ErrorKind::ConnectionReset.into()),
                Transport::Tcp => self.received.extend_from_slice(got),
                Transport::Udp => self.received = got.to_vec(),
            }
            if self.received == self.nonce.header() {
                self.end(Ended::Answered);
                return Ok(());
            }
        }
    }

    fn send(&mut self) {
        if let Err(error) = (&self.socket).write_all(&self.nonce.header()) {
            let _ = self.fail(&error);
        }
    }

    /// Takes an error for the network's answer, or returns it if it is not one.
    fn fail(&mut self, error: &io::Error) -> io::Result<()> {
        match error.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied => self.end(Ended::Refused),
            ErrorKind::WouldBlock | ErrorKind::NotConnected => {}
            // A drop on the sender's own interface; for the probe it is like any other.
            _ if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
            kind => return Err(kind.into()),
        }
        Ok(())
    }

    /// The verdict, given whether the server saw anything of this.
    pub(super) fn verdict(&self, seen: bool) -> Got {
        match self.ended {
            Some(Ended::Answered) => Got::Allow,
            Some(Ended::Refused) | None if seen => Got::Delivered,
            Some(Ended::Refused) | None => Got::Deny,
        }
    }
}

fn bind(socket: &Socket, target: SocketAddr, source: &mut SourcePort) -> io::Result<()> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut tries = 0;
    loop {
        match socket.bind(&SocketAddr::new(any, source.take()).into()) {
            // A server of ours, or of the agent's.
            Err(error) if error.kind() == ErrorKind::AddrInUse && tries < 1000 => tries += 1,
            bound => return bound,
        }
    }
}
