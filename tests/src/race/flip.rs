//! A setting with two states that the writing thread changes, and of which the packet thread knows
//! when it is settled.
//!
//! A packet's verdict is known if the setting was settled in one state when its run began and
//! neither left that state nor came back to it before the run ended.

use std::sync::atomic::{AtomicU64, Ordering};

const CHANGING: u64 = 0;
const FIRST: u64 = 1;
const SECOND: u64 = 2;
/// The low bits are the state, the others count the changes.
const STATE: u64 = 3;

/// The setting's state and its number of changes.
#[derive(Debug)]
pub(super) struct Flip(AtomicU64);

/// A reading of a [`Flip`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading(u64);

impl Flip {
    /// Settled in the first state.
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(FIRST))
    }

    /// Call before the first write of a change.
    pub(super) fn begin(&self) {
        let next = (self.0.load(Ordering::SeqCst) | STATE) + 1;
        self.0.store(next | CHANGING, Ordering::SeqCst);
    }

    /// Call after the last write of a change.
    pub(super) fn settle(&self, second: bool) {
        let state = if second { SECOND } else { FIRST };
        let changes = self.0.load(Ordering::SeqCst) & !STATE;
        self.0.store(changes | state, Ordering::SeqCst);
    }

    /// The current state.
    pub(super) fn read(&self) -> Reading {
        Reading(self.0.load(Ordering::SeqCst))
    }
}

impl Reading {
    /// Whether the setting is in its second state; `None` while it changes.
    pub(super) const fn is_second(self) -> Option<bool> {
        match self.0 & STATE {
            FIRST => Some(false),
            SECOND => Some(true),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_and_back_is_no_constant_state() {
        let flip = Flip::new();
        let before = flip.read();
        assert_eq!(before.is_second(), Some(false));
        flip.begin();
        assert_eq!(flip.read().is_second(), None);
        flip.settle(true);
        assert_eq!(flip.read().is_second(), Some(true));
        flip.begin();
        flip.settle(false);
        assert_eq!(flip.read().is_second(), Some(false));
        assert_ne!(flip.read(), before);
    }
}
