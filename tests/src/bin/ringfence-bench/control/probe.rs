//! Measures the time from a request to its effect with a stream of datagrams.
//!
//! One thread, pinned to a CPU, sends a datagram every hundred microseconds and watches both ends.
//! The time runs from just before the request until the first datagram with the new verdict has
//! been sent, so it ends with the effect on packets and not with an acknowledgement. If the thread
//! loses its CPU while it sends, the effect is measured late, but never before its request. Before
//! the request every datagram must get the old verdict; after the effect every datagram must get
//! the new one for a while. The request is made by another thread, which is not pinned.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use ringfence_testbed::Workload;

use crate::cpu;

use crate::world;

/// Interval between datagrams.
const INTERVAL: Duration = Duration::from_micros(100);
/// Number of consecutive datagrams that must get the new verdict.
const STEADY: usize = 100;
/// Pause between a completed change and the next request, and its random variation, which avoids
/// synchronisation with the agent's periodic work.
const PAUSE: Duration = Duration::from_millis(15);
const VARIES: Duration = Duration::from_millis(25);
const DEADLINE: Duration = Duration::from_secs(20);

/// A UDP flow from the outside host to a workload.
pub(crate) struct Probe {
    sender: UdpSocket,
    receiver: UdpSocket,
    number: u64,
}

/// The datagrams sent, with the time after sending, and those that arrived.
#[derive(Default)]
struct Observed {
    sent: Vec<(u64, Instant)>,
    arrived: HashSet<u64>,
}

impl Probe {
    /// Opens the sockets; nothing is sent yet. The outside host must be able to send from `from`.
    pub(crate) fn open(outside: &Workload, target: &Workload, from: IpAddr) -> Result<Self> {
        let at = SocketAddr::new(target.ip(from.is_ipv6()), world::PORT);
        let receiver = target.ns.run(|| UdpSocket::bind(at))??;
        receiver.set_nonblocking(true)?;
        let sender = outside
            .ns
            .run(|| UdpSocket::bind(SocketAddr::new(from, 0)))?;
        let sender = sender.with_context(|| format!("sending from {from}"))?;
        sender.connect(at)?;
        Ok(Self {
            sender,
            receiver,
            number: 0,
        })
    }

    /// Waits until the flow is allowed or denied.
    pub(crate) fn wait_for(&mut self, open: bool) -> Result<()> {
        self.watch(
            open,
            DEADLINE,
            Some(&AtomicBool::new(false)),
            &mut Observed::default(),
        )
    }

    /// Makes a request that allows or denies the flow; returns the time to its effect.
    pub(crate) fn time(
        &mut self,
        open: bool,
        request: impl FnOnce() -> Result<()>,
    ) -> Result<Duration> {
        let (ready, waiting) = mpsc::channel();
        let request_failed = &AtomicBool::new(false);
        thread::scope(|scope| {
            let probing = scope.spawn(move || {
                cpu::pin_to_last()?;
                let mut observed = Observed::default();
                self.watch(!open, pause(), None, &mut observed)?;
                ready.send(())?;
                self.watch(open, DEADLINE, Some(request_failed), &mut observed)?;
                Ok(observed)
            });
            // A receive error means that the probe thread ended with an error.
            let made = waiting.recv().map(|()| {
                let requested = Instant::now();
                request().map(|()| requested)
            });
            request_failed.store(matches!(made, Ok(Err(_))), Ordering::Release);
            let probed: Result<Observed> =
                (probing.join()).map_err(|_| anyhow!("the probe panicked"))?;
            match made {
                Ok(requested) => probed?.effect(open, requested?),
                Err(_) => bail!(probed.err().context("the probe ended early")?),
            }
        })
    }

    /// Sends until this verdict has held: without `until_steady` for the given time, with it for
    /// some consecutive datagrams within that time; the flag tells that the request failed.
    fn watch(
        &mut self,
        open: bool,
        time: Duration,
        until_steady: Option<&AtomicBool>,
        observed: &mut Observed,
    ) -> Result<()> {
        let (started, mut steady) = (Instant::now(), 0);
        loop {
            let (number, at) = self.send(&mut observed.arrived)?;
            observed.sent.push((number, at));
            let met = observed.arrived.contains(&number) == open;
            steady = if met { steady + 1 } else { 0 };
            match until_steady {
                None if started.elapsed() > time && steady >= STEADY => return Ok(()),
                None if started.elapsed() > time + DEADLINE => {
                    bail!("before the request the flow should be {}", name(open));
                }
                Some(_) if steady >= STEADY => return Ok(()),
                Some(request_failed) if request_failed.load(Ordering::Acquire) => {
                    bail!("the request failed")
                }
                Some(_) if started.elapsed() > time => {
                    bail!("the flow is not {} within {time:?}", name(open));
                }
                _ => {}
            }
        }
    }

    /// Sends one datagram and receives until the next one is due. Returns the datagram's number and
    /// the time after sending.
    fn send(&mut self, arrived: &mut HashSet<u64>) -> Result<(u64, Instant)> {
        let next = Instant::now() + INTERVAL;
        self.number += 1;
        self.sender
            .send(&self.number.to_be_bytes())
            .context("sending a datagram")?;
        let sent = Instant::now();
        let mut buffer = [0; 8];
        loop {
            match self.receiver.recv(&mut buffer) {
                Ok(_) => {
                    arrived.insert(u64::from_be_bytes(buffer));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() >= next {
                        return Ok((self.number, sent));
                    }
                    std::hint::spin_loop();
                }
                Err(error) => return Err(error).context("receiving a datagram"),
            }
        }
    }
}

impl Observed {
    /// From the request to the first datagram with the new verdict.
    fn effect(&self, open: bool, requested: Instant) -> Result<Duration> {
        let has_verdict = |number: &u64| self.arrived.contains(number) == open;
        // The last datagram with the old verdict. A datagram that was still in flight when the next
        // one was sent has arrived by now.
        let last_old = self
            .sent
            .iter()
            .rposition(|(number, _)| !has_verdict(number));
        let first_new = last_old.map_or(0, |last_old| last_old + 1);
        let (_, at) = self
            .sent
            .get(first_new)
            .context("no datagram got the new verdict")?;
        let early = self.sent.iter().take(first_new);
        let early = early.filter(|(number, _)| has_verdict(number)).count();
        ensure!(
            early == 0,
            "the verdict changed back and forth after the request: {}",
            self.runs(requested)
        );
        ensure!(
            *at >= requested,
            "the new verdict was in force before the request"
        );
        Ok(at.saturating_duration_since(requested))
    }

    /// The datagrams since the request as text: runs of delivered and denied ones.
    fn runs(&self, requested: Instant) -> String {
        let mut runs: Vec<(bool, usize)> = Vec::new();
        for (number, _) in self.sent.iter().filter(|(_, at)| *at >= requested) {
            let arrived = self.arrived.contains(number);
            match runs.last_mut() {
                Some((last, count)) if *last == arrived => *count += 1,
                _ => runs.push((arrived, 1)),
            }
        }
        let shown = runs.iter().map(|(arrived, count)| match arrived {
            true => format!("{count} delivered"),
            false => format!("{count} denied"),
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

const fn name(open: bool) -> &'static str {
    if open { "allowed" } else { "denied" }
}

fn pause() -> Duration {
    let draw = RandomState::new().build_hasher().finish();
    PAUSE + VARIES.mul_f64((draw % 1000) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Datagrams at the probe's interval, and the time of a request before one of them.
    fn observed(arrived: &[bool], request_before: u32) -> (Observed, Instant) {
        let start = Instant::now();
        let mut observed = Observed::default();
        for (number, arrived) in (0..).zip(arrived) {
            let at = start + INTERVAL * u32::try_from(number).unwrap();
            observed.sent.push((number, at));
            if *arrived {
                observed.arrived.insert(number);
            }
        }
        (observed, start + INTERVAL * request_before)
    }

    #[test]
    fn the_effect_is_the_first_of_an_unbroken_run_of_delivered_datagrams() {
        let (observed, requested) = observed(&[false, false, false, false, true, true], 2);
        assert_eq!(observed.effect(true, requested).unwrap(), INTERVAL * 2);
    }

    #[test]
    fn the_effect_can_be_that_nothing_arrives() {
        let (observed, requested) = observed(&[true, true, false, false], 1);
        assert_eq!(observed.effect(false, requested).unwrap(), INTERVAL);
    }

    #[test]
    fn a_verdict_that_changes_back_is_an_error() {
        let (observed, requested) = observed(&[false, false, true, false, true, true], 1);
        let error = observed.effect(true, requested).unwrap_err().to_string();
        assert!(
            error.ends_with("1 denied, 1 delivered, 1 denied, 2 delivered"),
            "{error}"
        );
    }

    #[test]
    fn an_effect_before_the_request_is_an_error() {
        let (observed, requested) = observed(&[false, true, true], 2);
        assert!(observed.effect(true, requested).is_err());
    }

    #[test]
    fn no_effect_is_an_error() {
        let (observed, requested) = observed(&[false, false], 1);
        assert!(observed.effect(true, requested).is_err());
    }
}
