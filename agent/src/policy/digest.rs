//! The name of a content: the first half of SHA-256 over its fields.
//!
//! Invariant: the digest of a value is the same on every machine and in every run; ledgers contain
//! it.

use std::hash::{Hash, Hasher};

use sha2::{Digest as _, Sha256};

/// First sixteen bytes of SHA-256 over the fields of a value, in the order of its `Hash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u128);

/// Feeds the fields of a value to SHA-256, with integers in one byte order.
struct Into256(Sha256);

impl Hasher for Into256 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn write_u16(&mut self, number: u16) {
        self.0.update(number.to_le_bytes());
    }

    fn write_u32(&mut self, number: u32) {
        self.0.update(number.to_le_bytes());
    }

    fn write_u64(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn write_u128(&mut self, number: u128) {
        self.0.update(number.to_le_bytes());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    /// Unused: the digest is taken from the whole sum.
    fn finish(&self) -> u64 {
        0
    }
}

/// The digest of a value whose `Hash` covers everything that its `Eq` compares: derived, over
/// sorted collections. Derived hashes include lengths and variants, so different values have
/// different input.
pub(crate) fn digest_of(value: &impl Hash) -> Digest {
    let mut hasher = Into256(Sha256::new());
    value.hash(&mut hasher);
    let bytes: [u8; 32] = hasher.0.finalize().into();
    Digest(
        bytes
            .iter()
            .take(16)
            .fold(0, |sum, byte| (sum << 8) | u128::from(*byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_depend_on_content_alone() {
        assert_eq!(digest_of(&vec!["a", "b"]), digest_of(&vec!["a", "b"]));
        assert_ne!(digest_of(&vec!["a", "b"]), digest_of(&vec!["b", "a"]));
        assert_ne!(digest_of(&("ab", "c")), digest_of(&("a", "bc")));
        assert_ne!(
            digest_of(&(vec![1], vec![2, 3])),
            digest_of(&(vec![1, 2], vec![3]))
        );
        // Ledgers of this version contain it.
        let known = Digest(0x9d6f_66dc_ed34_52cf_5f0a_ac2e_e5f4_b051);
        assert_eq!(digest_of(&("namespace", "shop")), known);
    }
}
