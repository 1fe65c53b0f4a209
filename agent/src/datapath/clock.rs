//! Asking the kernel for its boot clock.
//!
//! A process in a time namespace sees another boot clock than the programs do, and times in maps
//! are compared by the programs: so a program is asked, through `BPF_PROG_TEST_RUN`.

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use ringfence_common::maps;

use super::{DatapathError, error::chain, maps::take};

pub(super) const PROGRAM: &str = "clock";

/// The clock program's output.
pub(super) struct BootClock {
    map: Array<MapData, u64>,
}

impl BootClock {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            map: take(ebpf, maps::CLOCK)?,
        })
    }

    /// Runs the program once and reads what it wrote.
    pub(super) fn read(&self, program: &SchedClassifier) -> Result<u64, DatapathError> {
        // The least the kernel takes as a frame.
        let frame = [0u8; 64];
        let options = TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::new()
        };
        program
            .test_run(options)
            .map_err(|error| DatapathError::Clock(chain(&error)))?;
        self.map
            .get(&0, 0)
            .map_err(|error| DatapathError::Clock(chain(&error)))
    }
}
