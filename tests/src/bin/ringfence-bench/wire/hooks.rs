//! The two hooks that a packet passes, and the program on each.
//!
//! Where an agent has pinned links its programs are swapped for ours and back, on links that stay.
//! Elsewhere there are links only while one of our programs is on. An agent's programs come back only
//! when they are put back: the agent is to go with the measurement.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ringfence_testbed::{Agent, NetNs, Node, Workload};

use crate::bpf::{Hook, Link, Program, Verdict};

/// The programs that stand in for a fence.
pub(crate) struct Limits {
    pub(crate) noop: Program,
    pub(crate) drop: Program,
}

impl Limits {
    /// Loads them.
    pub(crate) fn load() -> Result<Self> {
        Ok(Self {
            noop: Program::returning(Verdict::Pass)?,
            drop: Program::returning(Verdict::Drop)?,
        })
    }
}

/// What is on the hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// What the stage is about: an agent's programs, or no program at all.
    Subject,
    /// The no-op on both.
    Noop,
    /// The bare drop on the first.
    Drop,
}

/// Both hooks of a way.
pub(crate) enum Hooks {
    /// An agent's links, each with the agent's program.
    Adopted([(Link, Program); 2]),
    /// Links of our own, made as needed.
    Own {
        ns: NetNs,
        at: [(u32, Hook); 2],
        links: Option<[Link; 2]>,
    },
}

impl Hooks {
    /// The hooks from one workload of an agent to another.
    pub(crate) fn adopt(node: &Node, agent: &Agent, [from, to]: [&Workload; 2]) -> Result<Self> {
        let adopt = |workload: &Workload, program: &str| -> Result<(Link, Program)> {
            let ifindex = node.ifindex(&workload.interface)?;
            let link = Link::pinned(&pin(agent.bpffs(), &format!("links/{ifindex}-{program}"))?)?;
            let program = link.program()?;
            Ok((link, program))
        };
        Ok(Self::Adopted([
            adopt(from, "from_workload")?,
            adopt(to, "to_workload")?,
        ]))
    }

    /// The hooks from one workload to another where no agent is.
    pub(crate) fn own(node: &Node, [from, to]: [&Workload; 2]) -> Result<Self> {
        Ok(Self::Own {
            ns: node.ns.clone(),
            at: [
                (node.ifindex(&from.interface)?, Hook::FromWorkload),
                (node.ifindex(&to.interface)?, Hook::ToWorkload),
            ],
            links: None,
        })
    }

    /// Puts programs on.
    pub(crate) fn set(&mut self, on: On, limits: &Limits) -> Result<()> {
        let ours = match on {
            On::Subject => None,
            On::Noop => Some([&limits.noop, &limits.noop]),
            On::Drop => Some([&limits.drop, &limits.noop]),
        };
        match self {
            Self::Adopted([first, second]) => {
                let theirs = [&first.1, &second.1];
                let [one, other] = ours.unwrap_or(theirs);
                first.0.swap(one)?;
                second.0.swap(other)
            }
            Self::Own { ns, at, links } => {
                let Some([one, other]) = ours else {
                    *links = None;
                    return Ok(());
                };
                if let Some([first, second]) = links {
                    first.swap(one)?;
                    return second.swap(other);
                }
                let [(from, hook), (to, other_hook)] = *at;
                let attach = || -> Result<[Link; 2]> {
                    Ok([
                        Link::attach(one, from, hook)?,
                        Link::attach(other, to, other_hook)?,
                    ])
                };
                *links = Some(ns.run(attach)??);
                Ok(())
            }
        }
    }
}

/// What an agent pinned under this name, whatever its ABI version.
pub(crate) fn pin(bpffs: &Path, name: &str) -> Result<PathBuf> {
    let mut versions = std::fs::read_dir(bpffs)?.flatten();
    let found = versions.find_map(|entry| {
        let path = entry.path().join(name);
        path.exists().then_some(path)
    });
    found.with_context(|| format!("no {name} below {}", bpffs.display()))
}
