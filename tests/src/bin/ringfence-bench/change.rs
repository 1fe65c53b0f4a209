//! From a changed policy file to the first packet that meets the new verdict.
//!
//! The policy file is replaced by rename while one established UDP flow carries a datagram every
//! few dozen microseconds. The time runs from just before the rename to the sending of the first
//! datagram with the new verdict, so it ends with the effect on the wire and not with what the
//! agent says. After each change the flow goes on until the new verdict has held for a while.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ringfence_testbed::interrupt;

use crate::Effort;
use crate::process::Bench;
use crate::report::{distribution, heading, table};
use crate::world;

/// From one datagram to the next.
const INTERVAL: Duration = Duration::from_micros(50);
/// So many datagrams in a row must meet the new verdict.
const STEADY: usize = 200;
/// From a change that holds to the next one.
const PAUSE: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(10);

/// Measures and prints.
pub(crate) fn measure(bench: &mut Bench, effort: Effort) -> Result<()> {
    heading("A policy file changes: from rename to the first packet with the new verdict");
    let mut stream = Stream::open(bench)?;
    let (mut grants, mut revocations) = (Vec::new(), Vec::new());
    for round in 0..effort.changes {
        interrupt::check()?;
        let open = round % 2 == 0;
        let staged = bench.agent.dir().join("staging/next");
        std::fs::write(&staged, world::policies(open))?;
        stream.flow_for(PAUSE)?;
        let target = bench.agent.dir().join("policies.toml");
        let started = Instant::now();
        std::fs::rename(&staged, &target).context("replacing the policies")?;
        let took = stream.until(open, started, DEADLINE)?;
        if open {
            grants.push(took);
        } else {
            revocations.push(took);
        }
    }
    let row = |name: &str, samples: &[Duration]| {
        let mut row = vec![name.to_owned(), samples.len().to_string()];
        row.extend(distribution(samples));
        row
    };
    let all = [grants.clone(), revocations.clone()].concat();
    let rows = [
        row("deny to allow", &grants),
        row("allow to deny", &revocations),
        row("both", &all),
    ];
    table(&["change", "times", "p50", "p90", "p99", "worst"], &rows);
    Ok(())
}

/// One UDP flow from the sender to the target, observed at both ends by one thread.
pub(crate) struct Stream {
    sender: UdpSocket,
    receiver: UdpSocket,
    number: u64,
}

impl Stream {
    /// Opens the sockets; nothing is sent yet.
    pub(crate) fn open(bench: &Bench) -> Result<Self> {
        let at = SocketAddr::new(bench.target.ip4.into(), world::PORT);
        let receiver = bench.target.ns.run(|| UdpSocket::bind(at))??;
        receiver.set_nonblocking(true)?;
        let from = SocketAddr::new(bench.sender.ip4.into(), 0);
        let sender = bench.sender.ns.run(|| UdpSocket::bind(from))??;
        sender.connect(at)?;
        Ok(Self {
            sender,
            receiver,
            number: 0,
        })
    }

    /// Keeps the flow going.
    fn flow_for(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        let mut arrived = HashSet::new();
        while Instant::now() < end {
            self.send(&mut arrived)?;
        }
        Ok(())
    }

    /// Sends until the verdict is `open` and stays so; returns the time from `started` to the
    /// first datagram that met it.
    pub(crate) fn until(
        &mut self,
        open: bool,
        started: Instant,
        deadline: Duration,
    ) -> Result<Duration> {
        let mut sent: Vec<(u64, Instant)> = Vec::new();
        let mut arrived = HashSet::new();
        let mut steady = 0;
        while steady < STEADY {
            if started.elapsed() > deadline {
                bail!("no change of verdict within {deadline:?}");
            }
            let at = Instant::now();
            let number = self.send(&mut arrived)?;
            sent.push((number, at));
            steady = if arrived.contains(&number) == open {
                steady + 1
            } else {
                0
            };
        }
        // A datagram that was still under way when its turn ended has arrived by now.
        let met = |number: &u64| arrived.contains(number) == open;
        let last_old = sent.iter().rposition(|(number, _)| !met(number));
        let first_new = sent.iter().position(|(number, _)| met(number));
        let first_new = first_new.context("no datagram met the new verdict")?;
        // Once the verdict has changed it must not go back.
        ensure!(
            last_old.is_none_or(|last_old| last_old < first_new),
            "the verdict went back and forth"
        );
        let (_, at) = sent.get(first_new).context("a datagram that was sent")?;
        Ok(at.saturating_duration_since(started))
    }

    /// Sends one datagram and takes what has arrived until the next one is due.
    fn send(&mut self, arrived: &mut HashSet<u64>) -> Result<u64> {
        let next = Instant::now() + INTERVAL;
        self.number += 1;
        match self.sender.send(&self.number.to_be_bytes()) {
            Ok(_) => {}
            // What the far end's kernel had to say about an earlier one.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error).context("sending a datagram"),
        }
        let mut buffer = [0; 8];
        loop {
            match self.receiver.recv(&mut buffer) {
                Ok(_) => {
                    arrived.insert(u64::from_be_bytes(buffer));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() >= next {
                        return Ok(self.number);
                    }
                    std::hint::spin_loop();
                }
                Err(error) => return Err(error).context("receiving a datagram"),
            }
        }
    }
}
