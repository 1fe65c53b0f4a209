//! Load: clients that send requests continuously until stopped, and count every result.
//!
//! It checks that no packet is lost during a change: over UDP every numbered datagram must be
//! answered, over TCP every request is a new connection. A request fails on an error or if its
//! answer is late, and is counted once. [`Load::stop`] returns after the requests in progress have
//! ended.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use socket2::SockRef;

use crate::netns::NetNs;
use crate::server::Proto;

/// How a load behaves.
#[derive(Clone, Copy, Debug)]
pub struct LoadSpec {
    /// Concurrent clients, each with one request in progress.
    pub clients: usize,
    /// An answer later than this is a failure.
    pub reply_within: Duration,
    /// Minimum time between the starts of two requests of one client; zero for no pause.
    pub interval: Duration,
}

impl Default for LoadSpec {
    fn default() -> Self {
        Self {
            clients: 2,
            reply_within: Duration::from_secs(1),
            interval: Duration::ZERO,
        }
    }
}

/// What a load has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests answered in time.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// The error of the first failed request.
    pub first_failure: Option<String>,
}

/// Running clients; dropping it stops them.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<Result<()>>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

impl Load {
    /// Starts clients in `ns` against an echo server at `target`.
    pub fn start(ns: &NetNs, proto: Proto, target: SocketAddr, spec: LoadSpec) -> Result<Self> {
        let request = match proto {
            Proto::Tcp => over_tcp,
            Proto::Udp => over_udp,
            Proto::Icmp => bail!("load over ICMP is not supported"),
        };
        let mut load = Self {
            shared: Arc::default(),
            threads: Vec::new(),
        };
        for client in 0..spec.clients {
            let shared = Arc::clone(&load.shared);
            let run = move || shared.run(client, target, spec, request);
            load.threads.push(ns.spawn(run)?);
        }
        Ok(load)
    }

    /// The counts so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let first_failure = self.shared.first_failure.lock();
        Totals {
            answered: self.shared.answered.load(Ordering::Acquire),
            failed: self.shared.failed.load(Ordering::Acquire),
            first_failure: first_failure
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }

    /// Waits until `count` more requests have been answered.
    pub fn wait_for_answers(&self, count: u64, deadline: Duration) -> Result<()> {
        let target = self.totals().answered + count;
        let what = format!("{count} more answers to the load");
        crate::wait::eventually(deadline, &what, || {
            Ok((self.totals().answered >= target).then_some(()))
        })
    }

    /// Stops the clients and returns the final counts.
    pub fn stop(mut self) -> Result<Totals> {
        self.join()?;
        Ok(self.totals())
    }

    fn join(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_| anyhow!("a load client panicked"))???;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

type Request = fn(&mut Client) -> Result<()>;

struct Client {
    target: SocketAddr,
    reply_within: Duration,
    /// The numbers of the client and of the request; unique for each request of a load.
    number: [u32; 2],
    udp: Option<UdpSocket>,
}

impl Shared {
    fn run(
        &self,
        client: usize,
        target: SocketAddr,
        spec: LoadSpec,
        request: Request,
    ) -> Result<()> {
        let mut client = Client {
            target,
            reply_within: spec.reply_within,
            number: [u32::try_from(client)?, 0],
            udp: None,
        };
        while !self.stop.load(Ordering::Acquire) {
            let next = Instant::now() + spec.interval;
            let [_, number] = &mut client.number;
            *number = number.wrapping_add(1);
            match request(&mut client) {
                Ok(()) => {
                    self.answered.fetch_add(1, Ordering::AcqRel);
                }
                Err(error) => {
                    let first = self.first_failure.lock();
                    first
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert_with(|| format!("request {:?}: {error:#}", client.number));
                    self.failed.fetch_add(1, Ordering::AcqRel);
                }
            }
            // This sleep limits the rate; it does not wait for a condition.
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }
}

impl Client {
    fn payload(&self) -> [u8; 16] {
        let [client, request] = self.number;
        let number = (u128::from(client) << 32) | u128::from(request);
        // Never the magic of a nonce: servers must not record every request.
        ((0xff << 120) | number).to_be_bytes()
    }

    /// The time that is left for an answer; never zero, which is invalid as a socket timeout.
    fn left(&self, since: Instant) -> Result<Duration> {
        let left = self.reply_within.checked_sub(since.elapsed());
        left.filter(|left| !left.is_zero())
            .ok_or_else(|| anyhow!("no answer within {:?}", self.reply_within))
    }
}

fn over_udp(client: &mut Client) -> Result<()> {
    let since = Instant::now();
    let payload = client.payload();
    if client.udp.is_none() {
        client.udp = Some(udp_socket(client.target)?);
    }
    let socket = client.udp.as_ref().context("no socket")?;
    socket.send(&payload)?;
    let mut answer = [0; 64];
    loop {
        let left = client.left(since)?;
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut answer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            result => result?,
        };
        // Anything else is a late answer to a request already counted as failed.
        if answer.get(..length) == Some(payload.as_slice()) {
            return Ok(());
        }
    }
}

fn udp_socket(target: SocketAddr) -> io::Result<UdpSocket> {
    let any = match target {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    Ok(socket)
}

fn over_tcp(client: &mut Client) -> Result<()> {
    let since = Instant::now();
    let payload = client.payload();
    let mut stream = TcpStream::connect_timeout(&client.target, client.left(since)?)?;
    // A reset at close avoids TIME_WAIT, which would exhaust the ports within seconds.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.write_all(&payload)?;
    let mut answer = Vec::new();
    while answer.len() < payload.len() {
        stream.set_read_timeout(Some(client.left(since)?))?;
        let mut buffer = [0; 64];
        let length = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            result => result?,
        };
        ensure!(length > 0, "closed before the answer");
        answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
    ensure!(answer == payload, "the answer differs from the request");
    Ok(())
}
