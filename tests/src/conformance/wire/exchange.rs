//! All probes of a round and all servers, on one thread.
//!
//! One thread for both sides makes "no answer, and the server saw nothing" a fact and not a race:
//! before a silent probe is judged, everything that the kernel has queued for the servers has been
//! read. It also keeps bursts small, because servers answer between one namespace's probes and the
//! next one's.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::flight::{Flight, SourcePort};
use super::servers::{Connection, Seen, Server};
use crate::conformance::grid::{Judged, Miss, Want};
use crate::conformance::name::End;
use crate::conformance::port::Port;
use crate::netns::NetNs;

/// A silent probe counts as denied no sooner than this after everything else was answered.
const QUIET: Duration = Duration::from_millis(100);
/// How many times as long as the slowest answer a silent probe is waited for.
const SLOWER: u32 = 3;
const MOST_QUIET: Duration = Duration::from_millis(500);
/// After this an unanswered datagram is sent again, when patience is long.
const RESEND: Duration = Duration::from_millis(250);
/// How long connections may take to close after a round.
const CLOSING: Duration = Duration::from_millis(20);
const EVENTS: usize = 256;

/// A cell and the address that its probe goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim<'a> {
    pub(super) judged: &'a Judged,
    pub(super) target: SocketAddr,
}

/// How long an answer that is wanted is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It will be tried again.
    Short,
    /// It will not be tried again: packets lost to a busy machine must not count.
    Long,
}

impl Patience {
    const fn deadline(self) -> Duration {
        match self {
            Self::Short => Duration::from_millis(300),
            // The kernel repeats a lost SYN after one second.
            Self::Long => Duration::from_millis(3500),
        }
    }
}

#[derive(Debug)]
struct Place {
    ns: NetNs,
    source: SourcePort,
    servers: BTreeMap<Port, u64>,
}

#[derive(Debug)]
enum Open {
    Server(Server),
    Connection(Connection),
    Flight(usize),
}

/// Every end, and what is open at it.
#[derive(Debug)]
pub(super) struct Exchange {
    epoll: Epoll,
    next: u64,
    open: HashMap<u64, Open>,
    places: BTreeMap<End, Place>,
    ports: Vec<Port>,
    seen: Seen,
}

impl Exchange {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("making an epoll")?,
            next: 0,
            open: HashMap::new(),
            places: BTreeMap::new(),
            ports: Vec::new(),
            seen: Seen::default(),
        })
    }

    /// A new end, which serves what all serve.
    pub(super) fn enter(&mut self, end: &End, ns: &NetNs) -> Result<()> {
        let place = Place {
            ns: ns.clone(),
            source: SourcePort::default(),
            servers: BTreeMap::new(),
        };
        self.places.insert(end.clone(), place);
        self.serve_at(end)
    }

    /// An end is gone.
    pub(super) fn leave(&mut self, end: &End) {
        if let Some(place) = self.places.remove(end) {
            for token in place.servers.values() {
                self.open.remove(token);
            }
        }
    }

    /// Every end serves these ports from now on, and no others.
    pub(super) fn serve(&mut self, ports: &[Port]) -> Result<()> {
        if self.ports == ports {
            return Ok(());
        }
        self.ports = ports.to_vec();
        let ends: Vec<End> = self.places.keys().cloned().collect();
        ends.iter().try_for_each(|end| self.serve_at(end))
    }

    fn serve_at(&mut self, end: &End) -> Result<()> {
        let place = self.places.get_mut(end).context("no such end")?;
        let wanted = &self.ports;
        let stale = place
            .servers
            .extract_if(.., |port, _| !wanted.contains(port));
        for (_, token) in stale {
            self.open.remove(&token);
        }
        let missing: Vec<Port> = wanted
            .iter()
            .filter(|port| !place.servers.contains_key(port))
            .copied()
            .collect();
        let opened = place.ns.run(|| -> Result<Vec<(Port, Server)>> {
            let open = |port: Port| {
                let server = Server::open(port);
                Ok((port, server.with_context(|| format!("serving {port}"))?))
            };
            missing.into_iter().map(open).collect()
        })??;
        for (port, server) in opened {
            let token = self.next;
            self.next += 1;
            place.servers.insert(port, token);
            let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
            match &server {
                Server::Tcp(listener) => self.epoll.add(listener.as_fd(), event)?,
                Server::Udp(socket) => self.epoll.add(socket.as_fd(), event)?,
            }
            self.open.insert(token, Open::Server(server));
        }
        Ok(())
    }

    /// Probes all of these once; returns those that were not as wanted.
    pub(super) fn round(&mut self, aims: &[Aim<'_>], patience: Patience) -> Result<Vec<Miss>> {
        self.seen.clear();
        let mut flights: Vec<Flight> = Vec::with_capacity(aims.len());
        for aims in aims.chunk_by(|one, next| one.judged.cell.from == next.judged.cell.from) {
            self.launch(aims, &mut flights)?;
            // Answers that waited for the next probes would look slow.
            while self.pump(Duration::ZERO, &mut flights)? > 0 {}
        }
        self.watch(aims, &mut flights, patience)?;
        // What is queued for a server now counts.
        while self.pump(Duration::ZERO, &mut flights)? > 0 {}
        let mut misses = Vec::new();
        for (aim, flight) in aims.iter().zip(&flights) {
            let seen = self.seen.has(flight.nonce, flight.local, aim.target);
            let got = flight.verdict(seen);
            if !aim.judged.want.is(got) {
                let judged = aim.judged.clone();
                misses.push(Miss { judged, got });
            }
        }
        self.hang_up(flights)?;
        Ok(misses)
    }

    fn launch(&mut self, aims: &[Aim<'_>], flights: &mut Vec<Flight>) -> Result<()> {
        let Some(from) = aims.first().map(|aim| &aim.judged.cell.from) else {
            return Ok(());
        };
        let place = self.places.get_mut(from);
        let place = place.with_context(|| format!("no probe can start at {from}"))?;
        let source = &mut place.source;
        let launched = place.ns.run(|| -> Result<Vec<Flight>> {
            let launch = |aim: &Aim<'_>| {
                let flight = Flight::launch(aim, source);
                flight.with_context(|| format!("probing {}", aim.judged.cell))
            };
            aims.iter().map(launch).collect()
        })??;
        for flight in launched {
            let token = self.next;
            self.next += 1;
            let event = EpollEvent::new(flight.interest(), token);
            self.epoll.add(flight.socket.as_fd(), event)?;
            self.open.insert(token, Open::Flight(flights.len()));
            flights.push(flight);
        }
        Ok(())
    }

    /// Returns when every probe is over or has had its time.
    fn watch(
        &mut self,
        aims: &[Aim<'_>],
        flights: &mut [Flight],
        patience: Patience,
    ) -> Result<()> {
        let launched = Instant::now();
        let end = launched + patience.deadline();
        let mut resend = launched + RESEND;
        let mut last_answer = launched;
        let mut slowest = Duration::ZERO;
        let mut answered = 0;
        loop {
            let pairs = || aims.iter().zip(flights.iter());
            let count = |want| {
                let open =
                    pairs().filter(|(aim, flight)| aim.judged.want == want && !flight.is_over());
                open.count()
            };
            let (owed, silent) = (count(Want::Allow), count(Want::Deny));
            let now = Instant::now();
            let over = flights.iter().filter(|flight| flight.is_over()).count();
            if over > answered {
                answered = over;
                last_answer = now;
                slowest = flights
                    .iter()
                    .filter_map(Flight::took)
                    .max()
                    .unwrap_or(slowest);
            }
            let quiet = last_answer + (slowest * SLOWER).clamp(QUIET, MOST_QUIET);
            let until = match (owed, silent) {
                (0, 0) => return Ok(()),
                (0, _) => quiet,
                // What changed may not be in force yet: better to try again soon.
                _ if patience == Patience::Short => end.min(quiet),
                (_, 0) => end,
                (_, _) => end.max(quiet),
            };
            if now >= until {
                return Ok(());
            }
            let mut timeout = until - now;
            if patience == Patience::Long && owed > 0 {
                if now >= resend {
                    resend = now + RESEND;
                    let owed = aims.iter().zip(flights.iter_mut());
                    for (_, flight) in owed.filter(|(aim, _)| aim.judged.want == Want::Allow) {
                        flight.resend();
                    }
                }
                timeout = timeout.min(resend.saturating_duration_since(now));
            }
            self.pump(timeout, flights)?;
        }
    }

    /// Handles what is ready, waiting for it no longer than the timeout; returns how much it was.
    fn pump(&mut self, timeout: Duration, flights: &mut [Flight]) -> Result<usize> {
        let mut events = [EpollEvent::empty(); EVENTS];
        // Rounded up: a timeout of zero would spin through the last millisecond.
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
                Some(Open::Server(server)) => {
                    let fresh = server.serve(&mut self.seen);
                    for connection in fresh {
                        self.adopt(connection)?;
                    }
                }
                Some(Open::Connection(connection)) => {
                    let gone = !connection.serve(&mut self.seen);
                    if gone {
                        self.open.remove(&token);
                    }
                }
                Some(Open::Flight(index)) => {
                    if let Some(flight) = flights.get_mut(*index) {
                        flight.advance();
                    }
                }
                None => {}
            }
        }
        Ok(ready)
    }

    fn adopt(&mut self, connection: Connection) -> Result<()> {
        let token = self.next;
        self.next += 1;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        self.epoll.add(connection.stream.as_fd(), event)?;
        self.open.insert(token, Open::Connection(connection));
        Ok(())
    }

    /// Closes every probe, as a client does, and lets the servers notice.
    fn hang_up(&mut self, flights: Vec<Flight>) -> Result<()> {
        drop(flights);
        self.open.retain(|_, open| !matches!(open, Open::Flight(_)));
        let end = Instant::now() + CLOSING;
        let connected =
            |open: &HashMap<u64, Open>| open.values().any(|it| matches!(it, Open::Connection(_)));
        while connected(&self.open) && Instant::now() < end {
            self.pump(Duration::from_millis(1), &mut [])?;
        }
        self.open
            .retain(|_, open| !matches!(open, Open::Connection(_)));
        Ok(())
    }
}
