//! Attaching the programs: tcx links, pinned; classic clsact filters where there is no tcx.
//!
//! Invariants: a fence that is pinned already is never taken off to be replaced, its program is
//! swapped in place; a clsact filter has a fixed priority and handle, so that a restart replaces it
//! rather than adding a second one.

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

/// Fixed place of our clsact filter.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 0x5246);

/// The programs and the hooks they belong on. What leaves a workload arrives at the TC ingress of
/// its host-side interface.
pub(super) const HOOKS: [(&str, TcAttachType); 2] = [
    ("from_workload", TcAttachType::Ingress),
    ("to_workload", TcAttachType::Egress),
];

/// How programs are attached on this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachKind {
    /// tcx links (Linux 6.6): they survive `tc qdisc del`, renames and moves.
    Tcx,
    /// Filters of a clsact qdisc.
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
pub(super) struct Site<'a> {
    pub(super) ifindex: u32,
    pub(super) interface: &'a str,
    pub(super) name: &'static str,
    pub(super) hook: TcAttachType,
}

impl Site<'_> {
    fn failed(&self, operation: &'static str, error: &dyn std::error::Error) -> DatapathError {
        DatapathError::Attach {
            interface: self.interface.to_owned(),
            ifindex: self.ifindex,
            operation,
            reason: chain(error),
        }
    }
}

/// Attaches by a tcx link, or swaps the program of the link that is pinned already.
pub(super) fn tcx(
    program: &mut SchedClassifier,
    site: &Site<'_>,
    pins: &Pins,
) -> Result<(), DatapathError> {
    let pin = pins.link(site.ifindex, site.name);
    if let Some(link) = adopt(program, &pin) {
        return keep(program, link, site);
    }
    remove(&pin)?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = program
        .attach_with_options(site.interface, site.hook, options)
        .map_err(|error| site.failed("attach", &error))?;
    let link = program
        .take_link(link)
        .map_err(|error| site.failed("attach", &error))?;
    let link = FdLink::try_from(link).map_err(|error| site.failed("attach", &error))?;
    link.pin(&pin)
        .map_err(|error| site.failed("pin the link of", &error))?;
    Ok(())
}

/// `BPF_LINK_UPDATE` on a pinned link; `None` when there is none or its interface is gone.
fn adopt(program: &mut SchedClassifier, pin: &Path) -> Option<SchedClassifierLinkId> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
    program
        .attach_to_link(SchedClassifierLink::try_from(link).ok()?)
        .ok()
}

/// Lets go of our handle of a link; its pin keeps it.
fn keep(
    program: &mut SchedClassifier,
    link: SchedClassifierLinkId,
    site: &Site<'_>,
) -> Result<(), DatapathError> {
    let link = program
        .take_link(link)
        .map_err(|error| site.failed("adopt", &error))?;
    let link = FdLink::try_from(link).map_err(|error| site.failed("adopt", &error))?;
    drop(link);
    Ok(())
}

/// Attaches as a clsact filter, in place of an earlier one of ours.
pub(super) fn clsact(
    program: &mut SchedClassifier,
    site: &Site<'_>,
    pins: &Pins,
) -> Result<(), DatapathError> {
    match tc::qdisc_add_clsact(site.interface) {
        // Another's clsact serves us as well.
        Ok(()) | Err(TcError::AlreadyAttached | TcError::NetlinkError(_)) => {}
        Err(error) => return Err(site.failed("add clsact to", &error)),
    }
    let marker = pins.link(site.ifindex, site.name);
    let link = if is_marked(&marker) {
        SchedClassifierLink::attached(site.interface, site.hook, PRIORITY, HANDLE, None)
            .map_err(ProgramError::IOError)
            .and_then(|link| program.attach_to_link(link))
    } else {
        let options = NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        };
        program.attach_with_options(site.interface, site.hook, TcAttachOptions::Netlink(options))
    };
    let link = link.map_err(|error| site.failed("attach", &error))?;
    let link = program
        .take_link(link)
        .map_err(|error| site.failed("attach", &error))?;
    // Dropping the handle would remove the filter, which has to outlive this process.
    std::mem::forget(link);
    mark(program, &marker)
}

/// bpffs holds only BPF objects, so the program itself marks where a filter of ours is.
fn mark(program: &mut SchedClassifier, marker: &Path) -> Result<(), DatapathError> {
    remove(marker)?;
    program
        .pin(marker)
        .map_err(|error| failed(marker, "pin the program", &io::Error::other(chain(&error))))
}

fn is_marked(marker: &Path) -> bool {
    fs::symlink_metadata(marker).is_ok()
}

/// Takes our filter off an interface that still exists.
pub(super) fn remove_filter(interface: &str, name: &'static str, hook: TcAttachType) {
    // Fails when the interface or the filter is gone, which is what was wanted.
    let _ = tc::qdisc_detach_program(interface, hook, name);
}

/// Removes a pin; fine if it is gone.
pub(super) fn remove(pin: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(pin, "remove", &error)),
        _ => Ok(()),
    }
}
