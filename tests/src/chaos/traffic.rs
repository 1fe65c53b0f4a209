//! All traffic of a run: what must pass, what must not, and what became of it.
//!
//! Invariants: both continue without a pause from [`Traffic::start`] to [`Traffic::finish`]; a wrong
//! delivery counts whenever it is noticed; the longest stall includes one that has not ended.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::connections::{self, Connection};
use super::datagrams::Datagrams;
use super::denied_packets::DeniedPackets;
use super::denied_probes::DeniedProbes;
use super::hosts::{DATAGRAM_PORT, Hosts, OPEN_PORT};
use super::network::Network;
use crate::load::{Load, LoadSpec, Totals};
use crate::server::Proto;

/// Between two looks at the connections.
const TICK: Duration = Duration::from_millis(4);
/// The longest stall that is accepted.
const STALL: Duration = Duration::from_secs(1);

/// How much traffic there is.
#[derive(Clone, Copy, Debug)]
pub struct TrafficSpec {
    /// TCP connections that stay open, half of them idle.
    pub connections: usize,
    /// How long there is traffic before anything happens: what the machine itself does to it.
    pub control: Duration,
    /// How long a new connection may take, with its first answer.
    pub opened_within: Duration,
}

/// The longest time without an answer to permitted traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// How long.
    pub longest: Duration,
    /// When it ended, since the traffic began.
    pub ended: Duration,
}

/// What became of the traffic.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Denied packets and probes that were sent.
    pub denied: u64,
    /// Those of them that arrived, and when that was noticed.
    pub delivered: u64,
    /// What is known about them, and about lost connections.
    pub remarks: Vec<String>,
    /// Connections that stay open.
    pub connections: usize,
    /// Those of them that were closed, reset, or did not carry data at last.
    pub lost: usize,
    /// The longest stall before anything happened.
    pub control: Stall,
    /// The longest stall of connections and datagrams.
    pub stall: Stall,
    /// Datagrams that were answered, and those that were not.
    pub datagrams: (u64, u64),
    /// New connections with an answer in time, and those without.
    pub opened: (u64, u64),
}

impl Outcome {
    /// Whether nothing denied arrived, and everything permitted did.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.denied > 0 && self.delivered == 0 && self.lost == 0 && self.opened.1 == 0
    }

    /// Whether permitted traffic never stalled for longer than is accepted: the machine's own load counts,
    /// so the short runs in the tests do not ask.
    #[must_use]
    pub fn is_in_time(&self) -> bool {
        self.stall.longest <= STALL
    }

    /// The lines before the last one.
    #[must_use]
    pub fn details(&self) -> String {
        let remarks: String = self
            .remarks
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        let ((opened, failed), (answered, lost)) = (self.opened, self.datagrams);
        format!(
            "{remarks}control: longest stall {} ms before anything happened\n\
             {opened} new connections, {failed} failed; {answered} datagrams answered, {lost} lost; \
             longest stall at {:.3} s",
            self.control.longest.as_millis(),
            self.stall.ended.as_secs_f64()
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} denied delivered, {} of {} connections lost, longest stall {} ms",
            self.delivered,
            self.denied,
            self.lost,
            self.connections,
            self.stall.longest.as_millis()
        )
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    stall: Mutex<Stall>,
}

/// Running traffic.
#[derive(Debug)]
pub(super) struct Traffic {
    began: Instant,
    shared: Arc<Shared>,
    kept: Option<JoinHandle<Result<Kept>>>,
    opened: Vec<Load>,
    packets: Vec<DeniedPackets>,
    probes: DeniedProbes,
    outcome: Outcome,
}

impl Traffic {
    /// Sends the denied packets and probes while nothing is enforced, which must all arrive; then
    /// enforces policy, opens the connections, and waits for the time of the control.
    pub(super) fn start(network: &Network, spec: &TrafficSpec) -> Result<Self> {
        let hosts = &network.hosts;
        let to_vault = [&hosts.peer, &hosts.server];
        DeniedPackets::control(&to_vault, &hosts.vault).context("without enforcement")?;
        DeniedPackets::control(&[&hosts.guest], &hosts.cell).context("without enforcement")?;
        DeniedProbes::control(hosts).context("without enforcement")?;
        network.enforce()?;

        let began = Instant::now();
        let kept = Kept::open(hosts, spec.connections)?;
        let shared = Arc::<Shared>::default();
        let run = Arc::clone(&shared);
        let mut traffic = Self {
            began,
            kept: Some(std::thread::spawn(move || kept.run(&run, began))),
            shared,
            opened: Vec::new(),
            packets: vec![
                DeniedPackets::start(&to_vault, &hosts.vault)?,
                DeniedPackets::start(&[&hosts.guest], &hosts.cell)?,
            ],
            probes: DeniedProbes::start(hosts, began)?,
            outcome: Outcome {
                connections: spec.connections,
                ..Outcome::default()
            },
        };
        let load = LoadSpec {
            clients: 1,
            reply_within: spec.opened_within,
            interval: Duration::from_millis(25),
        };
        for ip in hosts.server.ips() {
            let target = SocketAddr::new(ip, OPEN_PORT);
            let load = Load::start(&hosts.client.ns, Proto::Tcp, target, load)?;
            traffic.opened.push(load);
        }
        // Not a wait for a condition: the control is what happens in this time.
        std::thread::sleep(spec.control);
        traffic.outcome.control = std::mem::take(&mut *lock(&traffic.shared.stall));
        traffic.check()?;
        ensure!(
            traffic.outcome.delivered == 0,
            "{:?}",
            traffic.outcome.remarks
        );
        Ok(traffic)
    }

    /// Time since the traffic began.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The longest stall since the last call.
    pub(super) fn take_stall(&mut self) -> Stall {
        let stall = std::mem::take(&mut *lock(&self.shared.stall));
        if stall.longest > self.outcome.stall.longest {
            self.outcome.stall = stall;
        }
        stall
    }

    /// Counts what has been delivered wrongly so far; returns how much is new.
    pub(super) fn check(&mut self) -> Result<u64> {
        let before = self.outcome.delivered;
        let mut delivered = self.probes.delivered(&mut self.outcome.remarks)?;
        let mut arrivals = BTreeMap::new();
        for packets in &self.packets {
            let arrived = packets.arrived()?;
            delivered += arrived.sum();
            arrivals.insert(packets.target().to_owned(), arrived);
        }
        if delivered > before {
            let at = self.now();
            let arrivals: Vec<_> = arrivals
                .iter()
                .map(|(to, n)| format!("{to}: {n}"))
                .collect();
            let remark = format!("{at:.3?}: {delivered} delivered; packets at {arrivals:?}");
            self.outcome.remarks.push(remark);
        }
        self.outcome.delivered = delivered;
        Ok(delivered - before)
    }

    /// Ends all traffic, uses the idle connections, and says what became of everything.
    pub(super) fn finish(mut self) -> Result<Outcome> {
        self.shared.stop.store(true, Ordering::Release);
        let kept = self.kept.take().context("running")?.join();
        let kept = kept.map_err(|_| anyhow!("the traffic panicked"))??;
        self.take_stall();
        for packets in &mut self.packets {
            packets.stop()?;
        }
        self.probes.stop()?;
        self.check()?;
        self.outcome.denied = self.probes.sent();
        for packets in &self.packets {
            self.outcome.denied += packets.sent().sum();
        }
        for load in self.opened.drain(..) {
            let Totals {
                answered,
                failed,
                first_failure,
            } = load.stop()?;
            self.outcome.opened.0 += answered;
            self.outcome.opened.1 += failed;
            self.outcome.remarks.extend(first_failure);
        }
        for datagrams in &kept.datagrams {
            self.outcome.datagrams.0 += datagrams.sent - datagrams.lost;
            self.outcome.datagrams.1 += datagrams.lost;
        }
        let lost = conclude(kept.connections)?;
        self.outcome.lost = lost.len();
        self.outcome.remarks.extend(lost);
        Ok(self.outcome)
    }
}

/// What is kept open, driven by one thread.
#[derive(Debug)]
struct Kept {
    connections: Vec<Connection>,
    datagrams: Vec<Datagrams>,
}

impl Kept {
    fn open(hosts: &Hosts, count: usize) -> Result<Self> {
        let Hosts { client, server, .. } = hosts;
        let ips = server.ips().into_iter();
        let datagrams = ips.map(|ip| Datagrams::open(client, server, ip, DATAGRAM_PORT));
        Ok(Self {
            connections: connections::open(client, server, count)?,
            datagrams: datagrams.collect::<Result<_>>()?,
        })
    }

    fn run(mut self, shared: &Shared, began: Instant) -> Result<Self> {
        // The connections were opened one after the other.
        self.advance()?;
        while !shared.stop.load(Ordering::Acquire) {
            let longest = self.advance()?;
            let mut stall = lock(&shared.stall);
            if longest > stall.longest {
                let ended = began.elapsed();
                *stall = Stall { longest, ended };
            }
            drop(stall);
            // This sleep limits the rate; it does not wait for a condition.
            std::thread::sleep(TICK);
        }
        Ok(self)
    }

    /// Moves everything on; returns the longest time without an answer that is known now.
    fn advance(&mut self) -> Result<Duration> {
        let mut longest = Duration::ZERO;
        for connection in &mut self.connections {
            let now = Instant::now();
            let waiting = connection.waiting(now);
            let gap = connection.advance(now).unwrap_or_default();
            longest = longest.max(gap).max(waiting);
        }
        for datagrams in &mut self.datagrams {
            let now = Instant::now();
            let waiting = datagrams.waiting(now);
            let gap = datagrams.advance(now)?.unwrap_or_default();
            longest = longest.max(gap).max(waiting);
        }
        Ok(longest)
    }
}

/// Why connections are lost, of those that are. All are used at the same time: each may wait.
fn conclude(connections: Vec<Connection>) -> Result<Vec<String>> {
    std::thread::scope(|scope| {
        let conclude = |connection: Connection| scope.spawn(|| connection.conclude());
        let threads: Vec<_> = connections.into_iter().map(conclude).collect();
        let mut lost = Vec::new();
        for thread in threads {
            let ended = thread.join();
            lost.extend(ended.map_err(|_| anyhow!("a connection panicked"))?);
        }
        Ok(lost)
    })
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
