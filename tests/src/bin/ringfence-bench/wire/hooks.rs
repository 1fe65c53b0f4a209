//! The hooks of both workloads, and the program on each.
//!
//! A packet passes two of them, its answer the other two, and all four are switched together: with half
//! of a fence in place the other half would judge answers to questions that it never saw.
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

/// A workload's programs.
pub(crate) struct Pair {
    pub(crate) from_workload: Program,
    pub(crate) to_workload: Program,
}

impl Pair {
    const fn on(&self, hook: Hook) -> &Program {
        match hook {
            Hook::FromWorkload => &self.from_workload,
            Hook::ToWorkload => &self.to_workload,
        }
    }
}

/// What is on the hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// What the stage is about: an agent's programs, one of ours, or no program at all.
    Subject,
    /// The no-op on all.
    Noop,
    /// The bare drop on the first that a packet passes, the no-op on the others.
    Drop,
}

/// The hooks of both ends: of the sender, then of the receiver.
pub(crate) enum Hooks {
    /// An agent's links, each with the agent's program.
    Adopted(Vec<(Link, Program)>),
    /// Links of our own, made as needed.
    Own {
        ns: NetNs,
        at: Vec<(u32, Hook)>,
        /// What the stage is about, if it is programs.
        subject: Option<Pair>,
        links: Vec<Link>,
    },
}

impl Hooks {
    /// The hooks of two workloads of an agent.
    pub(crate) fn adopt(node: &Node, agent: &Agent, ends: [&Workload; 2]) -> Result<Self> {
        let adopt = |(ifindex, hook): (u32, Hook)| -> Result<(Link, Program)> {
            let program = match hook {
                Hook::FromWorkload => "from_workload",
                Hook::ToWorkload => "to_workload",
            };
            let link = Link::pinned(&pin(agent.bpffs(), &format!("links/{ifindex}-{program}"))?)?;
            let program = link.program()?;
            Ok((link, program))
        };
        let adopted = places(node, ends)?.into_iter().map(adopt);
        Ok(Self::Adopted(adopted.collect::<Result<_>>()?))
    }

    /// The hooks of two workloads where no agent is.
    pub(crate) fn own(node: &Node, ends: [&Workload; 2], subject: Option<Pair>) -> Result<Self> {
        Ok(Self::Own {
            ns: node.ns.clone(),
            at: places(node, ends)?,
            subject,
            links: Vec::new(),
        })
    }

    /// Puts programs on.
    pub(crate) fn set(&mut self, on: On, limits: &Limits) -> Result<()> {
        let limit = match on {
            On::Subject => None,
            On::Noop => Some(&limits.noop),
            On::Drop => Some(&limits.drop),
        };
        // Ours, by place; none when the subject is to be on.
        let ours = |place: usize| limit.map(|first| if place == 0 { first } else { &limits.noop });
        match self {
            Self::Adopted(hooks) => {
                let mut hooks = hooks.iter().enumerate();
                hooks.try_for_each(|(place, (link, theirs))| {
                    link.swap(ours(place).unwrap_or(theirs))
                })
            }
            Self::Own { subject, links, .. } if limit.is_none() && subject.is_none() => {
                links.clear();
                Ok(())
            }
            Self::Own {
                ns,
                at,
                subject,
                links,
            } => {
                let theirs = |hook| subject.as_ref().map(|pair| pair.on(hook));
                let program = |place, hook| ours(place).or(theirs(hook)).context("a program");
                if links.is_empty() {
                    let attach = |(place, (ifindex, hook)): (usize, &(u32, Hook))| {
                        Link::attach(program(place, *hook)?, *ifindex, *hook)
                    };
                    *links =
                        ns.run(|| at.iter().enumerate().map(attach).collect::<Result<_>>())??;
                    return Ok(());
                }
                let mut places = links.iter().zip(at.iter()).enumerate();
                places.try_for_each(|(place, (link, (_, hook)))| link.swap(program(place, *hook)?))
            }
        }
    }
}

/// Both hooks of the sender, the one that it sends through first, and of the receiver.
fn places(node: &Node, ends: [&Workload; 2]) -> Result<Vec<(u32, Hook)>> {
    let mut places = Vec::new();
    for end in ends {
        let ifindex = node.ifindex(&end.interface)?;
        places.extend([(ifindex, Hook::FromWorkload), (ifindex, Hook::ToWorkload)]);
    }
    Ok(places)
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
