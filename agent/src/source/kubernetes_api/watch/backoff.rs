//! How long to wait after an error: longer and longer, and not all agents at the same time.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// The wait after the next error.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The wait after an error, at least as long as the server asks for.
    pub(super) fn after_error(&mut self, asked: Option<Duration>) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        spread(wait).max(asked.unwrap_or_default().min(2 * LONGEST))
    }

    /// Begins again after a success.
    pub(super) const fn reset(&mut self) {
        self.next = FIRST;
    }
}

/// A time between half of this one and this one, so that agents that lost one server at the same time come
/// back one after the other.
pub(super) fn spread(time: Duration) -> Duration {
    // Each of these hashers has its own keys.
    let random = RandomState::new().hash_one(0_u8) % 1024;
    let random = u32::try_from(random).unwrap_or_default();
    time / 2 + time / 2 * random / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_begin_again() {
        let mut backoff = Backoff::new();
        let mut most = FIRST;
        for _ in 0..20 {
            let wait = backoff.after_error(None);
            assert!(wait >= most / 2 && wait <= most, "{wait:?} {most:?}");
            most = (most * 2).min(LONGEST);
        }
        let asked = Duration::from_secs(40);
        assert_eq!(backoff.after_error(Some(asked)), asked);
        assert_eq!(
            backoff.after_error(Some(Duration::from_hours(9))),
            2 * LONGEST
        );
        backoff.reset();
        assert!(backoff.after_error(None) <= FIRST);
    }

    #[test]
    fn agents_do_not_wait_equally_long() {
        let waits: std::collections::BTreeSet<_> = (0..64).map(|_| spread(LONGEST)).collect();
        assert!(waits.len() > 8, "{waits:?}");
    }
}
