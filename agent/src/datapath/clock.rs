//! Asking the kernel programs what time they have.
//!
//! A process in a time namespace sees another boot clock than the programs do, and nobody but them sees the
//! tick counter; times in maps are compared by the programs: so a program is asked, through
//! `BPF_PROG_TEST_RUN`.

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use nix::{
    sys::time::TimeValLike as _,
    time::{ClockId, clock_getres},
};
use ringfence_common::maps;

use super::{DatapathError, error::chain, maps::take};

pub(super) const PROGRAM: &str = "clocks";

/// One moment by the clocks of the kernel programs, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clocks {
    /// Since the machine started, sleep included: what verdicts that end at a time are measured by.
    pub boot: u64,
    /// By the tick counter, from where the kernel begins to count: what lifetimes and the last hits
    /// of rules are measured by.
    pub ticks: u64,
}

/// The clock program's output.
pub(super) struct ProgramClocks {
    map: Array<MapData, u64>,
}

impl ProgramClocks {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            map: take(ebpf, maps::CLOCK)?,
        })
    }

    /// Runs the program once and reads what it wrote.
    pub(super) fn read(&self, program: &SchedClassifier) -> Result<Clocks, DatapathError> {
        // The least the kernel takes as a frame.
        let frame = [0u8; 64];
        let options = TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::new()
        };
        program
            .test_run(options)
            .map_err(|error| DatapathError::Clock(chain(&error)))?;
        let clock = |index| {
            let read = self.map.get(&index, 0);
            read.map_err(|error| DatapathError::Clock(chain(&error)))
        };
        Ok(Clocks {
            boot: clock(0)?,
            ticks: clock(1)?,
        })
    }
}

/// Nanoseconds per tick of the running kernel: the resolution of its coarse clocks
/// (`posix_get_coarse_res` in `kernel/time/posix-timers.c`).
pub(super) fn tick() -> Result<u64, DatapathError> {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_err(|error| DatapathError::Clock(error.to_string()))?;
    u64::try_from(resolution.num_nanoseconds())
        .ok()
        .filter(|tick| *tick > 0)
        .ok_or_else(|| DatapathError::Clock("the kernel names no length of a tick".into()))
}
