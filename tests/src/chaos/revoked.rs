//! Flows that a change of policy revokes: they must stop at once, in both directions, and stay stopped.
//!
//! A connection alone would hardly show it: after a loss TCP waits longer and longer. The datagrams next to
//! it are sent every ten milliseconds, from both ends.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::datagrams::{pair, taken};
use super::hosts::Hosts;
use super::network::SOON;
use crate::stream::{Delivery, End, Stream};
use crate::wait::eventually;

const INTERVAL: Duration = Duration::from_millis(10);
/// How long a message of a revoked connection is waited for.
const SHORT: Duration = Duration::from_millis(50);

/// A flow of each protocol over each IP version.
#[derive(Debug)]
pub(super) struct Flows {
    streams: Vec<Stream>,
    datagrams: Vec<Pair>,
}

#[derive(Debug)]
struct Pair {
    client: UdpSocket,
    server: UdpSocket,
    /// The client, as the server sees it.
    from: SocketAddr,
}

impl Pair {
    fn send(&self) {
        // A full queue loses it.
        let _ = self.client.send(b"from the client");
        let _ = self.server.send_to(b"from the server", self.from);
    }

    /// How much has arrived, at both ends.
    fn arrived(&self) -> Result<u64> {
        let mut count = 0;
        for socket in [&self.client, &self.server] {
            while taken(socket.recv(&mut [0; 64]))?.is_some() {
                count += 1;
            }
        }
        Ok(count)
    }
}

impl Flows {
    /// Opens them and uses them in both directions.
    pub(super) fn open(hosts: &Hosts, port: u16) -> Result<Self> {
        let (client, server) = (&hosts.client, &hosts.server);
        let mut flows = Self {
            streams: Vec::new(),
            datagrams: Vec::new(),
        };
        for ip in server.ips() {
            let mut stream = Stream::open(&client.ns, &server.ns, ip, port, SOON)?;
            for end in [End::Client, End::Server, End::Client] {
                stream.expect_delivered(end, SOON)?;
            }
            flows.streams.push(stream);
            let (client, server) = pair(client, server, ip, port)?;
            let from = eventually(SOON, "a datagram of a flow to be revoked", || {
                client.send(b"from the client")?;
                let received = taken(server.recv_from(&mut [0; 64]))?;
                Ok(received.map(|(_, from)| from))
            })?;
            let pair = Pair {
                client,
                server,
                from,
            };
            eventually(SOON, "an answer of a flow to be revoked", || {
                pair.send();
                Ok((pair.arrived()? > 0).then_some(()))
            })?;
            flows.datagrams.push(pair);
        }
        Ok(flows)
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    pairs: Mutex<Vec<Pair>>,
    sent: AtomicU64,
    arrived: AtomicU64,
}

/// All flows that are revoked.
#[derive(Debug)]
pub(super) struct Revoked {
    shared: Arc<Shared>,
    streams: Vec<Stream>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Revoked {
    pub(super) fn new() -> Self {
        let shared = Arc::<Shared>::default();
        let run = Arc::clone(&shared);
        Self {
            shared,
            streams: Vec::new(),
            thread: Some(std::thread::spawn(move || send(&run))),
        }
    }

    /// Adds flows that were revoked just now. What they sent before may still be in their sockets.
    /// Returns how many of the connections have stopped, of how many.
    pub(super) fn add(&mut self, mut flows: Flows) -> Result<(usize, usize)> {
        for pair in &flows.datagrams {
            pair.arrived()?;
        }
        let mut stopped = 0;
        for stream in &mut flows.streams {
            let mut is_stopped = true;
            for end in [End::Server, End::Client] {
                is_stopped &= stream.deliver(end, SHORT)? == Delivery::Silent;
            }
            stopped += usize::from(is_stopped);
        }
        let count = flows.streams.len();
        lock(&self.shared.pairs).append(&mut flows.datagrams);
        self.streams.append(&mut flows.streams);
        Ok((stopped, count))
    }

    /// How many messages of revoked flows have arrived so far.
    pub(super) fn arrived(&self) -> u64 {
        self.shared.arrived.load(Ordering::Acquire)
    }

    /// Tries every connection again; returns how many messages were sent on revoked flows in all, and how
    /// many arrived.
    pub(super) fn finish(mut self) -> Result<(u64, u64)> {
        self.stop()?;
        let mut sent = self.shared.sent.load(Ordering::Acquire);
        let mut arrived = self.arrived();
        for stream in &mut self.streams {
            for end in [End::Server, End::Client] {
                sent += 1;
                arrived += u64::from(stream.deliver(end, SHORT)? != Delivery::Silent);
            }
        }
        ensure!(sent > 0, "nothing was revoked");
        Ok((sent, arrived))
    }

    fn stop(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        let thread = self.thread.take().map(JoinHandle::join);
        let ended = thread.unwrap_or(Ok(Ok(())));
        ended
            .map_err(|_| anyhow!("the revoked flows panicked"))?
            .context("revoked flows")
    }
}

impl Drop for Revoked {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn send(shared: &Shared) -> Result<()> {
    while !shared.stop.load(Ordering::Acquire) {
        for pair in lock(&shared.pairs).iter() {
            pair.send();
            shared.sent.fetch_add(2, Ordering::AcqRel);
            shared.arrived.fetch_add(pair.arrived()?, Ordering::AcqRel);
        }
        // This sleep limits the rate; it does not wait for a condition.
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

fn lock(pairs: &Mutex<Vec<Pair>>) -> MutexGuard<'_, Vec<Pair>> {
    pairs.lock().unwrap_or_else(PoisonError::into_inner)
}
