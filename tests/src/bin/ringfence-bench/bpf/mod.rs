//! The benchmark's own programs, and links whose program is replaced in place, by plain `bpf(2)`.
//!
//! `return TC_ACT_UNSPEC` is the cost of any program, `return TC_ACT_SHOT` that of any drop, and
//! [`flow_table`] that of a flow table, alone or with the other maps of the pipeline. The programs
//! are loaded without an object file or library. A tcx link keeps its place while its program is
//! replaced, so two programs can be compared on one hook of one interface.

#![allow(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper that takes bare instructions or swaps a foreign program"
)]

pub(crate) mod flow_table;
mod instructions;
mod table;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::instructions::{Instruction, Register, exit, set};

const LICENSE: &[u8] = b"GPL\0";
const SCHED_CLS: u32 = 3;
const MAP_CREATE: libc::c_long = 0;
const PROG_LOAD: libc::c_long = 5;
const OBJ_GET: libc::c_long = 7;
const PROG_TEST_RUN: libc::c_long = 10;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;

const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;

/// The return value of a program of two instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    /// `TC_ACT_UNSPEC`: the no-op.
    Pass,
    /// `TC_ACT_SHOT`: the bare drop.
    Drop,
}

/// A tcx hook of an interface.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Hook {
    /// Packets from a workload: `BPF_TCX_INGRESS`.
    FromWorkload = 46,
    /// Packets to a workload: `BPF_TCX_EGRESS`.
    ToWorkload = 47,
}

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel treats the rest as zero.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// The start of `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    verdict: i32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// The start of `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
struct Get {
    path: u64,
    unused: [u32; 2],
}

/// The start of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct GetInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// The start of `struct bpf_link_info`.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    unused: u32,
}

/// The start of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
}

/// The start of `union bpf_attr` for commands that take 32-bit numbers only.
#[repr(C)]
struct Numbers<const COUNT: usize>([u32; COUNT]);

/// A loaded program.
pub(crate) struct Program(OwnedFd);

impl Program {
    /// Loads a program that only returns a verdict.
    pub(crate) fn returning(verdict: Verdict) -> Result<Self> {
        let value = match verdict {
            Verdict::Pass => TC_ACT_UNSPEC,
            Verdict::Drop => TC_ACT_SHOT,
        };
        Self::load(&[set(Register::R0, value), exit()])
    }

    fn load(instructions: &[Instruction]) -> Result<Self> {
        let mut load = Load {
            kind: SCHED_CLS,
            count: u32::try_from(instructions.len())?,
            instructions: instructions.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
        };
        let fd = bpf(PROG_LOAD, &mut load);
        let fd = fd.with_context(|| format!("loading a program of {} instructions", load.count))?;
        Ok(Self(owned(fd)?))
    }

    /// What the kernel calls its instructions by, whatever maps they use.
    pub(crate) fn tag(&self) -> Result<[u8; 8]> {
        let mut info = ProgramInfo::default();
        let mut get = GetInfo {
            fd: number(&self.0)?,
            length: u32::try_from(size_of::<ProgramInfo>())?,
            info: std::ptr::from_mut(&mut info) as u64,
        };
        bpf(OBJ_GET_INFO_BY_FD, &mut get).context("asking for a program's tag")?;
        Ok(info.tag)
    }

    /// The mean time of one run on this frame.
    pub(crate) fn run(&self, frame: &[u8], repeat: u32) -> Result<Duration> {
        let run = self.test(frame, repeat)?;
        Ok(Duration::from_nanos(u64::from(run.duration)))
    }

    /// The return value for this frame.
    #[cfg(test)]
    fn verdict(&self, frame: &[u8]) -> Result<i32> {
        Ok(self.test(frame, 1)?.verdict)
    }

    fn test(&self, frame: &[u8], repeat: u32) -> Result<TestRun> {
        let mut run = TestRun {
            program: number(&self.0)?,
            size_in: u32::try_from(frame.len())?,
            data_in: frame.as_ptr() as u64,
            repeat,
            ..TestRun::default()
        };
        bpf(PROG_TEST_RUN, &mut run).context("running a program of the benchmark")?;
        Ok(run)
    }
}

/// A tcx link.
pub(crate) struct Link(OwnedFd);

impl Link {
    /// Attaches a program to an interface of the calling thread's network namespace, until the link
    /// is dropped.
    pub(crate) fn attach(program: &Program, ifindex: u32, hook: Hook) -> Result<Self> {
        let mut attributes = Numbers([number(&program.0)?, ifindex, hook as u32, 0]);
        let fd = bpf(LINK_CREATE, &mut attributes).context("attaching a tcx link")?;
        Ok(Self(owned(fd)?))
    }

    /// Opens a pinned link.
    pub(crate) fn pinned(path: &Path) -> Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let mut get = Get {
            path: name.as_ptr() as u64,
            unused: [0; 2],
        };
        let fd = bpf(OBJ_GET, &mut get);
        let fd = fd.with_context(|| format!("opening the link {}", path.display()))?;
        Ok(Self(owned(fd)?))
    }

    /// The program that is attached now.
    pub(crate) fn program(&self) -> Result<Program> {
        let mut info = LinkInfo::default();
        let mut get = GetInfo {
            fd: number(&self.0)?,
            length: u32::try_from(size_of::<LinkInfo>())?,
            info: std::ptr::from_mut(&mut info) as u64,
        };
        bpf(OBJ_GET_INFO_BY_FD, &mut get).context("getting a link's program")?;
        let mut by_id = Numbers([info.program, 0, 0, 0]);
        let fd = bpf(PROG_GET_FD_BY_ID, &mut by_id).context("opening a link's program")?;
        Ok(Program(owned(fd)?))
    }

    /// Replaces the program in place: the next packet runs the new one.
    pub(crate) fn swap(&self, program: &Program) -> Result<()> {
        let mut attributes = Numbers([number(&self.0)?, number(&program.0)?, 0, 0]);
        bpf(LINK_UPDATE, &mut attributes).context("replacing the program of a link")?;
        Ok(())
    }
}

fn number(fd: &OwnedFd) -> Result<u32> {
    Ok(u32::try_from(fd.as_raw_fd())?)
}

fn owned(fd: libc::c_long) -> Result<OwnedFd> {
    // SAFETY: only called with the result of a successful bpf(2) command, which is a new descriptor
    // that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}

/// `bpf(2)`. Buffers that `attributes` points to must have the lengths given there and outlive the
/// call.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    let size = libc::c_long::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes `size` bytes of `attributes`, which is borrowed for the
    // call. The addresses in it come from the callers, from values that outlive the call and have
    // the given length; the only ones that the kernel writes to are `LinkInfo` and `ProgramInfo`,
    // which are borrowed mutably there.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
