//! SIGKILL at random moments, under traffic.
//!
//! Each kill aims at a phase: the driver causes it, waits until it has begun, and kills after a random
//! time about as long as the phase. What counts is the phase in which the agent was then found, see
//! [`super::progress`]. After each kill the agent is started again; after every other one of a start it is
//! killed again before it is ready.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;

use super::hosts::recreated_slots;
use super::network::Network;
use super::phase::Phase;
use super::progress::{LogFrom, PUBLISHED, Progress};
use super::traffic::{Outcome as TrafficOutcome, Traffic, TrafficSpec};
use crate::attack::rng::Rng;
use crate::interrupt;

/// The parameters of a run.
#[derive(Clone, Debug)]
pub struct Spec {
    /// How often the agent is killed.
    pub kills: u32,
    /// How often at least in each phase.
    pub least: u32,
    /// Seed of the phases and the times.
    pub seed: u64,
    /// Workloads of other nodes in the inventory.
    pub remote: usize,
    /// The traffic.
    pub traffic: TrafficSpec,
    /// The agent to run instead of the one that [`crate::agent::binary`] finds.
    pub binary: Option<PathBuf>,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Kills by the phase in which the agent was found.
    pub kills: BTreeMap<Phase, u32>,
    /// The least that was asked for in each.
    pub least: u32,
    /// The longest time from a start to ready, of starts that were not killed.
    pub slowest_start: Duration,
    /// What became of the traffic.
    pub traffic: TrafficOutcome,
}

impl Outcome {
    /// Whether every phase was reached and no bound was broken.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let reached = |phase| self.kills.get(phase).is_some_and(|n| *n >= self.least);
        Phase::ALL.iter().all(reached) && self.traffic.is_good()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.slowest_start.as_secs_f64();
        writeln!(f, "slowest start until ready: {start:.1} s")?;
        writeln!(f, "{}", self.traffic.details())?;
        let phases = self
            .kills
            .iter()
            .map(|(phase, count)| format!("{phase} {count}"));
        let phases: Vec<_> = phases.collect();
        write!(
            f,
            "chaos kills: {} kills ({}), {}",
            self.kills.values().sum::<u32>(),
            phases.join(", "),
            self.traffic
        )
    }
}

/// Runs, and says what happens line by line.
///
/// # Errors
/// When the test bed cannot be built, a control fails, or the agent does not start again.
pub fn run(spec: &Spec, mut report: impl FnMut(&str)) -> Result<Outcome> {
    report(&format!("seed {}", spec.seed));
    let network = Network::build(spec.remote, spec.binary.clone())?;
    let traffic = Traffic::start(&network, &spec.traffic)?;
    let mut run = Run {
        network,
        traffic,
        rng: Rng::new(spec.seed),
        windows: FIRST_WINDOWS.into_iter().collect(),
        kills: BTreeMap::new(),
        is_ready: true,
        changes: 0,
        slowest_start: Duration::ZERO,
    };
    run.perform(spec, &mut report)
        .with_context(|| format!("the agent's log ends:\n{}", run.log_tail()))?;
    Ok(Outcome {
        kills: run.kills,
        least: spec.least,
        slowest_start: run.slowest_start,
        traffic: run.traffic.finish()?,
    })
}

/// How long phases take at first; a run adapts them to what it finds.
const FIRST_WINDOWS: [(Phase, Duration); 10] = [
    (Phase::Read, Duration::from_millis(20)),
    (Phase::Load, Duration::from_secs(1)),
    (Phase::Adopt, Duration::from_millis(10)),
    (Phase::Publish, Duration::from_millis(10)),
    (Phase::Attach, Duration::from_millis(100)),
    (Phase::Idle, Duration::from_millis(300)),
    (Phase::Policy, Duration::from_millis(10)),
    (Phase::Mode, Duration::from_millis(5)),
    (Phase::Interfaces, Duration::from_millis(200)),
    (Phase::Stop, Duration::from_millis(5)),
];
const LONGEST_WINDOW: Duration = Duration::from_secs(5);
/// Between two looks at an agent that starts.
const LOOK: Duration = Duration::from_micros(200);
const START: Duration = Duration::from_secs(60);

struct Run {
    network: Network,
    traffic: Traffic,
    rng: Rng,
    windows: BTreeMap<Phase, Duration>,
    kills: BTreeMap<Phase, u32>,
    /// Whether the agent runs and is ready.
    is_ready: bool,
    changes: u64,
    slowest_start: Duration,
}

impl Run {
    fn perform(&mut self, spec: &Spec, report: &mut impl FnMut(&str)) -> Result<()> {
        while self.total() < spec.kills || self.shortage(spec) > 0 {
            interrupt::check()?;
            ensure!(
                self.total() < 2 * spec.kills,
                "phases that are hardly ever reached: {:?}",
                self.kills
            );
            let aim = self.aim(spec);
            let Some((found, after)) = self.kill_in(aim).with_context(|| format!("{aim}"))? else {
                self.adapt(aim, false);
                continue;
            };
            self.adapt(aim, found == aim);
            *self.kills.entry(found).or_default() += 1;
            let again = if !found.is_start() || self.rng.one_in(2) {
                let ready = self.start()?;
                format!("ready again after {} ms", ready.as_millis())
            } else {
                "killed again before it is ready".to_owned()
            };
            let (stall, leaked) = (self.traffic.take_stall(), self.traffic.check()?);
            report(&format!(
                "[{:.3}] kill {}: {found} ({aim} {:.1} ms before); {again}; stall {} ms{}",
                self.traffic.now().as_secs_f64(),
                self.total(),
                after.as_secs_f64() * 1e3,
                stall.longest.as_millis(),
                match leaked {
                    0 => String::new(),
                    count => format!("; {count} DENIED DELIVERED"),
                }
            ));
        }
        self.ensure_ready()
    }

    fn total(&self) -> u32 {
        self.kills.values().sum()
    }

    fn count(&self, phase: Phase) -> u32 {
        self.kills.get(&phase).copied().unwrap_or(0)
    }

    /// How many kills are missing in phases.
    fn shortage(&self, spec: &Spec) -> u32 {
        let missing = |phase: &Phase| spec.least.saturating_sub(self.count(*phase));
        Phase::ALL.iter().map(missing).sum()
    }

    /// A random phase, or that with the fewest kills: always, if there are not enough left for chance.
    fn aim(&mut self, spec: &Spec) -> Phase {
        let left = spec.kills.saturating_sub(self.total());
        if left <= self.shortage(spec) || self.rng.one_in(2) {
            let fewest = Phase::ALL
                .into_iter()
                .min_by_key(|phase| self.count(*phase));
            return fewest.unwrap_or(Phase::Idle);
        }
        self.rng.choose(&Phase::ALL, Phase::Idle)
    }

    /// A random part of the time that a phase takes.
    fn delay(&mut self, phase: Phase) -> Duration {
        let window = self.windows.get(&phase).copied().unwrap_or_default();
        let share = self.rng.below(10_000);
        window * u32::try_from(share).unwrap_or_default() / 10_000
    }

    /// Makes the window longer after a hit, shorter after a miss.
    fn adapt(&mut self, aim: Phase, is_hit: bool) {
        if let Some(window) = self.windows.get_mut(&aim) {
            let changed = if is_hit {
                *window * 11 / 10
            } else {
                *window * 8 / 10
            };
            *window = changed.clamp(Duration::from_micros(100), LONGEST_WINDOW);
        }
    }

    /// Kills in, or close to, this phase. Returns in which one, and how long after this one had begun;
    /// `None` if the agent ended by itself before, as it was told to.
    fn kill_in(&mut self, aim: Phase) -> Result<Option<(Phase, Duration)>> {
        if aim.is_start() {
            return self.kill_starting(aim).map(Some);
        }
        self.ensure_ready()?;
        let delay = self.delay(aim);
        let log = LogFrom::now(&self.network);
        self.is_ready = false;
        let found = match aim {
            Phase::Policy => {
                self.network.renew_policies()?;
                wait(delay);
                self.network.agent.kill()?;
                if log.has(PUBLISHED)? {
                    Phase::Idle
                } else {
                    aim
                }
            }
            Phase::Mode => {
                let mut request = self.request_mode()?;
                wait(delay);
                self.network.agent.kill()?;
                request.set_nonblocking(true)?;
                let is_answered = request.read(&mut [0; 12]).is_ok_and(|length| length > 0);
                if is_answered { Phase::Idle } else { aim }
            }
            Phase::Interfaces => self.kill_among_interfaces(delay)?,
            Phase::Stop => {
                self.network.agent.signal(Signal::SIGTERM)?;
                wait(delay);
                let status = self.network.agent.end()?.context("an agent")?;
                if status.signal() != Some(libc::SIGKILL) {
                    ensure!(status.success(), "the agent ended: {status}");
                    self.start()?;
                    return Ok(None);
                }
                aim
            }
            _ => {
                wait(delay);
                self.network.agent.kill()?;
                Phase::Idle
            }
        };
        Ok(Some((found, delay)))
    }

    /// Starts over changed files and new interfaces, and kills once it has come to this phase.
    fn kill_starting(&mut self, aim: Phase) -> Result<(Phase, Duration)> {
        self.network.agent.kill()?;
        self.is_ready = false;
        self.network.hosts.node.ns.ip(&recreated_slots())?;
        self.network.renew_inventory()?;
        self.network.renew_policies()?;
        // Kept programs are the rule: they are verified for seconds.
        if aim == Phase::Load || self.rng.one_in(6) {
            self.network.renew_constant()?;
        }
        let delay = self.delay(aim);
        let mut progress = Progress::before(&self.network)?;
        self.network.agent.spawn()?;
        let pid = self.network.agent.pid();
        let end = Instant::now() + START;
        while progress.phase(pid)? < aim {
            ensure!(Instant::now() < end, "not reached within {START:?}");
            if let Some(status) = self.network.agent.exited()? {
                bail!("the agent ended by itself: {status}");
            }
            wait(LOOK);
        }
        let began = Instant::now();
        while began.elapsed() < delay {
            progress.phase(pid)?;
            wait(LOOK.min(delay.saturating_sub(began.elapsed())));
        }
        let status = self.network.agent.end()?.context("an agent")?;
        ensure!(
            status.signal() == Some(libc::SIGKILL),
            "the agent ended by itself: {status}"
        );
        Ok((progress.phase(None)?, delay))
    }

    fn kill_among_interfaces(&mut self, delay: Duration) -> Result<Phase> {
        let hosts = std::sync::Arc::clone(&self.network.hosts);
        let batch = std::thread::spawn(move || hosts.node.ns.ip(&recreated_slots()));
        wait(delay);
        let is_over = batch.is_finished();
        self.network.agent.kill()?;
        batch
            .join()
            .map_err(|_| anyhow!("changing interfaces panicked"))??;
        let is_fenced = is_over && self.network.has_links()?;
        Ok(if is_fenced {
            Phase::Idle
        } else {
            Phase::Interfaces
        })
    }

    /// Asks for another mode of the namespace in which nothing may be delivered in either.
    fn request_mode(&mut self) -> Result<UnixStream> {
        self.changes += 1;
        let mode = if self.changes.is_multiple_of(2) {
            "enforce"
        } else {
            "lockdown"
        };
        let body = format!("{{\"mode\":\"{mode}\"}}");
        let mut socket = UnixStream::connect(self.network.agent.socket_path())?;
        write!(
            socket,
            "PUT /v1/modes/annex HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        Ok(socket)
    }

    fn start(&mut self) -> Result<Duration> {
        let took = self.network.start()?;
        self.slowest_start = self.slowest_start.max(took);
        self.is_ready = true;
        Ok(took)
    }

    fn ensure_ready(&mut self) -> Result<()> {
        if !self.is_ready {
            self.start()?;
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = self.network.agent.stderr();
        let lines: Vec<_> = log.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// A random moment is reached by waiting for it; no condition is waited for.
fn wait(time: Duration) {
    std::thread::sleep(time);
}
