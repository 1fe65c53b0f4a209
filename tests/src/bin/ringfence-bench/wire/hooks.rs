//! The four hooks of both workloads, and the programs on them.
//!
//! A packet passes two of them and its reply the other two. All four are switched together, because
//! one half of a fence would evaluate replies to packets that it did not see.
//!
//! Where an agent has pinned links, its programs are replaced by those of the benchmark and put
//! back, on links that stay attached. Elsewhere links exist only while a program of the benchmark
//! is attached.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ringfence_testbed::{Agent, NetNs, Node, Workload};

use crate::bpf::{Hook, Link, Program, Verdict};

/// The programs that replace a fence.
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

/// Which programs are on the hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// The variant under test: an agent's programs, one of the benchmark's, or none.
    Subject,
    /// The no-op on all hooks.
    Noop,
    /// The bare drop on the first hook that a packet passes, the no-op on the others.
    Drop,
}

/// The hooks of both ends: of the sender, then of the receiver.
pub(crate) enum Hooks {
    /// An agent's links, each with the agent's program.
    Adopted(Vec<(Link, Program)>),
    /// Links of the benchmark, attached as needed.
    Own {
        ns: NetNs,
        at: Vec<(u32, Hook)>,
        /// The programs of the variant, if it has any.
        subject: Option<Pair>,
        links: Vec<Link>,
    },
}

impl Hooks {
    /// The hooks of two workloads with an agent.
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

    /// The hooks of two workloads without an agent.
    pub(crate) fn own(node: &Node, ends: [&Workload; 2], subject: Option<Pair>) -> Result<Self> {
        Ok(Self::Own {
            ns: node.ns.clone(),
            at: places(node, ends)?,
            subject,
            links: Vec::new(),
        })
    }

    /// Switches the programs.
    pub(crate) fn set(&mut self, on: On, limits: &Limits) -> Result<()> {
        let limit = match on {
            On::Subject => None,
            On::Noop => Some(&limits.noop),
            On::Drop => Some(&limits.drop),
        };
        // The benchmark's program by position; none for the variant's own.
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

/// Both hooks of the sender, starting with the one that it sends through, and of the receiver.
fn places(node: &Node, ends: [&Workload; 2]) -> Result<Vec<(u32, Hook)>> {
    let mut places = Vec::new();
    for end in ends {
        let ifindex = node.ifindex(&end.interface)?;
        places.extend([(ifindex, Hook::FromWorkload), (ifindex, Hook::ToWorkload)]);
    }
    Ok(places)
}

/// The path that an agent pinned under this name, whatever its ABI version.
pub(crate) fn pin(bpffs: &Path, name: &str) -> Result<PathBuf> {
    let mut versions = std::fs::read_dir(bpffs)?.flatten();
    let found = versions.find_map(|entry| {
        let path = entry.path().join(name);
        path.exists().then_some(path)
    });
    found.with_context(|| format!("no {name} below {}", bpffs.display()))
}
