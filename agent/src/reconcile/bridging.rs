//! Which new fences are to be in force at once, although packets may be lost then.
//!
//! A fence that is attached at once begins as filters of a clsact qdisc. Invariants: in `observe` nothing is
//! ever lost, so those fences are attached the slow way; where the CNI plugin `bandwidth` is in use, which
//! adds an ingress qdisc to a new interface and fails if another one is in its place, all are.

use ringfence_common::{endpoint::Endpoint, mode::Mode};

use crate::{plan::State, source::interfaces::Links};

/// What is known of the node.
#[derive(Debug, Default)]
pub(super) struct Bridging {
    /// An interface of the plugin `bandwidth` was seen.
    is_shaped: bool,
}

impl Bridging {
    /// Looks for devices of the plugin `bandwidth`, which creates one before it adds a qdisc to the
    /// workload's interface.
    pub(super) fn look(&mut self, links: &Links) {
        self.is_shaped |= links.any(|link| link.kind == "ifb" && link.name.starts_with("bwp"));
    }

    /// Whether an endpoint's fence is to be in force at once, given the state in the maps.
    pub(super) fn is_for(&self, endpoint: &Endpoint, state: &State) -> bool {
        let namespace = state.modes.get(&endpoint.namespace());
        let namespace = namespace.copied().unwrap_or(Mode::Enforce);
        let mode = Mode::effective(endpoint.mode_override, namespace as u8);
        !self.is_shaped && mode != Mode::Observe
    }
}
