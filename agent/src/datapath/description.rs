//! Writes this version's description of conntrack next to the maps.
//!
//! Invariant: it is there before any program of this version is attached.

use aya::maps::{Array, MapData};
use ringfence_common::{conntrack::description::Description, maps as names};

use super::{
    DatapathError,
    maps::{failed, open},
    pins::Pins,
};

/// Writes the description.
pub(super) fn write(pins: &Pins) -> Result<(), DatapathError> {
    let mut map: Array<MapData, Description> = open(pins, names::CT_DESCRIPTION)?;
    map.set(0, Description::OWN, 0)
        .map_err(failed(names::CT_DESCRIPTION, "write the description"))
}
