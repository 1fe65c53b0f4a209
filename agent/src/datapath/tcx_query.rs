//! What is attached at a tcx hook, and detaching a link: commands of bpf(2) that `aya` does not wrap, or
//! for which it needs CAP_SYS_ADMIN (it opens every program that it finds).
//!
//! A query waits for the kernel's lock over all network devices, and needs CAP_NET_ADMIN. Invariant:
//! a query gives the hook as it was at one moment, first to last. Facts: `include/uapi/linux/bpf.h`,
//! `kernel/bpf/tcx.c`, `kernel/bpf/mprog.c`.

#![allow(
    unsafe_code,
    reason = "aya lacks these commands and bpf(2) has no safe wrapper"
)]

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya::programs::TcAttachType;

/// `BPF_PROG_QUERY` in `enum bpf_cmd`.
const QUERY: libc::c_int = 16;
/// `BPF_LINK_DETACH` in `enum bpf_cmd`.
const DETACH: libc::c_int = 34;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS` in `enum bpf_attach_type`.
const INGRESS: u32 = 46;
const EGRESS: u32 = 47;
/// The most programs at a hook (`BPF_MPROG_MAX`).
const MOST: u32 = 64;

/// A program at a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AtHook {
    /// The ID of its link, 0 if it has none.
    pub(super) link: u32,
    /// Its ID, 0 if it has none.
    pub(super) program: u32,
}

/// The part of `union bpf_attr` that a query uses.
#[repr(C)]
struct Query {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

/// The programs at a hook of an interface of the calling thread's network namespace, first to last.
///
/// # Errors
/// ENODEV if there is no such interface, EINVAL on kernels before 6.6.
pub(super) fn query(ifindex: u32, hook: TcAttachType) -> io::Result<Vec<AtHook>> {
    let mut programs = [0_u32; MOST as usize];
    let mut links = [0_u32; MOST as usize];
    let mut attributes = Query {
        ifindex,
        attach_type: match hook {
            TcAttachType::Egress => EGRESS,
            _ => INGRESS,
        },
        query_flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr().expose_provenance() as u64,
        count: MOST,
        padding: 0,
        program_flags: 0,
        links: links.as_mut_ptr().expose_provenance() as u64,
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: the kernel writes at most `count` IDs to each array, both of which have room for as many
    // and outlive the call, and fields of the attributes. It reads no more of these than `size`.
    let refused = unsafe {
        let size = size_of::<Query>();
        libc::syscall(libc::SYS_bpf, QUERY, &raw mut attributes, size) != 0
    };
    if refused {
        return match io::Error::last_os_error() {
            // A hook without any program.
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
            error => Err(error),
        };
    }
    let both = programs.iter().zip(&links).take(attributes.count as usize);
    Ok(both
        .map(|(program, link)| AtHook {
            link: *link,
            program: *program,
        })
        .collect())
}

/// Takes a link's program off its hook at once, also if other processes hold the link. It cannot be undone.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut descriptor = link.as_raw_fd();
    // SAFETY: the kernel reads four bytes, which outlive the call.
    let refused = unsafe {
        let size = size_of_val(&descriptor);
        libc::syscall(libc::SYS_bpf, DETACH, &raw mut descriptor, size) != 0
    };
    if refused {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
