//! Nonces: how a probe recognises its own payload, at the server and when it is echoed.
//!
//! A message is a 16-byte header (magic, nonce) and, for datagrams, padding derived from the
//! nonce, so that a corrupted or mixed-up payload is detected.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Length of a message's header, and of a whole message on a TCP connection.
pub const HEADER: usize = 16;

const MAGIC: [u8; 8] = *b"rf-probe";

/// A number unique to one probe in this process, and unlikely to occur elsewhere by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce(u64);

impl Nonce {
    /// A new nonce.
    #[must_use]
    pub fn fresh() -> Self {
        static BASE: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(BASE.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The header that carries this nonce.
    #[must_use]
    pub fn header(self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let (magic, number) = header.split_at_mut(MAGIC.len());
        magic.copy_from_slice(&MAGIC);
        number.copy_from_slice(&self.0.to_be_bytes());
        header
    }

    /// A message of `size` bytes, at least a header.
    #[must_use]
    pub fn message(self, size: usize) -> Vec<u8> {
        let mut message = self.header().to_vec();
        let padding = self.0.to_le_bytes().into_iter().cycle();
        message.extend(padding.take(size.saturating_sub(HEADER)));
        message
    }

    /// The nonce at the start of `message`, if one is there.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let number = message.strip_prefix(&MAGIC)?.first_chunk()?;
        Some(Self(u64::from_be_bytes(*number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_its_nonce() {
        let nonce = Nonce::fresh();
        assert_ne!(nonce, Nonce::fresh());
        assert_eq!(nonce.message(0).len(), HEADER);
        assert_eq!(Nonce::parse(&nonce.message(4000)), Some(nonce));
        assert_eq!(Nonce::parse(b"rf-probe"), None);
        assert_eq!(Nonce::parse(b"something else, long"), None);
    }
}
