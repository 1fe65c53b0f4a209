//! Reads the clocks of the kernel programs.
//!
//! The programs compare the times in maps with their own clocks. A process in a time namespace has
//! another boot clock than the programs, and only the programs can read the tick counter; so a
//! program reads both, through `BPF_PROG_TEST_RUN`.

use aya::{
    maps::{Array, MapData},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use nix::{
    sys::time::TimeValLike as _,
    time::{ClockId, clock_getres},
};
use ringfence_common::maps;

use super::{DatapathError, error::chain, maps::open, pins::Pins};

pub(super) const PROGRAM: &str = "clocks";

/// A reading of the kernel programs' clocks, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clocks {
    /// The boot clock: time since the machine started, sleep included. Periods use it.
    pub boot: u64,
    /// The tick clock: the kernel's tick counter. Lifetimes of entries, times of events and last
    /// hits of rules use it.
    pub ticks: u64,
}

/// The clock program's output.
pub(super) struct ProgramClocks {
    map: Array<MapData, u64>,
}

impl ProgramClocks {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        Ok(Self {
            map: open(pins, maps::CLOCK)?,
        })
    }

    /// Runs the program once and reads what it wrote.
    pub(super) fn read(&self, program: &SchedClassifier) -> Result<Clocks, DatapathError> {
        // Long enough for the kernel to accept it as a frame.
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
        .ok_or_else(|| DatapathError::Clock("the kernel reports no tick length".into()))
}
