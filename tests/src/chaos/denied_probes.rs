//! Probes that policy denies, one grid after another: with sockets that would answer, between workloads
//! that have permitted traffic at the same time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::hosts::{DENIED_PORTS, Hosts, OPEN_PORT};
use super::network::SOON;
use crate::probe::{Outcome, Probe, run_all};
use crate::server::{Proto, Server};
use crate::topology::Workload;

/// How long a grid waits for answers. What arrives later still counts, see [`DeniedProbes::delivered`].
const SHORT: Duration = Duration::from_millis(60);

/// One source, one target.
struct Pair<'a> {
    from: &'a Workload,
    to: &'a Workload,
    server: &'a Server,
    ports: Vec<(Proto, u16)>,
}

impl Pair<'_> {
    /// Probes over both IP versions.
    fn probe(&self, within: Duration) -> Result<Vec<(String, Outcome)>> {
        let targets = self.to.ips().into_iter();
        let probes: Vec<_> = targets
            .flat_map(|ip| {
                self.ports
                    .iter()
                    .map(move |(proto, port)| (ip, *proto, *port))
            })
            .collect();
        let all: Vec<_> = probes
            .iter()
            .map(|(ip, proto, port)| {
                Probe::new(*proto, SocketAddr::new(*ip, *port)).seen_by(self.server)
            })
            .collect();
        let outcomes = run_all(&self.from.ns, &all, within)?;
        let named = probes
            .iter()
            .map(|(ip, proto, port)| format!("{proto:?} {} to {ip} port {port}", self.from.name));
        Ok(named.zip(outcomes).collect())
    }
}

/// Other ports of the server from the client, any port of it from the peer, and the server to the client.
fn pairs(hosts: &Hosts) -> [Pair<'_>; 3] {
    let [at_server, at_client] = &hosts.servers;
    let all = [(Proto::Tcp, OPEN_PORT), (Proto::Icmp, 0)];
    let all: Vec<_> = all.into_iter().chain(DENIED_PORTS).collect();
    let denied: Vec<_> = DENIED_PORTS.into_iter().chain([(Proto::Icmp, 0)]).collect();
    let (client, server, peer) = (&hosts.client, &hosts.server, &hosts.peer);
    let pair = |from, to, server, ports| Pair {
        from,
        to,
        server,
        ports,
    };
    [
        pair(client, server, at_server, denied),
        pair(peer, server, at_server, all.clone()),
        pair(server, client, at_client, all),
    ]
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    delivered: AtomicU64,
    remarks: Mutex<Vec<String>>,
}

/// Running probes, one thread for each pair.
#[derive(Debug)]
pub(super) struct DeniedProbes {
    hosts: Arc<Hosts>,
    shared: Arc<Shared>,
    /// Nonces that the servers had before the first probe.
    seen: usize,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl DeniedProbes {
    /// Probes once while nothing is enforced: every probe must be answered.
    pub(super) fn control(hosts: &Hosts) -> Result<()> {
        for pair in pairs(hosts) {
            for (probe, outcome) in pair.probe(SOON)? {
                ensure!(outcome == Outcome::Answered, "{probe}: {outcome:?}");
            }
        }
        Ok(())
    }

    /// Starts probing.
    pub(super) fn start(hosts: &Arc<Hosts>, began: Instant) -> Result<Self> {
        let mut probes = Self {
            hosts: Arc::clone(hosts),
            shared: Arc::default(),
            seen: seen(hosts)?,
            threads: Vec::new(),
        };
        for number in 0..pairs(hosts).len() {
            let (hosts, shared) = (Arc::clone(hosts), Arc::clone(&probes.shared));
            let run = move || run(&hosts, number, &shared, began);
            probes.threads.push(std::thread::spawn(run));
        }
        Ok(probes)
    }

    /// Probes so far.
    pub(super) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Acquire)
    }

    /// How many arrived, also after their deadline; what is new about them is added to the remarks.
    pub(super) fn delivered(&self, remarks: &mut Vec<String>) -> Result<u64> {
        let new = &mut *self
            .shared
            .remarks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        remarks.append(new);
        let late = seen(&self.hosts)?.saturating_sub(self.seen);
        let noticed = self.shared.delivered.load(Ordering::Acquire);
        Ok(noticed.max(u64::try_from(late)?))
    }

    /// Stops probing.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let probed = thread.join();
            probed.map_err(|_| anyhow!("the denied probes panicked"))??;
        }
        Ok(())
    }
}

impl Drop for DeniedProbes {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn seen(hosts: &Hosts) -> Result<usize> {
    hosts.servers.iter().map(Server::seen).sum()
}

fn run(hosts: &Hosts, number: usize, shared: &Shared, began: Instant) -> Result<()> {
    let pairs = pairs(hosts);
    while let Some(pair) = pairs.get(number)
        && !shared.stop.load(Ordering::Acquire)
    {
        for (probe, outcome) in pair.probe(SHORT)? {
            shared.sent.fetch_add(1, Ordering::AcqRel);
            if outcome == Outcome::Silent {
                continue;
            }
            shared.delivered.fetch_add(1, Ordering::AcqRel);
            let remark = format!("{:.3?}: {probe}: {outcome:?}", began.elapsed());
            let mut remarks = shared
                .remarks
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if remarks.len() < 20 {
                remarks.push(remark);
            }
        }
    }
    Ok(())
}
