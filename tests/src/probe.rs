//! Probes: is a payload delivered, and does its answer come back?
//!
//! The result takes both ends into account. *Allowed* is [`Outcome::Answered`]: the payload came
//! back whole. *Denied* is [`Outcome::Silent`]: no answer before the deadline, and the server did
//! not receive it either. The case in between ([`Outcome::Delivered`]) is a leak and never counts
//! as denied.
//!
//! Many probes from one namespace run at the same time on one thread, so that a grid of denied
//! cells takes one deadline and not one each. A probe sends once; the caller may retry.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::NetNs;
use crate::nonce::{HEADER, Nonce};
use crate::server::{Proto, Server};
use crate::wait::for_this_machine;

const ICMP_HEADER: usize = 8;

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The payload came back whole.
    Answered,
    /// The server received it (or accepted the connection), but no answer came back.
    Delivered,
    /// Neither end received anything before the deadline.
    Silent,
    /// TCP reset, or ICMP port unreachable.
    Refused,
    /// Another ICMP error: host or network unreachable, administratively prohibited.
    Unreachable,
}

/// One probe. Without [`Probe::seen_by`] it cannot tell `Delivered` from `Silent`.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'a> {
    proto: Proto,
    target: SocketAddr,
    source: Option<SocketAddr>,
    size: usize,
    server: Option<&'a Server>,
}

impl<'a> Probe<'a> {
    /// A probe to `target`, whose port is ignored for ICMP.
    #[must_use]
    pub fn new(proto: Proto, target: SocketAddr) -> Self {
        Self {
            proto,
            target,
            source: None,
            size: 0,
            server: None,
        }
    }

    /// A probe to the first port of `server` for `proto`, at the address `ip`.
    pub fn of(server: &'a Server, proto: Proto, ip: impl Into<IpAddr>) -> Result<Self> {
        let target = SocketAddr::new(ip.into(), server.port(proto)?);
        Ok(Self::new(proto, target).seen_by(server))
    }

    /// Sets the source address; port 0 picks a free one.
    #[must_use]
    pub fn from(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Sets the payload size; above the MTU it is sent in fragments. TCP ignores it.
    #[must_use]
    pub fn size(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    /// Sets the server that is asked whether the nonce arrived.
    #[must_use]
    pub fn seen_by(mut self, server: &'a Server) -> Self {
        self.server = Some(server);
        self
    }

    /// Runs this probe alone.
    pub fn run(&self, ns: &NetNs, deadline: Duration) -> Result<Outcome> {
        let outcomes = run_all(ns, std::slice::from_ref(self), deadline)?;
        outcomes
            .first()
            .copied()
            .context("the probe has no outcome")
    }
}

/// Runs all probes concurrently from `ns`; outcomes are in the order of the probes. Returns before
/// the deadline if all of them have been answered or refused.
pub fn run_all(ns: &NetNs, probes: &[Probe<'_>], deadline: Duration) -> Result<Vec<Outcome>> {
    let deadline = for_this_machine(deadline)?;
    let mut running = ns.run(|| -> Result<Vec<_>> {
        let end = Instant::now() + deadline;
        let mut running = probes
            .iter()
            .map(|probe| {
                RunningProbe::start(probe)
                    .with_context(|| format!("probing {:?} {}", probe.proto, probe.target))
            })
            .collect::<Result<Vec<_>>>()?;
        watch(&mut running, end)?;
        Ok(running)
    })??;
    running.iter_mut().map(RunningProbe::conclude).collect()
}

fn watch(running: &mut [RunningProbe<'_>], end: Instant) -> Result<()> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut open: Vec<&mut RunningProbe<'_>> = running
            .iter_mut()
            .filter(|probe| probe.outcome.is_none())
            .collect();
        if open.is_empty() || left.is_zero() {
            return Ok(());
        }
        let mut fds: Vec<_> = open
            .iter()
            .map(|probe| PollFd::new(probe.socket.as_fd(), probe.interest()))
            .collect();
        // Rounded up: a timeout of zero would busy-loop during the last millisecond.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1))?;
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("polling probes"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        for (probe, _) in open.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            probe.advance();
        }
    }
}

/// A probe in progress.
struct RunningProbe<'a> {
    probe: Probe<'a>,
    nonce: Nonce,
    started: Instant,
    socket: Socket,
    local: Option<SocketAddr>,
    connecting: bool,
    message: Vec<u8>,
    received: Vec<u8>,
    outcome: Option<Outcome>,
}

impl<'a> RunningProbe<'a> {
    fn start(probe: &Probe<'a>) -> io::Result<Self> {
        let target = probe.target;
        let (kind, protocol) = match (probe.proto, target) {
            (Proto::Tcp, _) => (Type::STREAM, Protocol::TCP),
            (Proto::Udp, _) => (Type::DGRAM, Protocol::UDP),
            (Proto::Icmp, SocketAddr::V4(_)) => (Type::DGRAM, Protocol::ICMPV4),
            (Proto::Icmp, SocketAddr::V6(_)) => (Type::DGRAM, Protocol::ICMPV6),
        };
        let socket = Socket::new(Domain::for_address(target), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if let Some(source) = probe.source {
            socket.bind(&source.into())?;
        }
        let nonce = Nonce::fresh();
        let mut running = Self {
            probe: *probe,
            nonce,
            started: Instant::now(),
            socket,
            local: None,
            connecting: probe.proto == Proto::Tcp,
            message: match probe.proto {
                Proto::Tcp => nonce.message(HEADER),
                Proto::Udp | Proto::Icmp => nonce.message(probe.size),
            },
            received: Vec::new(),
            outcome: None,
        };
        match running.socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => running.fail(&error)?,
            Ok(()) => {}
        }
        running.local = running.socket.local_addr()?.as_socket();
        if !running.connecting && running.outcome.is_none() {
            running.send().or_else(|error| running.fail(&error))?;
        }
        Ok(running)
    }

    fn interest(&self) -> PollFlags {
        if self.connecting {
            PollFlags::POLLOUT
        } else {
            PollFlags::POLLIN
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let wire = match (self.probe.proto, self.probe.target) {
            (Proto::Tcp | Proto::Udp, _) => self.message.clone(),
            (Proto::Icmp, SocketAddr::V4(_)) => echo_request(8, &self.message),
            (Proto::Icmp, SocketAddr::V6(_)) => echo_request(128, &self.message),
        };
        (&self.socket).write_all(&wire)
    }

    fn advance(&mut self) {
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
            self.connecting = false;
            return self.send();
        }
        let mut buffer = vec![0; 65_536];
        let length = (&self.socket).read(&mut buffer)?;
        let got = buffer.get(..length).unwrap_or_default();
        match self.probe.proto {
            Proto::Tcp if got.is_empty() => return Err(ErrorKind::ConnectionReset.into()),
            Proto::Tcp => self.received.extend_from_slice(got),
            Proto::Udp => self.received = got.to_vec(),
            Proto::Icmp => self.received = got.get(ICMP_HEADER..).unwrap_or_default().to_vec(),
        }
        if self.received == self.message {
            self.outcome = Some(Outcome::Answered);
        }
        Ok(())
    }

    /// Turns an error that the network caused into an outcome, or returns the error.
    fn fail(&mut self, error: &io::Error) -> io::Result<()> {
        let outcome = match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                Outcome::Refused
            }
            ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied => Outcome::Unreachable,
            ErrorKind::WouldBlock => return Ok(()),
            // A drop on the sender's own interface counts like any other drop.
            _ if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
            kind => return Err(kind.into()),
        };
        self.outcome = Some(outcome);
        Ok(())
    }

    fn conclude(&mut self) -> Result<Outcome> {
        if let Some(outcome) = self.outcome {
            return Ok(outcome);
        }
        let Some(server) = self.probe.server else {
            return Ok(Outcome::Silent);
        };
        let accepted = match (self.probe.proto, self.local) {
            (Proto::Tcp, Some(local)) => {
                server.accepted(self.probe.target.port(), local, self.started)?
            }
            _ => false,
        };
        Ok(if accepted || server.saw(self.nonce)? {
            Outcome::Delivered
        } else {
            Outcome::Silent
        })
    }
}

/// The kernel fills in identifier and checksum.
fn echo_request(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind, 0, 0, 0, 0, 0, 0, 1];
    packet.extend_from_slice(payload);
    packet
}
