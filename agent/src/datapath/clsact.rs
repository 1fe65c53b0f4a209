//! Fences of clsact filters, where the kernel has no tcx.
//!
//! Invariants: our filter has a fixed preference and handle, so that a restart replaces it rather than
//! adding a second one; of one preference the filter that was added last runs first, so a fence moves to
//! the head by being added again, and is in force there before its former place is given up. An
//! interface whose ingress qdisc is in the place of clsact gets no half of a fence: without the other
//! program it would not know which flows are replies.

use std::{io, path::Path};

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};

use super::{
    DatapathError,
    attach::{AttachPoint, remove},
    error::chain,
    filters::{self, Filter},
    pins::{Pins, failed},
};

/// The preference and the handle of our filter.
const PREFERENCE: u16 = 1;
const HANDLE: u16 = 0x5246;
/// The handle of a second one, for the moment in which it moves to the head.
const NEXT_HANDLE: u16 = 0x5247;

/// Whether a filter is in the place of ours.
pub(super) fn is_in_our_place(filter: &Filter) -> bool {
    filter.preference == PREFERENCE && filter.handle == u32::from(HANDLE)
}

fn is_next(filter: &Filter) -> bool {
    filter.preference == PREFERENCE && filter.handle == u32::from(NEXT_HANDLE)
}

/// Attaches as a clsact filter at the head of the hook; replaces an earlier filter of ours, and one of
/// another ABI, which has the same preference and handle, in its place, and moves it there.
pub(super) fn attach(
    program: &mut SchedClassifier,
    point: &AttachPoint<'_>,
    pins: &Pins,
) -> Result<(), DatapathError> {
    add_clsact(point)?;
    let list = || {
        filters::list(point.ifindex, point.hook).map_err(|error| point.failed("look at", &error))
    };
    let found = list()?;
    if found.iter().any(is_in_our_place) {
        replace(program, point)?;
    } else {
        add(program, point, HANDLE)?;
    }
    if found.iter().any(is_next) {
        remove_one(point, NEXT_HANDLE)?;
    }
    if !list()?.first().is_some_and(is_in_our_place) {
        add(program, point, NEXT_HANDLE)?;
        remove_one(point, HANDLE)?;
        add(program, point, HANDLE)?;
        remove_one(point, NEXT_HANDLE)?;
    }
    mark(program, &pins.link(point.ifindex, point.name))
}

/// Adds our filter to a hook of a clsact qdisc that has none of ours.
pub(super) fn add_first(
    program: &mut SchedClassifier,
    point: &AttachPoint<'_>,
) -> Result<(), DatapathError> {
    add(program, point, HANDLE)
}

/// Removes our filter, and leaves others.
pub(super) fn remove_ours(point: &AttachPoint<'_>) -> Result<(), DatapathError> {
    remove_one(point, HANDLE)
}

fn add_clsact(point: &AttachPoint<'_>) -> Result<(), DatapathError> {
    match tc::qdisc_add_clsact(point.interface) {
        Ok(()) => Ok(()),
        // A clsact qdisc that another program added works for us, too.
        Err(error @ (TcError::AlreadyAttached | TcError::NetlinkError(_))) => {
            let other = filters::qdisc_in_place_of_clsact(point.ifindex);
            match other.map_err(|error| point.failed("look at", &error))? {
                Some(kind) => Err(point.refused(
                    "add clsact to",
                    &format!(
                        "a qdisc of kind {kind} is in its place ({}): remove that, for instance by taking the plugin `bandwidth` out of the CNI configuration, or use tcx, which needs Linux 6.6",
                        chain(&error)
                    ),
                )),
                None => Ok(()),
            }
        }
        Err(error) => Err(point.failed("add clsact to", &error)),
    }
}

fn add(
    program: &mut SchedClassifier,
    point: &AttachPoint<'_>,
    handle: u16,
) -> Result<(), DatapathError> {
    let options = NlOptions {
        priority: PREFERENCE,
        handle: TcHandle::new(0, handle),
        classid: None,
    };
    let link = program
        .attach_with_options(
            point.interface,
            point.hook,
            TcAttachOptions::Netlink(options),
        )
        .and_then(|link| program.take_link(link))
        .map_err(|error| point.failed("attach", &error))?;
    // Dropping the handle would remove the filter, which must outlive this process.
    std::mem::forget(link);
    Ok(())
}

fn replace(program: &mut SchedClassifier, point: &AttachPoint<'_>) -> Result<(), DatapathError> {
    let link = ours(point, HANDLE)
        .and_then(|link| program.attach_to_link(link))
        .and_then(|link| program.take_link(link))
        .map_err(|error| point.failed("attach", &error))?;
    std::mem::forget(link);
    Ok(())
}

fn remove_one(point: &AttachPoint<'_>, handle: u16) -> Result<(), DatapathError> {
    use aya::programs::links::Link as _;
    ours(point, handle)
        .and_then(SchedClassifierLink::detach)
        .map_err(|error| point.failed("detach the former filter of", &error))
}

fn ours(point: &AttachPoint<'_>, handle: u16) -> Result<SchedClassifierLink, ProgramError> {
    let handle = TcHandle::new(0, handle);
    SchedClassifierLink::attached(point.interface, point.hook, PREFERENCE, handle, None)
        .map_err(ProgramError::IOError)
}

/// Marks an interface that has our filter. bpffs holds only BPF objects, so the mark is a pin of
/// the program.
pub(super) fn mark(program: &mut SchedClassifier, marker: &Path) -> Result<(), DatapathError> {
    remove(marker)?;
    program
        .pin(marker)
        .map_err(|error| failed(marker, "pin the program", &io::Error::other(chain(&error))))
}

/// Removes our filters from a hook of an interface that still exists.
pub(super) fn remove_filters(interface: &str, name: &str, hook: TcAttachType) {
    // Fails if the interface or the filter is already gone, which is the wanted result.
    let _ = tc::qdisc_detach_program(interface, hook, name);
}
