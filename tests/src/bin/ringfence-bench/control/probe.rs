//! From a request to its effect, as a stream of datagrams sees it.
//!
//! One thread, on a CPU of its own, sends a datagram every hundred microseconds and watches both
//! ends. The time runs from just before the request until the first datagram that met the new verdict
//! has been sent, so it ends with the effect on the wire and not with what anybody says; should the
//! thread lose its CPU while it sends, the effect is late and never before its request. Before
//! the request every datagram must have met the old verdict; after its effect every datagram must
//! meet the new one, for a while. The request is made by another thread, which may run anywhere.

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

/// From one datagram to the next.
const INTERVAL: Duration = Duration::from_micros(100);
/// So many datagrams in a row must meet the new verdict.
const STEADY: usize = 100;
/// From one change that holds to the next request, and by how much that varies: whatever the agent
/// does in regular intervals must not fall in with it.
const PAUSE: Duration = Duration::from_millis(15);
const VARIES: Duration = Duration::from_millis(25);
const DEADLINE: Duration = Duration::from_secs(20);

/// One UDP flow from outside to a workload.
pub(crate) struct Probe {
    sender: UdpSocket,
    receiver: UdpSocket,
    number: u64,
}

/// What was sent, and when that was done, and what of it arrived.
#[derive(Default)]
struct Seen {
    sent: Vec<(u64, Instant)>,
    arrived: HashSet<u64>,
}

impl Probe {
    /// Opens the sockets; nothing is sent yet. The host outside must know how to send from `from`.
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

    /// Waits until the flow is let in, or shut out, whatever was asked before.
    pub(crate) fn settle(&mut self, open: bool) -> Result<()> {
        self.watch(
            open,
            DEADLINE,
            Some(&AtomicBool::new(false)),
            &mut Seen::default(),
        )
    }

    /// Makes a request that lets the flow in, or shuts it out, and returns how long that took.
    pub(crate) fn time(
        &mut self,
        open: bool,
        request: impl FnOnce() -> Result<()>,
    ) -> Result<Duration> {
        let (ready, waiting) = mpsc::channel();
        let given_up = &AtomicBool::new(false);
        thread::scope(|scope| {
            let probing = scope.spawn(move || {
                cpu::pin_to_last()?;
                let mut seen = Seen::default();
                self.watch(!open, pause(), None, &mut seen)?;
                ready.send(())?;
                self.watch(open, DEADLINE, Some(given_up), &mut seen)?;
                Ok(seen)
            });
            // No answer means that the probe has ended with an error of its own.
            let asked = waiting.recv().map(|()| {
                let requested = Instant::now();
                request().map(|()| requested)
            });
            given_up.store(matches!(asked, Ok(Err(_))), Ordering::Release);
            let probed: Result<Seen> =
                (probing.join()).map_err(|_| anyhow!("the probe panicked"))?;
            match asked {
                Ok(requested) => probed?.effect(open, requested?),
                Err(_) => bail!(probed.err().context("the probe ended early")?),
            }
        })
    }

    /// Sends until this verdict has held: for the time given, or, if another thread may give up, for
    /// some datagrams in a row within that time.
    fn watch(
        &mut self,
        open: bool,
        time: Duration,
        until_steady: Option<&AtomicBool>,
        seen: &mut Seen,
    ) -> Result<()> {
        let (started, mut steady) = (Instant::now(), 0);
        loop {
            let (number, at) = self.send(&mut seen.arrived)?;
            seen.sent.push((number, at));
            let met = seen.arrived.contains(&number) == open;
            steady = if met { steady + 1 } else { 0 };
            match until_steady {
                None if started.elapsed() > time && steady >= STEADY => return Ok(()),
                None if started.elapsed() > time + DEADLINE => {
                    bail!("before the request the flow should be {}", name(open));
                }
                Some(_) if steady >= STEADY => return Ok(()),
                Some(given_up) if given_up.load(Ordering::Acquire) => bail!("the request failed"),
                Some(_) if started.elapsed() > time => {
                    bail!("the flow is not {} within {time:?}", name(open));
                }
                _ => {}
            }
        }
    }

    /// Sends one datagram and takes what has arrived until the next one is due. Returns the datagram's
    /// number and when it had been sent.
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

impl Seen {
    /// From the request to the first datagram with the new verdict.
    fn effect(&self, open: bool, requested: Instant) -> Result<Duration> {
        let met = |number: &u64| self.arrived.contains(number) == open;
        // The last one that met the old verdict. One that was still under way when its turn ended
        // has arrived by now.
        let last_old = self.sent.iter().rposition(|(number, _)| !met(number));
        let first_new = last_old.map_or(0, |last_old| last_old + 1);
        let (_, at) = self.sent.get(first_new).context("no datagram met it")?;
        let early = self.sent.iter().take(first_new);
        let early = early.filter(|(number, _)| met(number)).count();
        ensure!(
            early == 0,
            "the verdict went back and forth after the request: {}",
            self.runs(requested)
        );
        ensure!(*at >= requested, "the new verdict came before the request");
        Ok(at.saturating_duration_since(requested))
    }

    /// What became of the datagrams since the request, for people.
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
            true => format!("{count} in"),
            false => format!("{count} out"),
        });
        shown.collect::<Vec<_>>().join(", ")
    }
}

const fn name(open: bool) -> &'static str {
    if open { "let in" } else { "shut out" }
}

fn pause() -> Duration {
    let draw = RandomState::new().build_hasher().finish();
    PAUSE + VARIES.mul_f64((draw % 1000) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Datagrams a tenth of a millisecond apart, and the moment of a request before one of them.
    fn seen(arrived: &[bool], request_before: u32) -> (Seen, Instant) {
        let start = Instant::now();
        let mut seen = Seen::default();
        for (number, arrived) in (0..).zip(arrived) {
            let at = start + INTERVAL * u32::try_from(number).unwrap();
            seen.sent.push((number, at));
            if *arrived {
                seen.arrived.insert(number);
            }
        }
        (seen, start + INTERVAL * request_before)
    }

    #[test]
    fn an_effect_is_the_first_of_an_unbroken_row() {
        let (seen, requested) = seen(&[false, false, false, false, true, true], 2);
        assert_eq!(seen.effect(true, requested).unwrap(), INTERVAL * 2);
    }

    #[test]
    fn an_effect_is_also_that_nothing_arrives() {
        let (seen, requested) = seen(&[true, true, false, false], 1);
        assert_eq!(seen.effect(false, requested).unwrap(), INTERVAL);
    }

    #[test]
    fn a_verdict_that_goes_back_is_no_effect() {
        let (seen, requested) = seen(&[false, false, true, false, true, true], 1);
        let error = seen.effect(true, requested).unwrap_err().to_string();
        assert!(error.ends_with("1 out, 1 in, 1 out, 2 in"), "{error}");
    }

    #[test]
    fn an_effect_before_the_request_is_refused() {
        let (seen, requested) = seen(&[false, true, true], 2);
        assert!(seen.effect(true, requested).is_err());
    }

    #[test]
    fn no_effect_is_refused() {
        let (seen, requested) = seen(&[false, false], 1);
        assert!(seen.effect(true, requested).is_err());
    }
}
