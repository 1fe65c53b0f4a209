//! The agent's access to the kernel: load and attach programs, write maps, read telemetry.
//!
//! Invariants: the agent is the only writer of the control maps; every map, program and link is
//! pinned, so enforcement outlives the process; what to write is decided by `plan` and arrives as [`Action`]s.
//! No other module of the agent uses BPF.

mod attach;
mod batch;
mod bpffs;
mod bridge;
mod clock;
mod clsact;
mod conntrack;
mod constants;
mod debug;
mod described_flow;
mod description;
mod endpoints;
mod entry_walk;
mod epochs;
mod error;
mod filters;
mod fingerprint;
mod held;
mod kernel;
mod link_queue;
mod map_sizes;
mod maps;
mod migration;
mod own_addresses;
mod pins;
mod preflight;
mod privileges;
mod programs;
mod rcu;
mod seed;
mod standing;
mod tcx;
mod tcx_query;
mod telemetry;

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
};

use ringfence_common::ids::RuleSlot;

use crate::plan::{Action, Capacities, State};

pub use attach::AttachKind;
pub use bpffs::{MOUNT_POINT, mount_bpffs};
pub use clock::Clocks;
pub use conntrack::{Conntrack, Sweep};
pub use debug::KernelLog;
pub use error::{DatapathError, Refused};
pub use held::{HeldNumbers, HeldWalk};
pub use kernel::{KernelDatapath, LoadOptions};
pub use pins::Pins;
pub use preflight::{PreflightError, check as preflight, create_pin_directory};
pub use privileges::drop_privileges;
pub use standing::{Look, Standing};
pub use tcx::detach_pinned;
pub use telemetry::{Counters, Denials, FlowEvents, Readings, Telemetry};

/// Detaches every fence and removes every pin below a directory. Returns the removed paths.
///
/// # Errors
/// When something cannot be removed; what was already removed stays removed.
pub fn remove_all(bpffs: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    for pins in pins::all_abis(bpffs)?.values() {
        kernel::remove_filters(pins)?;
    }
    pins::remove_all(bpffs)
}

/// The kernel programs, built by `build.rs`; aligned, because the loader reads them as ELF.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ringfence-ebpf"));

/// The crates that relocate the programs for the kernel, with their versions, from `build.rs`.
const LOADER: &str = env!("RINGFENCE_LOADER");

/// The kernel operations that reconcile uses; a trait, so that tests can inject failures.
pub trait Datapath {
    /// The most entries that each map can hold.
    fn capacities(&self) -> Capacities;

    /// Reads back the content of the control maps.
    ///
    /// # Errors
    /// When a map cannot be read.
    fn read(&mut self) -> Result<State, DatapathError>;

    /// Makes one write.
    ///
    /// # Errors
    /// When the kernel refuses it; earlier writes stay.
    fn write(&mut self, action: &Action) -> Result<(), DatapathError>;

    /// Makes writes in order.
    ///
    /// # Errors
    /// When the kernel refuses one; those before it stay, those after it are not tried.
    fn write_all(&mut self, actions: &[Action]) -> Result<(), Refused> {
        for (made, action) in actions.iter().enumerate() {
            self.write(action)
                .map_err(|error| Refused { made, error })?;
        }
        Ok(())
    }

    /// Interfaces with a pinned fence: adopted, attached, or of an agent with another layout.
    fn attached(&self) -> BTreeSet<u32>;

    /// Attaches both programs to an interface, or swaps the programs of a fence that is pinned
    /// there. Puts each at the head of its hook.
    ///
    /// # Errors
    /// [`DatapathError::Gone`] when the interface is gone, otherwise when the kernel refuses.
    fn attach(&mut self, ifindex: u32, interface: &str) -> Result<AttachKind, DatapathError>;

    /// As [`Self::attach`], but without its wait for two RCU grace periods where that is possible. Packets
    /// to the workload may be lost for some 0.2 ms, twice.
    ///
    /// # Errors
    /// As [`Self::attach`].
    fn attach_at_once(
        &mut self,
        ifindex: u32,
        interface: &str,
    ) -> Result<AttachKind, DatapathError> {
        self.attach(ifindex, interface)
    }

    /// Detaches the fence from an interface; no error if the fence or the interface is gone.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    fn detach(&mut self, ifindex: u32) -> Result<(), DatapathError>;

    /// A look at how each fence stands that this process attached.
    ///
    /// # Errors
    /// When the programs cannot be inspected.
    fn look(&mut self) -> Result<Look, DatapathError>;

    /// Whether the maps hold what a write has written.
    ///
    /// # Errors
    /// When a map cannot be read.
    fn holds(&mut self, write: &Action) -> Result<bool, DatapathError>;

    /// The next entries of a walk over the maps that has no end, as the writes that would make them:
    /// about this many, or the last ones of a map.
    fn next_entries(&mut self, most: usize) -> Vec<Action>;

    /// Reads the kernel programs' clocks; times in maps are relative to these.
    ///
    /// # Errors
    /// When the clock program cannot be run.
    fn clocks(&mut self) -> Result<Clocks, DatapathError>;

    /// A walk that finds the numbers that conntrack and deny aggregates hold. It fails when a map
    /// cannot be read.
    fn held_numbers(&mut self) -> HeldWalk;

    /// Removes the deny aggregates of rules and sets their hits to zero, so that their slots can be
    /// used again.
    ///
    /// # Errors
    /// When the kernel refuses a write; it can be repeated.
    fn clear_rules(&mut self, rules: &HashSet<RuleSlot>) -> Result<(), DatapathError>;

    /// The mark pinned next to conntrack: no table number from it on was ever given. `None` if the
    /// maps have none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn table_mark(&mut self) -> Result<Option<u32>, DatapathError>;

    /// Writes that mark.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn set_table_mark(&mut self, mark: u32) -> Result<(), DatapathError>;
}
