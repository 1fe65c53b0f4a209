//! The loaded programs as any thread can run them.
//!
//! A run is one system call (`BPF_PROG_TEST_RUN`) with one frame, on the CPU of the caller, in the
//! caller's network namespace.

pub(crate) mod frames;

use anyhow::{Context as _, Result, bail};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use ringfence::datapath::KernelDatapath;

use crate::Bpffs;

/// `TC_ACT_UNSPEC`.
const PASSED: i32 = -1;
/// `TC_ACT_SHOT`.
const DROPPED: i32 = 2;
/// An interface that frames were forwarded from; it need not exist.
const ELSEWHERE: u32 = 77;

/// The hook at which a program sees a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// The workload sends it.
    FromWorkload,
    /// It was forwarded to the workload.
    ToWorkload,
}

/// A handle of both programs.
pub(crate) struct Programs {
    from_workload: SchedClassifier,
    to_workload: SchedClassifier,
}

impl Programs {
    /// Further handles of the datapath's programs. They pass through a pin, which is removed again.
    pub(crate) fn of(datapath: &mut KernelDatapath, bpffs: &Bpffs) -> Result<Self> {
        let mut handle = |name: &'static str| -> Result<SchedClassifier> {
            let program = datapath.program(name).context("no such program")?;
            let path = bpffs.path().join(format!("handle-{name}"));
            program.pin(&path)?;
            let handle = SchedClassifier::from_pin(&path);
            std::fs::remove_file(&path)?;
            Ok(handle?)
        };
        Ok(Self {
            from_workload: handle("from_workload")?,
            to_workload: handle("to_workload")?,
        })
    }

    /// Whether a frame passes at a hook of an interface.
    pub(crate) fn passes(&self, hook: Hook, ifindex: u32, frame: &[u8]) -> Result<bool> {
        let (program, ingress) = match hook {
            Hook::FromWorkload => (&self.from_workload, ifindex),
            Hook::ToWorkload => (&self.to_workload, ELSEWHERE),
        };
        let context = sk_buff(ingress, ifindex);
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        match program.test_run(options)?.return_value.cast_signed() {
            PASSED => Ok(true),
            DROPPED => Ok(false),
            other => bail!("a program returned {other}"),
        }
    }
}

/// The part of `struct __sk_buff` that a run takes as input.
fn sk_buff(ingress_ifindex: u32, ifindex: u32) -> [u8; 184] {
    let mut context = [0; 184];
    for (at, field) in [(36, ingress_ifindex), (40, ifindex)] {
        if let Some(bytes) = context.get_mut(at..at + 4) {
            bytes.copy_from_slice(&field.to_ne_bytes());
        }
    }
    context
}
