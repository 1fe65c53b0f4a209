//! The kernel side as the agent handles it: load, attach, write maps, read telemetry.
//!
//! Invariants: one writer owns the maps; every handle is pinned, so that nothing here ends when the
//! process does; what to write is decided elsewhere and arrives as [`Action`]s. This is the only
//! place in the agent that talks to BPF.

mod attach;
mod batch;
mod clock;
mod conntrack;
mod debug;
mod epochs;
mod error;
mod kernel;
mod maps;
mod pins;
mod preflight;
mod privileges;
mod telemetry;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::plan::{Action, Capacities, State};

pub use attach::AttachKind;
pub use clock::Clocks;
pub use conntrack::{Conntrack, Sweep};
pub use debug::KernelLog;
pub use error::{DatapathError, Refused};
pub use kernel::{KernelDatapath, LoadOptions};
pub use pins::Pins;
pub use preflight::{PreflightError, check as preflight};
pub use privileges::drop_privileges;
pub use telemetry::{Counters, Denials, Telemetry};

/// Takes every fence off and removes every pin below a directory. Returns what was removed.
///
/// # Errors
/// When something cannot be removed; what was removed stays removed.
pub fn remove_all(bpffs: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    kernel::remove_filters(&Pins::below(bpffs))?;
    pins::remove_all(bpffs)
}

/// The kernel programs, built by `build.rs`; aligned, because the loader reads it as ELF.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ringfence-ebpf"));

/// What reconcile needs of the kernel, so that it can be tested with injected failures.
pub trait Datapath {
    /// The most entries that each map can hold.
    fn capacities(&self) -> Capacities;

    /// Reads back what the control maps hold.
    ///
    /// # Errors
    /// When a map cannot be read.
    fn read(&mut self) -> Result<State, DatapathError>;

    /// Makes one write.
    ///
    /// # Errors
    /// When the kernel refuses it; everything written before stays.
    fn write(&mut self, action: &Action) -> Result<(), DatapathError>;

    /// Makes writes in their order.
    ///
    /// # Errors
    /// When the kernel refuses one; those before it stay, those after it were not tried.
    fn write_all(&mut self, actions: &[Action]) -> Result<(), Refused> {
        for (made, action) in actions.iter().enumerate() {
            self.write(action)
                .map_err(|error| Refused { made, error })?;
        }
        Ok(())
    }

    /// Interfaces on which a pinned fence was found or made.
    fn attached(&self) -> BTreeSet<u32>;

    /// Attaches both programs to an interface, or swaps in ours where a fence is pinned already.
    ///
    /// # Errors
    /// When the interface is gone or the kernel refuses.
    fn attach(&mut self, ifindex: u32, interface: &str) -> Result<AttachKind, DatapathError>;

    /// Takes the fence off an interface; fine if it or the interface is gone.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    fn detach(&mut self, ifindex: u32) -> Result<(), DatapathError>;

    /// What time the kernel programs have, which is what times in maps are measured by.
    ///
    /// # Errors
    /// When the clock program cannot be run.
    fn clocks(&mut self) -> Result<Clocks, DatapathError>;
}
