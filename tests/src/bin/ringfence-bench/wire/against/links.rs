//! The links on which every subject is measured: those of a twin without an agent.
//!
//! The links stay attached; their programs are swapped. A program on the `eth0` of the receiving
//! workload drops the measured frames, unless sockets are to receive them.

use anyhow::Result;

use super::subject::Subject;
use super::twin::{ETH0, Twin};
use crate::bpf::{Hook, Link, Program};
use crate::wire::hooks::Limits;

/// The programs on the links.
#[derive(Clone, Copy)]
pub(super) enum On<'a> {
    /// A subject's programs.
    Subject(&'a Subject),
    /// The no-op on all.
    Noop,
    /// The bare drop on packets from a workload, the no-op on the others.
    Drop,
}

/// The twin and its links.
pub(super) struct Links {
    pub(super) twin: Twin,
    limits: Limits,
    /// By workload, the receiver last: `from_workload`, then `to_workload`.
    hooks: Vec<[Link; 2]>,
    /// On the `eth0` of each workload.
    sinks: Vec<Link>,
    sinking: bool,
}

impl Links {
    /// Attaches the no-op everywhere.
    pub(super) fn attach() -> Result<Self> {
        let (twin, limits) = (Twin::new()?, Limits::load()?);
        let mut hooks = Vec::new();
        let mut sinks = Vec::new();
        for end in twin.ends() {
            let attach = |hook| Link::attach(&limits.noop, end.ifindex, hook);
            let pair = || -> Result<[Link; 2]> {
                Ok([attach(Hook::FromWorkload)?, attach(Hook::ToWorkload)?])
            };
            hooks.push(twin.node.ns.run(pair)??);
            // TC ingress; on the node's side these are packets from a workload.
            let sink = || Link::attach(&limits.noop, ETH0, Hook::FromWorkload);
            sinks.push(end.workload.ns.run(sink)??);
        }
        Ok(Self {
            twin,
            limits,
            hooks,
            sinks,
            sinking: false,
        })
    }

    /// Swaps the program of every link.
    pub(super) fn put(&self, on: On<'_>) -> Result<()> {
        let Limits { noop, drop } = &self.limits;
        match on {
            On::Subject(subject) => {
                let pairs = self.hooks.iter().zip(&subject.programs);
                pairs
                    .into_iter()
                    .try_for_each(|(hooks, [from, to])| swap(hooks, from, to))
            }
            On::Noop => self.hooks.iter().try_for_each(|of| swap(of, noop, noop)),
            On::Drop => self.hooks.iter().try_for_each(|of| swap(of, drop, noop)),
        }
    }

    /// Whether frames are dropped before any socket.
    pub(super) fn sink(&mut self, sinking: bool) -> Result<()> {
        if self.sinking != sinking {
            let Limits { noop, drop } = &self.limits;
            let program = if sinking { drop } else { noop };
            self.sinks.iter().try_for_each(|sink| sink.swap(program))?;
            self.sinking = sinking;
        }
        Ok(())
    }
}

fn swap([from, to]: &[Link; 2], from_workload: &Program, to_workload: &Program) -> Result<()> {
    from.swap(from_workload)?;
    to.swap(to_workload)
}
