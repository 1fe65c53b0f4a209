//! Writes many entries of one map with one system call (`BPF_MAP_UPDATE_BATCH`), which `aya` does
//! not wrap.
//!
//! Invariants: a batch makes the same writes in the same order as single calls, each still atomic
//! by itself; the number of writes made is known even after a failure. The cause of a failure is
//! not reported here: the caller continues with single writes, which also covers maps without batch
//! operations (LPM tries have them since Linux 5.13).

#![allow(unsafe_code, reason = "aya has no batches and bpf(2) no safe wrapper")]

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::{
    Pod,
    maps::{IterableMap, MapData},
};

/// `BPF_MAP_UPDATE_BATCH` in `enum bpf_cmd`.
const UPDATE_BATCH: libc::c_int = 26;

/// The part of `union bpf_attr` that batch operations use.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Writes entries until the kernel refuses one; returns how many were written.
pub(super) fn update<K: Pod, V: Pod>(map: &impl IterableMap<K, V>, entries: &[(K, V)]) -> usize {
    let keys: Vec<K> = entries.iter().map(|(key, _)| *key).collect();
    let values: Vec<V> = entries.iter().map(|(_, value)| *value).collect();
    let Ok(count) = u32::try_from(entries.len()) else {
        return 0;
    };
    let Some(map) = descriptor::<K, V>(map.map()) else {
        return 0;
    };
    let mut attributes = Attributes {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr().expose_provenance() as u64,
        values: values.as_ptr().expose_provenance() as u64,
        count,
        map,
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `count` keys and values of the sizes that the map has; both vectors
    // outlive the call and have `count` elements of these sizes, which `descriptor` compared. It
    // writes nothing but `count`, and reads no more of the attributes than `size`.
    let refused = unsafe {
        let size = size_of::<Attributes>();
        libc::syscall(libc::SYS_bpf, UPDATE_BATCH, &raw mut attributes, size) != 0
    };
    match (refused, attributes.count as usize) {
        (false, _) => entries.len(),
        (true, made) if made < entries.len() => made,
        // A kernel that refuses before the first entry may leave the count unchanged.
        (true, _) => 0,
    }
}

/// The map's file descriptor, if its keys and values have the sizes of these types.
fn descriptor<K, V>(map: &MapData) -> Option<u32> {
    let info = map.info().ok()?;
    let fits =
        info.key_size() as usize == size_of::<K>() && info.value_size() as usize == size_of::<V>();
    u32::try_from(map.fd().as_fd().as_raw_fd())
        .ok()
        .filter(|_| fits)
}
