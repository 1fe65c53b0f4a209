//! The secret that places flows in the sets of the unreplied tables.
//!
//! Invariant: it is written once, when the map is made, and lives as long as the entries that it
//! places.

use std::{fs::File, io::Read as _};

use aya::maps::{Array, MapData};
use ringfence_common::maps as names;

use super::{
    DatapathError,
    maps::{failed, open},
    pins::Pins,
};

/// Writes the secret if there is none yet.
pub(super) fn ensure(pins: &Pins) -> Result<(), DatapathError> {
    let mut map: Array<MapData, [u64; 2]> = open(pins, names::CT_SEED)?;
    let present = map.get(&0, 0);
    if present.map_err(failed(names::CT_SEED, "read the secret"))? != [0; 2] {
        return Ok(());
    }
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .map_err(failed(names::CT_SEED, "draw a secret"))?;
    let (first, last) = bytes.split_at(8);
    let word = |half: &[u8]| {
        half.iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    map.set(0, [word(first), word(last)], 0)
        .map_err(failed(names::CT_SEED, "write the secret"))
}
