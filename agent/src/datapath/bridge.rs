//! A bridge: clsact filters that are the fence of an interface until its tcx links are attached.
//!
//! The kernel attaches a tcx link and then waits for an RCU grace period; it does not for a filter. Invariants:
//! a bridge is built only where there is no qdisc in the place of clsact, and marked by a pin before; it
//! goes with its qdisc, which plugins of CNI expect to be free (`bandwidth`), and the mark goes last, so
//! that a process that dies leaves nothing that the next one does not find; filters of others stay, and
//! the qdisc with them. Programs of tcx pass packets on to filters, so what runs twice meanwhile decides
//! the same twice, and counts packets twice.

use std::io;

use super::{
    DatapathError,
    attach::{self, AttachPoint, HOOKS, interface_name},
    clsact, filters,
    pins::Pins,
    programs::Programs,
};

/// What came of building a bridge.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Built {
    /// The fence is in force.
    Yes,
    /// There is a qdisc in the place of clsact, of this kind.
    Occupied(String),
}

/// Builds a bridge on an interface without a fence of ours.
pub(super) fn build(
    programs: &mut Programs,
    ifindex: u32,
    interface: &str,
    pins: &Pins,
) -> Result<Built, DatapathError> {
    let points = HOOKS.map(|(name, hook)| AttachPoint {
        ifindex,
        interface,
        name,
        hook,
    });
    let mark = pins.bridge(ifindex);
    let [(first, _), _] = HOOKS;
    clsact::mark(programs.get(first)?, &mark)?;
    if let Err(error) = filters::add_clsact(ifindex) {
        attach::remove(&mark)?;
        let [point, _] = &points;
        if error.kind() != io::ErrorKind::AlreadyExists {
            return Err(point.failed("add clsact to", &error));
        }
        let other = filters::qdisc_in_place_of_clsact(ifindex);
        let other = other.map_err(|error| point.failed("look at", &error))?;
        return Ok(Built::Occupied(
            other.unwrap_or_else(|| "clsact".to_owned()),
        ));
    }
    for point in &points {
        let added = programs
            .get(point.name)
            .and_then(|program| clsact::add_first(program, point));
        if let Err(error) = added {
            remove(ifindex, pins)?;
            return Err(error);
        }
    }
    Ok(Built::Yes)
}

/// Removes a bridge; no error if the interface is gone.
///
/// # Errors
/// When the kernel refuses. The mark stays, so that it can be repeated.
pub(super) fn remove(ifindex: u32, pins: &Pins) -> Result<(), DatapathError> {
    let interface = interface_name(ifindex).unwrap_or_default();
    let mut ours = Vec::new();
    let mut has_others = false;
    for (name, hook) in HOOKS {
        let point = AttachPoint {
            ifindex,
            interface: &interface,
            name,
            hook,
        };
        let found = filters::list(ifindex, hook);
        let found = found.map_err(|error| point.failed("look at", &error))?;
        has_others |= !found.iter().all(clsact::is_in_our_place);
        if found.iter().any(clsact::is_in_our_place) {
            ours.push(point);
        }
    }
    if has_others {
        ours.iter().try_for_each(clsact::remove_ours)?;
    } else {
        filters::remove_clsact(ifindex).map_err(|error| DatapathError::Attach {
            interface: interface.clone(),
            ifindex,
            operation: "remove clsact from",
            reason: error.to_string(),
        })?;
    }
    attach::remove(&pins.bridge(ifindex))
}
