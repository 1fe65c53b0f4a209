//! Where a flow's entry is in the unreplied tables: a keyed hash of its key.
//!
//! Invariants: the hash is SipHash-1-3 (Aumasson and Bernstein, 2012; one round for each word and three
//! at the end), the one that Rust's own hash maps use, keyed with a secret of this boot: no workload can
//! choose flows that share a set, and flows that differ in one port alone are spread like any others.
//! Only packets of flows without an assured entry need it. It says nothing about the key's identity: a way's
//! key is compared whole.

use super::{CtKey4, CtKey6, SealedKey, seal::pairs};

/// A conntrack key.
pub trait PlacedKey: SealedKey {
    /// A keyed hash, for the place of an entry in a table. The words are read in the machine's byte
    /// order.
    fn place(&self, seed: [u64; 2]) -> u64;
}

/// The state of SipHash: `v0` to `v3`.
struct SipHash(u64, u64, u64, u64);

impl SipHash {
    /// The initial constants spell "somepseudorandomlygeneratedbytes".
    #[inline(always)]
    const fn keyed([low, high]: [u64; 2]) -> Self {
        Self(
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        )
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let Self(mut v0, mut v1, mut v2, mut v3) = self;
        v0 = v0.wrapping_add(v1);
        v2 = v2.wrapping_add(v3);
        v1 = v1.rotate_left(13) ^ v0;
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.rotate_left(32).wrapping_add(v3);
        v2 = v2.wrapping_add(v1);
        v3 = v3.rotate_left(21) ^ v0;
        v1 = v1.rotate_left(17) ^ v2;
        Self(v0, v1, v2.rotate_left(32), v3)
    }

    #[inline(always)]
    const fn absorb(mut self, word: u64) -> Self {
        self.3 ^= word;
        let mut after = self.round();
        after.0 ^= word;
        after
    }

    /// Absorbs the last word, which ends with the number of bytes.
    #[inline(always)]
    const fn finish(self, rest: u64, bytes: u64) -> u64 {
        let mut last = self.absorb(rest | bytes << 56);
        last.2 ^= 0xff;
        let Self(v0, v1, v2, v3) = last.round().round().round();
        v0 ^ v1 ^ v2 ^ v3
    }
}

impl PlacedKey for CtKey4 {
    #[inline(always)]
    fn place(&self, seed: [u64; 2]) -> u64 {
        let [a, b, c] = pairs(zerocopy::transmute!(*self));
        SipHash::keyed(seed)
            .absorb(a)
            .absorb(b)
            .finish(c, size_of::<Self>() as u64)
    }
}

impl PlacedKey for CtKey6 {
    #[inline(always)]
    fn place(&self, seed: [u64; 2]) -> u64 {
        let [a, b, c, d, e, f]: [u64; 6] = zerocopy::transmute!(*self);
        SipHash::keyed(seed)
            .absorb(a)
            .absorb(b)
            .absorb(c)
            .absorb(d)
            .absorb(e)
            .absorb(f)
            .finish(0, size_of::<Self>() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{DefaultHasher, Hasher as _};

    use zerocopy::IntoBytes as _;

    use super::*;
    use crate::{
        conntrack::unreplied::{WayWord, set_of},
        net::{Ip4, Ip6, Port},
    };

    const SETS: u32 = 4096;
    const SEEDS: [[u64; 2]; 4] = [
        [0, 0],
        [1, 0],
        [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210],
        [0x8f3d_5e21_90ab_77c4, 0x51d0_3b6e_c28f_94a7],
    ];

    fn key4(local_port: u16, peer_port: u16, peer: u16, ifindex: u32) -> CtKey4 {
        let [high, low] = peer.to_be_bytes();
        CtKey4 {
            local: Ip4::from_wire([10, 42, 0, 7]),
            peer: Ip4::from_wire([10, 42, high, low]),
            ifindex,
            local_port: Port::new(local_port),
            peer_port: Port::new(peer_port),
            protocol: 6,
            reserved: [0; 3],
        }
    }

    fn key6(local_port: u16, peer_port: u16, peer: u16, ifindex: u32) -> CtKey6 {
        let of = |part: u16| {
            let mut bytes = [0xfd; 16];
            bytes[14..].copy_from_slice(&part.to_be_bytes());
            Ip6::from_wire(bytes)
        };
        CtKey6 {
            local: of(7),
            peer: of(peer),
            ifindex,
            local_port: Port::new(local_port),
            peer_port: Port::new(peer_port),
            protocol: 17,
            reserved: [0; 7],
        }
    }

    /// What differs between flows that one client, one server or one node has at a time.
    fn varied<K>(key: impl Fn(u16, u16, u16, u32) -> K) -> Vec<(&'static str, Vec<K>)> {
        let numbers = || 0..4096_u16;
        vec![
            (
                "local port",
                numbers().map(|n| key(32_768 + n, 80, 1, 5)).collect(),
            ),
            (
                "even local port",
                numbers().map(|n| key(32_768 + 2 * n, 80, 1, 5)).collect(),
            ),
            (
                "peer port",
                numbers().map(|n| key(80, 32_768 + n, 1, 5)).collect(),
            ),
            (
                "even peer port",
                numbers().map(|n| key(80, 32_768 + 2 * n, 1, 5)).collect(),
            ),
            ("both ports", numbers().map(|n| key(n, n, 1, 5)).collect()),
            ("peer", numbers().map(|n| key(80, 443, n, 5)).collect()),
            (
                "interface",
                numbers().map(|n| key(80, 443, 1, n.into())).collect(),
            ),
        ]
    }

    /// As many flows as sets: a set of a random function has more than ten about once in 10⁴ runs, and
    /// there are about 3,900 of 32,768 tags.
    fn check_spread<K: PlacedKey>(flows: &[(&str, Vec<K>)]) {
        for seed in SEEDS {
            for (what, keys) in flows {
                let mut sets = vec![0_u32; SETS as usize];
                let mut tags = BTreeSet::new();
                for key in keys {
                    let place = key.place(seed);
                    sets[set_of(place, SETS) as usize] += 1;
                    tags.insert(WayWord::tag(place));
                }
                let fullest = sets.iter().max().copied().unwrap_or_default();
                assert!(fullest <= 10, "{what}, {seed:x?}: {fullest} in one set");
                assert!(tags.len() > 3700, "{what}, {seed:x?}: {} tags", tags.len());
            }
        }
    }

    #[test]
    fn flows_that_differ_in_one_field_are_spread_over_the_sets() {
        check_spread(&varied(key4));
        check_spread(&varied(key6));
    }

    #[test]
    fn the_hash_is_that_of_rust_s_hash_maps() {
        fn reference(bytes: &[u8]) -> u64 {
            // SipHash-1-3 with the key 0.
            let mut hasher = DefaultHasher::new();
            hasher.write(bytes);
            hasher.finish()
        }
        for n in 0..100 {
            let (four, six) = (key4(n, 7 * n, 3 * n, 11), key6(n, 5 * n, 9 * n, 13));
            assert_eq!(four.place([0, 0]), reference(four.as_bytes()));
            assert_eq!(six.place([0, 0]), reference(six.as_bytes()));
        }
    }

    #[test]
    fn each_word_of_the_seed_changes_the_place() {
        let key = key4(1, 2, 3, 4);
        let places: BTreeSet<u64> = SEEDS
            .iter()
            .chain(&[[0, 1]])
            .map(|it| key.place(*it))
            .collect();
        assert_eq!(places.len(), SEEDS.len() + 1);
    }
}
