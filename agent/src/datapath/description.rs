//! Writes this version's description of conntrack next to the maps.
//!
//! Invariant: it is there before any program of this version is attached.

use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use ringfence_common::{conntrack::description::Description, maps as names};

use super::{
    DatapathError,
    maps::{failed, take},
};

/// Writes the description.
pub(super) fn write(ebpf: &mut Ebpf) -> Result<(), DatapathError> {
    let mut map: Array<MapData, Description> = take(ebpf, names::CT_DESCRIPTION)?;
    map.set(0, Description::OWN, 0)
        .map_err(failed(names::CT_DESCRIPTION, "write the description"))
}
