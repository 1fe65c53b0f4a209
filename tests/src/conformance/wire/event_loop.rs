//! All probes of a round and all servers, on one thread.
//!
//! With both sides on one thread, "no answer, and the server received nothing" is free of races:
//! before a silent probe counts as denied, everything that the kernel has queued for the servers
//! has been read. It also keeps bursts small, because the servers respond after each namespace's
//! probes have been sent.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::probe::{Probe, SourcePort};
use super::servers::{Connection, Seen, Server};
use crate::conformance::grid::{ExpectedCell, Mismatch, Want};
use crate::conformance::name::End;
use crate::conformance::port::Port;
use crate::netns::NetNs;

/// The minimum time without an answer after which a silent probe counts as denied.
const MIN_SILENCE: Duration = Duration::from_millis(100);
/// A silent probe is waited for this many times as long as the slowest answer took.
const SLOWEST_FACTOR: u32 = 3;
const MAX_SILENCE: Duration = Duration::from_millis(500);
/// An unanswered datagram is sent again after this time, in a final round.
const RESEND: Duration = Duration::from_millis(250);
/// Time for connections to close after a round.
const CLOSING: Duration = Duration::from_millis(20);
const EVENTS: usize = 256;

/// A cell and the address that its probe is sent to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) expected: &'a ExpectedCell,
    pub(super) address: SocketAddr,
}

/// How long to wait for an expected answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timing {
    /// The round will be repeated.
    Poll,
    /// The round will not be repeated: packets lost on a busy machine must not count.
    Final,
}

impl Timing {
    const fn deadline(self) -> Duration {
        match self {
            Self::Poll => Duration::from_millis(300),
            // The kernel retransmits a lost SYN after one second.
            Self::Final => Duration::from_millis(3500),
        }
    }
}

#[derive(Debug)]
struct EndSockets {
    ns: NetNs,
    source: SourcePort,
    servers: BTreeMap<Port, u64>,
}

#[derive(Debug)]
enum Handle {
    Server(Server),
    Connection(Connection),
    Probe(usize),
}

/// All ends, and the sockets that are open at them.
#[derive(Debug)]
pub(super) struct EventLoop {
    epoll: Epoll,
    next: u64,
    open: HashMap<u64, Handle>,
    ends: BTreeMap<End, EndSockets>,
    ports: Vec<Port>,
    seen: Seen,
}

impl EventLoop {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
                .context("creating an epoll instance")?,
            next: 0,
            open: HashMap::new(),
            ends: BTreeMap::new(),
            ports: Vec::new(),
            seen: Seen::default(),
        })
    }

    /// Adds an end and starts its servers.
    pub(super) fn add_end(&mut self, end: &End, ns: &NetNs) -> Result<()> {
        let sockets = EndSockets {
            ns: ns.clone(),
            source: SourcePort::default(),
            servers: BTreeMap::new(),
        };
        self.ends.insert(end.clone(), sockets);
        self.serve_at(end)
    }

    /// Removes an end.
    pub(super) fn remove_end(&mut self, end: &End) {
        if let Some(sockets) = self.ends.remove(end) {
            for token in sockets.servers.values() {
                self.open.remove(token);
            }
        }
    }

    /// Makes every end serve exactly these ports.
    pub(super) fn serve(&mut self, ports: &[Port]) -> Result<()> {
        if self.ports == ports {
            return Ok(());
        }
        self.ports = ports.to_vec();
        let ends: Vec<End> = self.ends.keys().cloned().collect();
        ends.iter().try_for_each(|end| self.serve_at(end))
    }

    fn serve_at(&mut self, end: &End) -> Result<()> {
        let sockets = self.ends.get_mut(end).context("no such end")?;
        let wanted = &self.ports;
        let stale = sockets
            .servers
            .extract_if(.., |port, _| !wanted.contains(port));
        for (_, token) in stale {
            self.open.remove(&token);
        }
        let missing: Vec<Port> = wanted
            .iter()
            .filter(|port| !sockets.servers.contains_key(port))
            .copied()
            .collect();
        let opened = sockets.ns.run(|| -> Result<Vec<(Port, Server)>> {
            let open = |port: Port| {
                let server = Server::open(port);
                Ok((port, server.with_context(|| format!("serving {port}"))?))
            };
            missing.into_iter().map(open).collect()
        })??;
        for (port, server) in opened {
            let token = self.next;
            self.next += 1;
            sockets.servers.insert(port, token);
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
            match &server {
                Server::Tcp(listener) => self.epoll.add(listener.as_fd(), event)?,
                Server::Udp(socket) => self.epoll.add(socket.as_fd(), event)?,
            }
            self.open.insert(token, Handle::Server(server));
        }
        Ok(())
    }

    /// Sends all probes once; returns the cells without the expected result.
    pub(super) fn round(
        &mut self,
        targets: &[Target<'_>],
        timing: Timing,
    ) -> Result<Vec<Mismatch>> {
        self.seen.clear();
        let mut probes: Vec<Probe> = Vec::with_capacity(targets.len());
        for targets in
            targets.chunk_by(|one, next| one.expected.cell.from == next.expected.cell.from)
        {
            self.start(targets, &mut probes)?;
            // Answers that queue up while the next probes are sent would look slow.
            while self.process_events(Duration::ZERO, &mut probes)? > 0 {}
        }
        self.wait_for_probes(targets, &mut probes, timing)?;
        // Data still queued for a server counts.
        while self.process_events(Duration::ZERO, &mut probes)? > 0 {}
        let mut mismatches = Vec::new();
        for (target, probe) in targets.iter().zip(&probes) {
            let seen = self.seen.has(probe.nonce, probe.local, target.address);
            let got = probe.verdict(seen);
            if !target.expected.want.matches(got) {
                let expected = target.expected.clone();
                mismatches.push(Mismatch { expected, got });
            }
        }
        self.close_probes(probes)?;
        Ok(mismatches)
    }

    fn start(&mut self, targets: &[Target<'_>], probes: &mut Vec<Probe>) -> Result<()> {
        let Some(from) = targets.first().map(|target| &target.expected.cell.from) else {
            return Ok(());
        };
        let sockets = self.ends.get_mut(from);
        let sockets = sockets.with_context(|| format!("{from} is not an end of this cluster"))?;
        let source = &mut sockets.source;
        let started = sockets.ns.run(|| -> Result<Vec<Probe>> {
            let start = |target: &Target<'_>| {
                let probe = Probe::start(target, source);
                probe.with_context(|| format!("probing {}", target.expected.cell))
            };
            targets.iter().map(start).collect()
        })??;
        for probe in started {
            let token = self.next;
            self.next += 1;
            let event = EpollEvent::new(probe.interest(), token);
            self.epoll.add(probe.socket.as_fd(), event)?;
            self.open.insert(token, Handle::Probe(probes.len()));
            probes.push(probe);
        }
        Ok(())
    }

    /// Returns when every probe has ended or the deadline has passed.
    fn wait_for_probes(
        &mut self,
        targets: &[Target<'_>],
        probes: &mut [Probe],
        timing: Timing,
    ) -> Result<()> {
        let started = Instant::now();
        let end = started + timing.deadline();
        let mut resend = started + RESEND;
        let mut last_answer = started;
        let mut slowest = Duration::ZERO;
        let mut ended_before = 0;
        loop {
            let pairs = || targets.iter().zip(probes.iter());
            let count = |want| {
                let open = pairs()
                    .filter(|(target, probe)| target.expected.want == want && !probe.has_ended());
                open.count()
            };
            let (pending, silent) = (count(Want::Allow), count(Want::Deny));
            let now = Instant::now();
            let ended = probes.iter().filter(|probe| probe.has_ended()).count();
            if ended > ended_before {
                ended_before = ended;
                last_answer = now;
                slowest = probes
                    .iter()
                    .filter_map(Probe::took)
                    .max()
                    .unwrap_or(slowest);
            }
            let quiet = last_answer + (slowest * SLOWEST_FACTOR).clamp(MIN_SILENCE, MAX_SILENCE);
            let until = match (pending, silent) {
                (0, 0) => return Ok(()),
                (0, _) => quiet,
                // A change may not be in force yet: return early and repeat the round.
                _ if timing == Timing::Poll => end.min(quiet),
                (_, 0) => end,
                (_, _) => end.max(quiet),
            };
            if now >= until {
                return Ok(());
            }
            let mut timeout = until - now;
            if timing == Timing::Final && pending > 0 {
                if now >= resend {
                    resend = now + RESEND;
                    let pending = targets.iter().zip(probes.iter_mut());
                    for (_, probe) in
                        pending.filter(|(target, _)| target.expected.want == Want::Allow)
                    {
                        probe.resend();
                    }
                }
                timeout = timeout.min(resend.saturating_duration_since(now));
            }
            self.process_events(timeout, probes)?;
        }
    }

    /// Handles ready sockets, waiting no longer than the timeout; returns how many there were.
    fn process_events(&mut self, timeout: Duration, probes: &mut [Probe]) -> Result<usize> {
        let mut events = [EpollEvent::empty(); EVENTS];
        // Rounded up: a timeout of zero would busy-loop during the last millisecond.
        let timeout = if timeout.is_zero() {
            EpollTimeout::ZERO
        } else {
            EpollTimeout::try_from(timeout + Duration::from_millis(1))?
        };
        let ready = match self.epoll.wait(&mut events, timeout) {
            Ok(ready) => ready,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(errno) => return Err(errno).context("waiting for probes"),
        };
        for event in events.iter().take(ready) {
            let token = event.data();
            match self.open.get_mut(&token) {
                Some(Handle::Server(server)) => {
                    let fresh = server.serve(&mut self.seen);
                    for connection in fresh {
                        self.add_connection(connection)?;
                    }
                }
                Some(Handle::Connection(connection)) => {
                    let gone = !connection.serve(&mut self.seen);
                    if gone {
                        self.open.remove(&token);
                    }
                }
                Some(Handle::Probe(index)) => {
                    if let Some(probe) = probes.get_mut(*index) {
                        probe.advance();
                    }
                }
                None => {}
            }
        }
        Ok(ready)
    }

    fn add_connection(&mut self, connection: Connection) -> Result<()> {
        let token = self.next;
        self.next += 1;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        self.epoll.add(connection.stream.as_fd(), event)?;
        self.open.insert(token, Handle::Connection(connection));
        Ok(())
    }

    /// Closes all probes, and lets the servers handle it.
    fn close_probes(&mut self, probes: Vec<Probe>) -> Result<()> {
        drop(probes);
        self.open
            .retain(|_, open| !matches!(open, Handle::Probe(_)));
        let end = Instant::now() + CLOSING;
        let connected = |open: &HashMap<u64, Handle>| {
            open.values().any(|it| matches!(it, Handle::Connection(_)))
        };
        while connected(&self.open) && Instant::now() < end {
            self.process_events(Duration::from_millis(1), &mut [])?;
        }
        self.open
            .retain(|_, open| !matches!(open, Handle::Connection(_)));
        Ok(())
    }
}
