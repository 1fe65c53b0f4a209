//! The constants that the kernel programs are loaded with.
//!
//! Invariant: one list is written into the object's `.rodata` and covered by the fingerprint
//! ([`super::fingerprint`]), so a constant cannot be in one and not in the other.

use aya::EbpfLoader;
use zerocopy::{Immutable, IntoBytes};

/// Names and values, in the machine's byte order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Constants(Vec<(&'static str, Vec<u8>)>);

impl Constants {
    /// Adds a constant of the object.
    pub(super) fn add(&mut self, name: &'static str, value: &(impl IntoBytes + Immutable)) {
        self.0.push((name, value.as_bytes().to_vec()));
    }

    /// Each with its bytes, in the order in which they were added.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (*name, bytes.as_slice()))
    }

    /// Has the loader write them; it fails if the object lacks one, or has it with another size.
    pub(super) fn write<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (name, bytes) in self.each() {
            loader.override_global(name, bytes, true);
        }
    }
}
