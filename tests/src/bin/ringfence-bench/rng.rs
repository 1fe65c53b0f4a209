//! A small random number generator (splitmix64): a seed gives the same numbers everywhere.

/// The generator with its state.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    /// A number below a bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let drawn = (word ^ (word >> 31)) % (bound.max(1) as u64);
        usize::try_from(drawn).unwrap_or(0)
    }

    /// One of these texts.
    pub(crate) fn one<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all.get(self.below(all.len())).copied().unwrap_or("")
    }

    /// The items in random order.
    pub(crate) fn shuffled<T>(&mut self, mut all: Vec<T>) -> Vec<T> {
        for last in (1..all.len()).rev() {
            let other = self.below(last + 1);
            all.swap(last, other);
        }
        all
    }
}
