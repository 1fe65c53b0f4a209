//! The pick-up window: for how long after an interface's first fence TCP connections older than the
//! fence are picked up mid-flow.
//!
//! Invariants: only an interface that stood before the agent's first start on this boot has a
//! window, and only once, whatever becomes of its endpoint; an interface that any version of the
//! agent has had a record of has none. Interface indices grow, so one number tells which interfaces
//! stood before (a lower index that the host's root chose by hand counts as such). The record is in
//! the kernel, so that it ends with the boot.

use ringfence_common::SECOND;

use crate::{plan::State, source::interfaces::Links};

/// How long a window is, in seconds.
pub const PICKUP_WINDOW: u64 = 120;

/// The key of the first interface index that did not stand before the first start.
pub(super) const MARK: u32 = 0;

/// What an interface's endpoint record says about its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Window {
    /// It has, or had, a window until this boot-clock second; 0 for none.
    Until(u32),
    /// It opens one until then, which must be recorded first.
    Opens(u32),
}

/// The window of an interface that has no endpoint yet, or has one, at a boot-clock time in
/// nanoseconds.
pub(super) fn window(actual: &State, ifindex: u32, boot: u64) -> Window {
    if let Some(deadline) = actual.pickups.get(&ifindex) {
        return Window::Until(*deadline);
    }
    if let Some(endpoint) = actual.endpoints.get(&ifindex) {
        return Window::Until(endpoint.pickup_until);
    }
    let stood_before = actual
        .pickups
        .get(&MARK)
        .is_some_and(|mark| ifindex < *mark);
    if !stood_before {
        return Window::Until(0);
    }
    Window::Opens(u32::try_from(boot / SECOND + PICKUP_WINDOW).unwrap_or(u32::MAX))
}

/// The mark to record at the first start: above every interface that stands now.
pub(super) fn mark(interfaces: &Links) -> u32 {
    interfaces.highest() + 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use ringfence_common::endpoint::Endpoint;

    const BOOT: u64 = 1000 * SECOND;

    fn state(mark: u32) -> State {
        State {
            pickups: BTreeMap::from([(MARK, mark)]),
            ..State::default()
        }
    }

    #[test]
    fn only_an_interface_from_before_the_first_start_opens_a_window() {
        let stood = [("lo".to_owned(), 1), ("veth-a".to_owned(), 8)];
        let first = mark(&Links::ethernet(stood));
        assert_eq!(window(&state(first), 8, BOOT), Window::Opens(1120));
        assert_eq!(
            window(&state(first), 9, BOOT),
            Window::Until(0),
            "a new pod"
        );
        assert_eq!(
            window(&State::default(), 8, BOOT),
            Window::Until(0),
            "no record"
        );
        assert_eq!(
            mark(&Links::default()),
            1,
            "an upgrade: nothing stood before"
        );
    }

    #[test]
    fn a_window_opens_once() {
        let mut state = state(9);
        state.pickups.insert(8, 1120);
        let later = BOOT + 5000 * SECOND;
        assert_eq!(window(&state, 8, later), Window::Until(1120));
        let adopted = Endpoint {
            pickup_until: 77,
            ..Endpoint::default()
        };
        state.endpoints.insert(7, adopted);
        assert_eq!(window(&state, 7, later), Window::Until(77));
    }
}
