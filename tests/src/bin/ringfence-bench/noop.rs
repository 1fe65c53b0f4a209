//! The smallest program there is, `return TC_ACT_UNSPEC`: what any program costs.
//!
//! It is two instructions, handed to the kernel as they are; no object file, no library. Nothing
//! else is done here.

#![allow(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper that takes bare instructions"
)]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// `r0 = -1; exit`, as in `linux/bpf_common.h`.
const INSTRUCTIONS: [[u8; 8]; 2] = [
    [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    [0x95, 0, 0, 0, 0, 0, 0, 0],
];
const LICENSE: &[u8] = b"GPL\0";
const SCHED_CLS: u32 = 3;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes the rest as zero.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// Likewise for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    verdict: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// The program in the kernel.
pub(crate) struct Noop {
    program: OwnedFd,
}

impl Noop {
    /// Loads it.
    pub(crate) fn load() -> Result<Self> {
        let mut load = Load {
            kind: SCHED_CLS,
            count: u32::try_from(INSTRUCTIONS.len())?,
            instructions: INSTRUCTIONS.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
        };
        let fd = bpf(PROG_LOAD, &mut load).context("loading the no-op program")?;
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        let program = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) };
        Ok(Self { program })
    }

    /// The mean time of one run on this frame.
    pub(crate) fn run(&self, frame: &[u8], repeat: u32) -> Result<Duration> {
        let mut run = TestRun {
            program: u32::try_from(self.program.as_raw_fd())?,
            size_in: u32::try_from(frame.len())?,
            data_in: frame.as_ptr() as u64,
            repeat,
            ..TestRun::default()
        };
        bpf(PROG_TEST_RUN, &mut run).context("running the no-op program")?;
        Ok(Duration::from_nanos(u64::from(run.duration)))
    }
}

/// `bpf(2)`. What `attributes` points to must be as long as it says and outlive the call.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    let size = libc::c_long::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes `size` bytes of `attributes`, which is borrowed for the
    // call. The addresses in it come from slices in our two callers that live past the call, with
    // their true lengths, and the kernel only reads there.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
