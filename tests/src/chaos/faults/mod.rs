//! Faults of what is around an agent, one after another, under traffic.
//!
//! During each, what is denied must not arrive and what is permitted must pass; when it is over the agent
//! must be ready again, and a change of policy must be in force.

mod clients;
mod state_dir;
mod surroundings;

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::network::Network;
use super::traffic::{Outcome as TrafficOutcome, Traffic, TrafficSpec};
use crate::interrupt;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The pin of a kernel program is removed, and the agent killed.
    ProgramPin,
    /// The file system of the state directory is full while policy changes; the agent is killed
    /// meanwhile.
    StateFull,
    /// The state directory cannot be written; the agent is killed meanwhile.
    StateReadOnly,
    /// The policy file has other content than policies, then good content again.
    PolicyGarbage,
    /// The policy file is moved or removed, and written again at once, as editors do.
    PolicyReplaced,
    /// The same, in a directory whose files are all policies.
    DirectoryReplaced,
    /// The links of an interface without traffic are detached.
    LinkDetached,
    /// Many interfaces come and go at once, again and again.
    InterfaceBurst,
    /// Many clients of the metrics listener and the control API, idle and busy ones.
    Clients,
    /// The agent is stopped (SIGSTOP) for a while.
    Stopped,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 10] = [
        Self::ProgramPin,
        Self::StateFull,
        Self::StateReadOnly,
        Self::PolicyGarbage,
        Self::PolicyReplaced,
        Self::DirectoryReplaced,
        Self::LinkDetached,
        Self::InterfaceBurst,
        Self::Clients,
        Self::Stopped,
    ];

    /// Its name in reports, and for choosing it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProgramPin => "program-pin",
            Self::StateFull => "state-full",
            Self::StateReadOnly => "state-read-only",
            Self::PolicyGarbage => "policy-garbage",
            Self::PolicyReplaced => "policy-replaced",
            Self::DirectoryReplaced => "directory-replaced",
            Self::LinkDetached => "link-detached",
            Self::InterfaceBurst => "interface-burst",
            Self::Clients => "clients",
            Self::Stopped => "stopped",
        }
    }

    /// Causes it, lets it last, and ends it. Returns what is worth to be reported.
    fn cause(self, network: &mut Network, lasting: Duration) -> Result<String> {
        match self {
            Self::ProgramPin => surroundings::program_pin(network),
            Self::StateFull => state_dir::full(network, lasting),
            Self::StateReadOnly => state_dir::read_only(network, lasting),
            Self::PolicyGarbage => surroundings::policy_garbage(network, lasting),
            Self::PolicyReplaced => surroundings::policy_replaced(network, lasting),
            Self::DirectoryReplaced => {
                network.use_policy_directory()?;
                surroundings::policy_replaced(network, lasting)
            }
            Self::LinkDetached => surroundings::link_detached(network),
            Self::InterfaceBurst => surroundings::interface_burst(network, lasting),
            Self::Clients => clients::crowd(network, lasting),
            Self::Stopped => surroundings::stopped(network, lasting),
        }
    }
}

/// The parameters of a run.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Which faults, in this order.
    pub faults: Vec<Fault>,
    /// How long each of them lasts.
    pub lasting: Duration,
    /// Workloads of other nodes in the inventory.
    pub remote: usize,
    /// The traffic.
    pub traffic: TrafficSpec,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Faults after which the agent was ready, and a change in force.
    pub survived: Vec<Fault>,
    /// What became of the traffic.
    pub traffic: TrafficOutcome,
}

impl Outcome {
    /// Whether no bound was broken.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.survived.is_empty() && self.traffic.is_good()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.traffic.details())?;
        let names: Vec<_> = self.survived.iter().map(|fault| fault.name()).collect();
        write!(
            f,
            "chaos faults: {} faults ({}), ready after each, {}",
            names.len(),
            names.join(", "),
            self.traffic
        )
    }
}

/// Runs, and says what happens line by line.
///
/// # Errors
/// When the test bed cannot be built, a control fails, or the agent does not become ready.
pub fn run(spec: &Spec, mut report: impl FnMut(&str)) -> Result<Outcome> {
    let mut network = Network::build(spec.remote, None)?;
    let mut traffic = Traffic::start(&network, &spec.traffic)?;
    let mut survived = Vec::new();
    for fault in &spec.faults {
        interrupt::check()?;
        let began = Instant::now();
        let remark = fault.cause(&mut network, spec.lasting);
        let remark = remark.with_context(|| fault.name())?;
        let lasted = began.elapsed();
        let ready = recover(&mut network).with_context(|| format!("after {}", fault.name()))?;
        let (stall, leaked) = (traffic.take_stall(), traffic.check()?);
        report(&format!(
            "[{:.3}] {}: {:.1} s, {remark}; ready and changed within {} ms after it; stall {} ms; \
             {leaked} denied delivered",
            traffic.now().as_secs_f64(),
            fault.name(),
            lasted.as_secs_f64(),
            ready.as_millis(),
            stall.longest.as_millis(),
        ));
        survived.push(*fault);
    }
    Ok(Outcome {
        survived,
        traffic: traffic.finish()?,
    })
}

/// Waits until the agent is ready and a change of policy is in force.
fn recover(network: &mut Network) -> Result<Duration> {
    let began = Instant::now();
    network.wait_ready()?;
    network.desired.change_rule();
    network.apply_policies()?;
    network.wait_ready()?;
    Ok(began.elapsed())
}
