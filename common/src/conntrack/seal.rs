//! The seal: proves that the decision in an entry and the key it is used for belong together.
//!
//! A program copies an entry out of memory that another CPU may be giving to another key, so the
//! copy can be a mixture of two entries. The seal is a sum over every word of key and decision; a
//! mixture has the right one by chance only, about once in 2^64. Invariants: no order of loads or
//! stores is needed, so it holds on every processor and whatever `memcpy` the kernel uses. It is no
//! defence against chosen keys: maps compare whole keys, and so does the search of a set.

use super::{CtKey4, CtKey6};
use crate::fragment::{FragmentKey4, FragmentKey6};

/// Odd multipliers, one for each word; the fractional part of square roots of primes.
pub(crate) const WORDS: [u64; 11] = [
    0x6a09_e667_f3bc_c909,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
    0xcbbb_9d5d_c105_9ed9,
    0x629a_292a_367c_d507,
    0x9159_015a_3070_dd17,
];

/// Sum of an empty key, so that cleared memory is never sealed.
const START: u64 = 0x1524_65ad_e3c1_4c09;

/// One word's part of the sum. The shift makes high bits count below, so that differences in the
/// top bits of two words do not cancel.
#[inline(always)]
#[must_use]
pub(crate) const fn mix(word: u64, multiplier: u64) -> u64 {
    let product = word.wrapping_mul(multiplier);
    product ^ (product >> 32)
}

/// A key that an entry can be sealed for.
pub trait SealedKey {
    /// The key's part of the seal.
    fn sum(&self) -> u64;
}

#[inline(always)]
pub(super) fn pairs(words: [u32; 5]) -> [u64; 3] {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    [
        pair(words[0], words[1]),
        pair(words[2], words[3]),
        u64::from(words[4]),
    ]
}

#[inline(always)]
fn sum_of_three([a, b, c]: [u64; 3]) -> u64 {
    START
        .wrapping_add(mix(a, WORDS[0]))
        .wrapping_add(mix(b, WORDS[1]))
        .wrapping_add(mix(c, WORDS[2]))
}

#[inline(always)]
fn sum_of_six([a, b, c, d, e, f]: [u64; 6]) -> u64 {
    sum_of_three([a, b, c])
        .wrapping_add(mix(d, WORDS[3]))
        .wrapping_add(mix(e, WORDS[4]))
        .wrapping_add(mix(f, WORDS[5]))
}

impl SealedKey for CtKey4 {
    #[inline(always)]
    fn sum(&self) -> u64 {
        sum_of_three(pairs(zerocopy::transmute!(*self)))
    }
}

impl SealedKey for FragmentKey4 {
    #[inline(always)]
    fn sum(&self) -> u64 {
        sum_of_three(pairs(zerocopy::transmute!(*self)))
    }
}

impl SealedKey for FragmentKey6 {
    #[inline(always)]
    fn sum(&self) -> u64 {
        sum_of_six(zerocopy::transmute!(*self))
    }
}

impl SealedKey for CtKey6 {
    #[inline(always)]
    fn sum(&self) -> u64 {
        sum_of_six(zerocopy::transmute!(*self))
    }
}
