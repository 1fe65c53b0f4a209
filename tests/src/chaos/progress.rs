//! How far an agent's start has come, by what it leaves outside: its threads, its log, its pins, its
//! ledger and its maps.
//!
//! Invariant: what is found once the process is dead is exact, but for the threads, which are gone then:
//! whether programs were being loaded is remembered from before.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData};
use aya::programs::ProgramInfo;
use ringfence_common::endpoint::position;
use ringfence_common::maps::ENDPOINT_SLOTS;

use super::hosts::slot_indices;
use super::network::Network;
use super::phase::Phase;
use crate::fence_state::pin;

/// The agent's log, from some point on.
#[derive(Debug)]
pub(super) struct LogFrom {
    path: PathBuf,
    from: u64,
}

impl LogFrom {
    /// What it writes from now on.
    pub(super) fn now(network: &Network) -> Self {
        let path = network.agent.dir().join("stderr");
        let from = fs::metadata(&path).map_or(0, |meta| meta.len());
        Self { path, from }
    }

    /// Whether it has a line with this text by now.
    pub(super) fn has(&self, text: &str) -> Result<bool> {
        let mut file = fs::File::open(&self.path).context("opening the agent's log")?;
        file.seek(SeekFrom::Start(self.from))?;
        let mut written = Vec::new();
        file.read_to_end(&mut written)?;
        Ok(String::from_utf8_lossy(&written).contains(text))
    }
}

/// The line of a publish.
pub(super) const PUBLISHED: &str = " revision ";

/// The start of an agent over pins that are there, for new interfaces in the slots and with an identity
/// that has no number yet.
pub(super) struct Progress {
    log: LogFrom,
    /// The pinned programs' IDs before.
    programs: BTreeMap<PathBuf, Option<u32>>,
    /// Says who has locked the state directory.
    holder: PathBuf,
    ledger: PathBuf,
    /// Its length before.
    ledger_length: u64,
    /// The map of endpoints, and where it will have the new interfaces.
    endpoints: Array<MapData, u32>,
    positions: Vec<u32>,
    /// Whether programs were seen being loaded.
    was_loading: bool,
}

impl Progress {
    /// Before the start.
    pub(super) fn before(network: &Network) -> Result<Self> {
        let bpffs = network.agent.bpffs();
        let map = pin(bpffs, ENDPOINT_SLOTS)?;
        let dir = map.parent().and_then(|maps| maps.parent());
        let dir = dir.context("a directory of pins")?.join("programs");
        let programs = ["from_workload", "to_workload", "clocks"].map(|name| {
            let path = dir.join(name);
            let id = program(&path);
            (path, id)
        });
        let state = network.agent.dir().join("state");
        let ledger = state.join("numbers");
        let indices = slot_indices(&network.hosts.node).into_iter();
        Ok(Self {
            log: LogFrom::now(network),
            programs: programs.into_iter().collect(),
            holder: state.join("held-by"),
            ledger_length: length(&ledger),
            ledger,
            endpoints: Array::try_from(Map::from_map_data(MapData::from_pin(map)?)?)?,
            positions: indices.map(|ifindex| position(ifindex, 0)).collect(),
            was_loading: false,
        })
    }

    /// How far it is now; [`Phase::Idle`] if the first revision is in force.
    pub(super) fn phase(&mut self, pid: Option<u32>) -> Result<Phase> {
        self.was_loading |= pid.is_some_and(|pid| self.has_locks(pid) && threads(pid) > 1);
        if self.log.has(PUBLISHED)? {
            return Ok(Phase::Idle);
        }
        let written = |position: &u32| self.endpoints.get(position, 0).is_ok_and(|slot| slot != 0);
        if self.positions.iter().all(written) {
            return Ok(Phase::Attach);
        }
        if length(&self.ledger) != self.ledger_length || self.positions.iter().any(written) {
            return Ok(Phase::Publish);
        }
        let is_new = |(path, id): (&PathBuf, &Option<u32>)| {
            let now = program(path);
            now.is_some() && now != *id
        };
        let has_programs = self.programs.iter().all(is_new);
        if has_programs || self.log.has("taking over the kernel programs")? {
            return Ok(Phase::Adopt);
        }
        Ok(if self.was_loading {
            Phase::Load
        } else {
            Phase::Read
        })
    }
}

impl Progress {
    /// Whether the process has locked its directories. It has one thread then, until it loads programs
    /// or has them.
    fn has_locks(&self, pid: u32) -> bool {
        let holder = fs::read_link(&self.holder).unwrap_or_default();
        holder.to_string_lossy().starts_with(&format!("pid {pid} "))
    }
}

fn length(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |meta| meta.len())
}

fn program(pin: &Path) -> Option<u32> {
    ProgramInfo::from_pin(pin).ok().map(|info| info.id())
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}
