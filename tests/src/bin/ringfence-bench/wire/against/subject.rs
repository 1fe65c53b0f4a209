//! Subjects: what is compared, each the agent of one build on a twin of its own.
//!
//! A subject's agent runs, and reads its flow events, as long as the subject exists. The comparison
//! depends only on a build's command line, its configuration, and the names of the links that it
//! pins.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ringfence_testbed::{Agent, AgentSpec, Workload};

use super::twin::Twin;
use crate::bpf::{Link, Program};
use crate::wire::world;

const SOON: Duration = Duration::from_secs(60);

/// A build's programs, with maps that its agent keeps.
pub(super) struct Subject {
    /// By workload, the receiver last: `from_workload`, then `to_workload`.
    pub(super) programs: Vec<[Program; 2]>,
    // Dropped before the twin, because the agent cleans up there.
    _agent: Agent,
    _twin: Twin,
}

impl Subject {
    /// Starts the agent of a build; returns once it enforces.
    pub(super) fn start(binary: &Path, peers: u32) -> Result<Self> {
        let twin = Twin::new()?;
        let local: Vec<&Workload> = twin.ends().map(|end| &end.workload).collect();
        let spec = AgentSpec {
            inventory: world::inventory(&twin.node, &local, peers),
            policies: world::policies(),
            modes: vec![(world::ENFORCED.to_owned(), "enforce".to_owned())],
            default_mode: "observe".to_owned(),
            config: "[flows]\nlog = \"flows.jsonl\"\n".to_owned(),
            binary: Some(binary.to_owned()),
            ..AgentSpec::default()
        };
        let agent = Agent::start(&twin.node, &spec)?;
        agent.wait_enforcing(SOON)?;
        let of = |ifindex| -> Result<[Program; 2]> {
            let program = |hook| program(agent.bpffs(), &format!("{ifindex}-{hook}"));
            Ok([program("from_workload")?, program("to_workload")?])
        };
        let programs = twin.ends().map(|end| of(end.ifindex));
        Ok(Self {
            programs: programs.collect::<Result<_>>()?,
            _agent: agent,
            _twin: twin,
        })
    }

    /// Whether its programs have the same instructions as another subject's.
    pub(super) fn is_like(&self, other: &Self) -> Result<bool> {
        let tags = |of: &Self| -> Result<Vec<_>> {
            of.programs.iter().flatten().map(Program::tag).collect()
        };
        Ok(tags(self)? == tags(other)?)
    }
}

/// The program of a link that an agent pinned under this name, in whatever directory.
fn program(bpffs: &Path, name: &str) -> Result<Program> {
    let found = find(bpffs, name)?.with_context(|| {
        format!(
            "the agent pinned no link {name} below {}: a build that names its links otherwise \
             cannot be compared",
            bpffs.display()
        )
    })?;
    Link::pinned(&found)?.program()
}

/// A file of this name in a directory or below.
fn find(directory: &Path, name: &str) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(directory);
    for entry in entries.with_context(|| format!("reading {}", directory.display()))? {
        let entry = entry?;
        if entry.file_name() == name {
            return Ok(Some(entry.path()));
        }
        if entry.file_type()?.is_dir()
            && let Some(found) = find(&entry.path(), name)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_found_wherever_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let links = directory.path().join("v7/links");
        fs::create_dir_all(&links).unwrap();
        fs::write(links.join("17-from_workload"), "").unwrap();
        let found = find(directory.path(), "17-from_workload").unwrap();
        assert_eq!(found, Some(links.join("17-from_workload")));
        assert_eq!(find(directory.path(), "7-from_workload").unwrap(), None);
    }
}
