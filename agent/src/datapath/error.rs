//! Errors between the agent and the kernel.

use std::path::PathBuf;

/// A failed kernel operation; where possible, the message names a remedy.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The object could not be loaded.
    #[error(
        "cannot load the kernel programs: {0}; the kernel must be 5.12 or newer with BTF, and the agent needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    Load(String),
    /// The verifier refused a program.
    #[error(
        "the kernel refused the program {program}: {reason}; please report this with `uname -r`"
    )]
    Program {
        /// Its name.
        program: &'static str,
        /// The kernel's error.
        reason: String,
    },
    /// The object lacks a map.
    #[error(
        "the kernel object has no map {0}: agent and object are of different builds; rebuild with `cargo xtask build`"
    )]
    NoSuchMap(&'static str),
    /// A map operation failed.
    #[error("map {map}: cannot {operation}: {reason}")]
    Map {
        /// The map.
        map: &'static str,
        /// The operation that failed.
        operation: &'static str,
        /// The kernel's error.
        reason: String,
    },
    /// A pinned map has another capacity than the configuration.
    #[error(
        "the pinned map {map} has capacity {found}, but {wanted} is configured: run `ringfence cleanup` and start again, or restore the old value under [maps]"
    )]
    PinnedCapacity {
        /// The map.
        map: &'static str,
        /// The pinned map's capacity.
        found: u32,
        /// The configured capacity.
        wanted: u32,
    },
    /// An interface could not be fenced.
    #[error("interface {interface} (index {ifindex}): cannot {operation}: {reason}")]
    Attach {
        /// Its name.
        interface: String,
        /// Its index.
        ifindex: u32,
        /// The operation that failed.
        operation: &'static str,
        /// The kernel's error.
        reason: String,
    },
    /// The interface went away before it was fenced.
    #[error("interface {interface} (index {ifindex}) is gone")]
    Gone {
        /// Its last known name.
        interface: String,
        /// Its index.
        ifindex: u32,
    },
    /// A pin could not be created, listed or removed.
    #[error("{}: cannot {operation}: {reason}; check that bpffs is mounted there and writable", path.display())]
    Pin {
        /// Its path.
        path: PathBuf,
        /// The operation that failed.
        operation: &'static str,
        /// The system's error.
        reason: String,
    },
    /// The kernel's clocks could not be read.
    #[error("cannot read the kernel's clocks: {0}")]
    Clock(String),
    /// Privileges could not be dropped.
    #[error("cannot drop privileges: {0}")]
    Privileges(String),
}

/// A write that the kernel refused, and how many writes of the same list were made before it.
#[derive(Debug)]
pub struct Refused {
    /// The writes made before it.
    pub made: usize,
    /// Why it was refused.
    pub error: DatapathError,
}

/// The whole chain of an error's causes on one line: aya has the kernel's error in `source`.
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
    shortened(text)
}

/// Characters of a long text that are kept, from its beginning and from its end.
const BEGINNING: usize = 500;
const END: usize = 1500;

/// A text without its middle if it is long: the verifier says last what it refuses.
fn shortened(text: String) -> String {
    let count = text.chars().count();
    if count <= BEGINNING + END {
        return text;
    }
    let beginning: String = text.chars().take(BEGINNING).collect();
    let end: String = text.chars().skip(count - END).collect();
    format!("{beginning} … {end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        let short = "x".repeat(BEGINNING + END);
        assert_eq!(shortened(short.clone()), short);
        let long = format!("refused: {}the stack is too large", "é".repeat(5000));
        let kept = shortened(long);
        assert!(kept.starts_with("refused: é") && kept.ends_with("éthe stack is too large"));
        assert_eq!(kept.chars().count(), BEGINNING + END + 3);
    }
}
