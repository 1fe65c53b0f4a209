//! What can go wrong between the agent and the kernel.

use std::path::PathBuf;

/// A failed operation on the kernel side, with a remedy.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The object could not be loaded.
    #[error(
        "cannot load the kernel programs: {0}; the kernel must be 5.10 or newer with BTF, and the agent needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    Load(String),
    /// The verifier refused a program.
    #[error(
        "the kernel refused the program {program}: {reason}; please report this with `uname -r`"
    )]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// The object lacks a map.
    #[error(
        "the kernel object has no map {0}: agent and object do not belong together, rebuild with `cargo xtask build`"
    )]
    NoSuchMap(&'static str),
    /// A map operation failed.
    #[error("map {map}: cannot {operation}: {reason}")]
    Map {
        /// The map.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// A pinned map has another shape than the configuration asks for.
    #[error(
        "the pinned map {map} holds {found} entries but the configuration asks for {wanted}: run `ringfence cleanup` and start again, or set it back under [maps]"
    )]
    PinnedCapacity {
        /// The map.
        map: &'static str,
        /// As pinned.
        found: u32,
        /// As configured.
        wanted: u32,
    },
    /// An interface could not be fenced.
    #[error("interface {interface} (index {ifindex}): cannot {operation}: {reason}")]
    Attach {
        /// Its name.
        interface: String,
        /// Its index.
        ifindex: u32,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        reason: String,
    },
    /// A pin could not be made, listed or removed.
    #[error("{}: cannot {operation}: {reason}; check that bpffs is mounted there and writable", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The kernel's clocks could not be read.
    #[error("cannot read the kernel's clocks: {0}")]
    Clock(String),
    /// Privileges could not be given up.
    #[error("cannot drop privileges: {0}")]
    Privileges(String),
}

/// A write that the kernel refused, and how many of the same list were made before it.
#[derive(Debug)]
pub struct Refused {
    /// How many.
    pub made: usize,
    /// Why.
    pub error: DatapathError,
}

/// The whole chain of an error's causes on one line: aya hides the kernel's word in the source.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text.truncate(
        text.char_indices()
            .nth(2000)
            .map_or(text.len(), |(at, _)| at),
    );
    text
}
