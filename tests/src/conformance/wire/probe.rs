//! A probe in progress: one socket, one nonce, one new source port.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::event_loop::Target;
use crate::conformance::grid::Got;
use crate::conformance::port::Transport;
use crate::nonce::{HEADER, Nonce};

/// The range of source ports. Every probe uses the next one, so that conntrack entries and
/// TIME_WAIT sockets of earlier probes have no effect.
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

/// How a probe ended at the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeEnd {
    Answered,
    /// A TCP reset or an ICMP error.
    Refused,
}

#[derive(Debug)]
pub(super) struct Probe {
    pub(super) socket: Socket,
    pub(super) nonce: Nonce,
    pub(super) local: Option<SocketAddr>,
    started: Instant,
    /// From start to end.
    took: Option<Duration>,
    transport: Transport,
    connecting: bool,
    received: Vec<u8>,
    ended: Option<ProbeEnd>,
}

impl Probe {
    /// Opens the socket in the namespace of the calling thread and sends the first packet.
    pub(super) fn start(target: &Target<'_>, source: &mut SourcePort) -> io::Result<Self> {
        let transport = target.expected.cell.port.transport;
        let (kind, protocol) = match transport {
            Transport::Tcp => (Type::STREAM, Protocol::TCP),
            Transport::Udp => (Type::DGRAM, Protocol::UDP),
        };
        let socket = Socket::new(Domain::for_address(target.address), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        bind(&socket, target.address, source)?;
        let mut probe = Self {
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
        match probe.socket.connect(&target.address.into()) {
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
            Err(error) => probe.fail(&error)?,
            Ok(()) => {}
        }
        probe.local = probe.socket.local_addr()?.as_socket();
        if transport == Transport::Udp {
            probe.send();
        }
        Ok(probe)
    }

    fn end(&mut self, how: ProbeEnd) {
        self.ended = Some(how);
        self.took = Some(self.started.elapsed());
    }

    /// The epoll events of interest: every change of readiness.
    pub(super) fn interest(&self) -> EpollFlags {
        let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        match self.transport {
            Transport::Tcp => both | EpollFlags::EPOLLOUT,
            Transport::Udp => both,
        }
    }

    /// How long the probe took, if it has ended.
    pub(super) fn took(&self) -> Option<Duration> {
        self.took
    }

    /// Whether the probe has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Sends a datagram again; TCP retransmits by itself.
    pub(super) fn resend(&mut self) {
        if self.transport == Transport::Udp && !self.has_ended() {
            self.send();
        }
    }

    /// Handles the socket's readiness.
    pub(super) fn advance(&mut self) {
        if self.has_ended() {
            return;
        }
        if let Err(error) = self.try_advance() {
            // Errors that do not come from the network are ignored until the deadline.
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
                self.end(ProbeEnd::Answered);
                return Ok(());
            }
        }
    }

    fn send(&mut self) {
        if let Err(error) = (&self.socket).write_all(&self.nonce.header()) {
            let _ = self.fail(&error);
        }
    }

    /// Ends the probe if the network caused this error, or returns the error.
    fn fail(&mut self, error: &io::Error) -> io::Result<()> {
        match error.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied => self.end(ProbeEnd::Refused),
            ErrorKind::WouldBlock | ErrorKind::NotConnected => {}
            // A drop on the sender's own interface counts like any other drop.
            _ if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {}
            kind => return Err(kind.into()),
        }
        Ok(())
    }

    /// The observed result, given whether the server received anything of this probe.
    pub(super) fn verdict(&self, seen: bool) -> Got {
        match self.ended {
            Some(ProbeEnd::Answered) => Got::Allow,
            Some(ProbeEnd::Refused) | None if seen => Got::Delivered,
            Some(ProbeEnd::Refused) | None => Got::Deny,
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
            // The port is in use by a server or by the agent.
            Err(error) if error.kind() == ErrorKind::AddrInUse && tries < 1000 => tries += 1,
            bound => return bound,
        }
    }
}
