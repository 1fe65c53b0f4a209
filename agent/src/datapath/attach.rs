//! Attaches the programs: by pinned tcx links, or by clsact filters where the kernel has no tcx.
//!
//! Invariants: a pinned fence is never detached to be replaced, its program is swapped in place; a
//! clsact filter has a fixed priority and handle, so that a restart replaces it rather than adding
//! a second one.

use std::{fs, io, path::Path};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{
        self, NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcError,
        TcHandle,
    },
};

use super::{
    DatapathError,
    error::chain,
    pins::{Pins, failed},
};

/// The fixed priority and handle of our clsact filter.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 0x5246);

/// The programs and their hooks. A packet that leaves a workload arrives at the TC ingress of its
/// host-side interface.
pub(super) const HOOKS: [(&str, TcAttachType); 2] = [
    ("from_workload", TcAttachType::Ingress),
    ("to_workload", TcAttachType::Egress),
];

/// How programs are attached on this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachKind {
    /// tcx links (Linux 6.6); they survive `tc qdisc del`, and renames and moves of the interface.
    Tcx,
    /// Filters on a clsact qdisc.
    Clsact,
}

impl AttachKind {
    /// `tcx` or `clsact`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// One hook of one interface.
pub(super) struct AttachPoint<'a> {
    pub(super) ifindex: u32,
    pub(super) interface: &'a str,
    pub(super) name: &'static str,
    pub(super) hook: TcAttachType,
}

impl AttachPoint<'_> {
    fn failed(&self, operation: &'static str, error: &dyn std::error::Error) -> DatapathError {
        DatapathError::Attach {
            interface: self.interface.to_owned(),
            ifindex: self.ifindex,
            operation,
            reason: chain(error),
        }
    }
}

/// Attaches with a tcx link, or swaps the program of a link that is already pinned.
pub(super) fn tcx(
    program: &mut SchedClassifier,
    point: &AttachPoint<'_>,
    pins: &Pins,
) -> Result<(), DatapathError> {
    let pin = pins.link(point.ifindex, point.name);
    if let Some(link) = adopt(program, &pin) {
        return release(program, link, point);
    }
    remove(&pin)?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = program
        .attach_with_options(point.interface, point.hook, options)
        .map_err(|error| point.failed("attach", &error))?;
    let link = program
        .take_link(link)
        .map_err(|error| point.failed("attach", &error))?;
    let link = FdLink::try_from(link).map_err(|error| point.failed("attach", &error))?;
    link.pin(&pin)
        .map_err(|error| point.failed("pin the link of", &error))?;
    Ok(())
}

/// `BPF_LINK_UPDATE` on a pinned link; `None` if there is no link or its interface is gone.
fn adopt(program: &mut SchedClassifier, pin: &Path) -> Option<SchedClassifierLinkId> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
    program
        .attach_to_link(SchedClassifierLink::try_from(link).ok()?)
        .ok()
}

/// Closes our handle of a link; the pin keeps the link.
fn release(
    program: &mut SchedClassifier,
    link: SchedClassifierLinkId,
    point: &AttachPoint<'_>,
) -> Result<(), DatapathError> {
    let link = program
        .take_link(link)
        .map_err(|error| point.failed("adopt", &error))?;
    let link = FdLink::try_from(link).map_err(|error| point.failed("adopt", &error))?;
    drop(link);
    Ok(())
}

/// Attaches as a clsact filter; replaces an earlier filter of ours, and one of another ABI
/// (`replaces`), which has the same priority and handle.
pub(super) fn clsact(
    program: &mut SchedClassifier,
    point: &AttachPoint<'_>,
    pins: &Pins,
    replaces: bool,
) -> Result<(), DatapathError> {
    match tc::qdisc_add_clsact(point.interface) {
        // A clsact qdisc that another program added works for us, too.
        Ok(()) | Err(TcError::AlreadyAttached | TcError::NetlinkError(_)) => {}
        Err(error) => return Err(point.failed("add clsact to", &error)),
    }
    let marker = pins.link(point.ifindex, point.name);
    let link = if replaces || is_marked(&marker) {
        SchedClassifierLink::attached(point.interface, point.hook, PRIORITY, HANDLE, None)
            .map_err(ProgramError::IOError)
            .and_then(|link| program.attach_to_link(link))
    } else {
        let options = NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        };
        program.attach_with_options(
            point.interface,
            point.hook,
            TcAttachOptions::Netlink(options),
        )
    };
    let link = link.map_err(|error| point.failed("attach", &error))?;
    let link = program
        .take_link(link)
        .map_err(|error| point.failed("attach", &error))?;
    // Dropping the handle would remove the filter, which must outlive this process.
    std::mem::forget(link);
    mark(program, &marker)
}

/// Marks an interface that has our filter. bpffs holds only BPF objects, so the mark is a pin of
/// the program.
fn mark(program: &mut SchedClassifier, marker: &Path) -> Result<(), DatapathError> {
    remove(marker)?;
    program
        .pin(marker)
        .map_err(|error| failed(marker, "pin the program", &io::Error::other(chain(&error))))
}

fn is_marked(marker: &Path) -> bool {
    fs::symlink_metadata(marker).is_ok()
}

/// Removes our filter from an interface that still exists.
pub(super) fn remove_filter(interface: &str, name: &str, hook: TcAttachType) {
    // Fails if the interface or the filter is already gone, which is the wanted result.
    let _ = tc::qdisc_detach_program(interface, hook, name);
}

/// Removes a pin; no error if it does not exist.
pub(super) fn remove(pin: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(pin, "remove", &error)),
        _ => Ok(()),
    }
}
