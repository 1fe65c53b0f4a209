//! Fences of pinned tcx links.
//!
//! Invariants: a link that works is never replaced, its program is swapped in place; a fence that moves
//! to the head of its hook is in force there before its former place is given up, and a process that
//! dies meanwhile leaves a pinned link that decides as the fence does.

use std::{fs, path::Path};

use aya::{
    maps::{MapData, ProgramArray},
    programs::{
        LinkOrder, MultiProgLink as _, SchedClassifier,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions},
    },
};
use ringfence_common::maps as names;

use super::{
    DatapathError,
    attach::{AttachPoint, remove},
    maps::{failed as map_failed, open},
    pins::{Pins, failed},
    tcx_query,
};

/// A program with what it needs to move to the head of a hook.
pub(super) struct Movable<'a> {
    pub(super) program: &'a mut SchedClassifier,
    pub(super) stand_in: &'a mut SchedClassifier,
    /// Its index in [`names::STAND_IN_FOR`].
    pub(super) index: u32,
}

/// Attaches with a tcx link at the head of the hook, or swaps the program of the pinned link and moves it
/// there. Returns the link's ID.
pub(super) fn attach(
    movable: Movable<'_>,
    point: &AttachPoint<'_>,
    pins: &Pins,
) -> Result<u32, DatapathError> {
    let pin = pins.link(point.ifindex, point.name);
    let Some(link) = adopt(movable.program, &pin) else {
        remove(&pin)?;
        let link = attach_first(movable.program, point)?;
        return pinned(link, &pin, point);
    };
    let id = id_of(&link, point)?;
    let attached = tcx_query::query(point.ifindex, point.hook)
        .map_err(|error| point.failed("look at", &error))?;
    if attached.first().is_some_and(|first| first.link == id) {
        return Ok(id);
    }
    if attached.iter().any(|it| it.link == id) {
        return move_to_head(movable, link, point, pins);
    }
    // A link of another hook is in its place.
    remove(&pin)?;
    drop(link);
    let link = attach_first(movable.program, point)?;
    pinned(link, &pin, point)
}

/// Attaches and pins a tcx link at the head of a hook where there is none of ours. Returns its ID.
pub(super) fn attach_new(
    program: &mut SchedClassifier,
    point: &AttachPoint<'_>,
    pins: &Pins,
) -> Result<u32, DatapathError> {
    let link = attach_first(program, point)?;
    pinned(link, &pins.link(point.ifindex, point.name), point)
}

/// `BPF_LINK_UPDATE` on a pinned link; `None` if there is no link, or it was detached.
fn adopt(program: &mut SchedClassifier, pin: &Path) -> Option<FdLink> {
    let link = FdLink::from(PinnedLink::from_pin(pin).ok()?);
    let link = SchedClassifierLink::try_from(link).ok()?;
    let link = program.attach_to_link(link).ok()?;
    FdLink::try_from(program.take_link(link).ok()?).ok()
}

fn attach_first(
    program: &mut SchedClassifier,
    point: &AttachPoint<'_>,
) -> Result<FdLink, DatapathError> {
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = program
        .attach_with_options(point.interface, point.hook, options)
        .map_err(|error| point.failed("attach", &error))?;
    taken(program, link, point)
}

fn taken(
    program: &mut SchedClassifier,
    link: SchedClassifierLinkId,
    point: &AttachPoint<'_>,
) -> Result<FdLink, DatapathError> {
    let link = program.take_link(link);
    let link = link.map_err(|error| point.failed("attach", &error))?;
    FdLink::try_from(link).map_err(|error| point.failed("attach", &error))
}

fn id_of(link: &FdLink, point: &AttachPoint<'_>) -> Result<u32, DatapathError> {
    let info = link.info();
    Ok(info
        .map_err(|error| point.failed("inspect the link of", &error))?
        .id())
}

/// Pins a link, and closes our handle of it; returns its ID.
fn pinned(link: FdLink, pin: &Path, point: &AttachPoint<'_>) -> Result<u32, DatapathError> {
    let id = id_of(&link, point)?;
    link.pin(pin)
        .map_err(|error| point.failed("pin the link of", &error))?;
    Ok(id)
}

/// Attaches a stand-in at the head, gives up the present link, and puts the program in the place of its
/// stand-in. Returns the ID of the new link.
fn move_to_head(
    movable: Movable<'_>,
    present: FdLink,
    point: &AttachPoint<'_>,
    pins: &Pins,
) -> Result<u32, DatapathError> {
    let Movable {
        program,
        stand_in,
        index,
    } = movable;
    let mut stands_in_for: ProgramArray<MapData> = open(pins, names::STAND_IN_FOR)?;
    let called = program
        .fd()
        .map_err(|error| point.failed("attach", &error))?;
    stands_in_for
        .set(index, called, 0)
        .map_err(map_failed(names::STAND_IN_FOR, "write a program"))?;
    let link = attach_first(stand_in, point)?;
    let (pin, next) = (
        pins.link(point.ifindex, point.name),
        pins.next_link(point.ifindex, point.name),
    );
    remove(&next)?;
    let id = pinned(link, &next, point)?;
    fs::rename(&next, &pin).map_err(|error| failed(&pin, "replace", &error))?;
    // The kernel would do so later, and refuses the program at this hook until then.
    detach(present, point)?;
    let link = adopt(program, &pin);
    let is_adopted = link.is_some();
    drop(link);
    if !is_adopted {
        return Err(point.refused("put the program in the place of its stand-in", "see dmesg"));
    }
    stands_in_for
        .clear_index(&index)
        .map_err(map_failed(names::STAND_IN_FOR, "remove a program"))?;
    Ok(id)
}

fn detach(link: FdLink, point: &AttachPoint<'_>) -> Result<(), DatapathError> {
    let failed = |error: &dyn std::error::Error| point.failed("detach the former link of", error);
    let link = SchedClassifierLink::try_from(link).map_err(|error| failed(&error))?;
    let descriptor = link.fd().map_err(|error| failed(&error))?;
    tcx_query::detach(descriptor).map_err(|error| failed(&error))
}

/// Takes the program of a pinned link off its hook, as `bpftool link detach` does. The pin stays, and
/// keeps a link that does nothing.
///
/// # Errors
/// When there is no such pin, or the kernel refuses.
pub fn detach_pinned(pin: &Path) -> Result<(), DatapathError> {
    let refused = |error: &dyn std::error::Error| {
        failed(pin, "detach", &std::io::Error::other(error.to_string()))
    };
    let link = PinnedLink::from_pin(pin).map_err(|error| refused(&error))?;
    let link =
        SchedClassifierLink::try_from(FdLink::from(link)).map_err(|error| refused(&error))?;
    let descriptor = link.fd().map_err(|error| refused(&error))?;
    tcx_query::detach(descriptor).map_err(|error| failed(pin, "detach", &error))
}
