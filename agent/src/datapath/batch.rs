//! Many entries of one map in one system call (`BPF_MAP_UPDATE_BATCH`), which `aya` does not wrap.
//!
//! Invariants: a batch is a shorter way to the same writes in the same order, each still atomic by
//! itself; how many were made is known whatever the outcome. Why an entry was refused is not told
//! here: whoever asked goes on with single writes from there, and so with maps that have no batches
//! (tries have them since Linux 5.13).

#![allow(unsafe_code, reason = "aya has no batches and bpf(2) no safe wrapper")]

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::{
    Pod,
    maps::{IterableMap, MapData},
};

/// `BPF_MAP_UPDATE_BATCH` in `enum bpf_cmd`.
const UPDATE_BATCH: libc::c_int = 26;

/// What batches use of `union bpf_attr`.
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

/// Writes these entries until the kernel refuses one; returns how many it took.
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
    // live until after the call and have `count` elements of these sizes, which `descriptor`
    // compared. It writes nothing but `count`, and reads as much of the attributes as it is told.
    let refused = unsafe {
        let size = size_of::<Attributes>();
        libc::syscall(libc::SYS_bpf, UPDATE_BATCH, &raw mut attributes, size) != 0
    };
    match (refused, attributes.count as usize) {
        (false, _) => entries.len(),
        (true, made) if made < entries.len() => made,
        // Before it looks at the first entry, a kernel may refuse without touching the count.
        (true, _) => 0,
    }
}

/// The descriptor of a map whose keys and values have the sizes of these types.
fn descriptor<K, V>(map: &MapData) -> Option<u32> {
    let info = map.info().ok()?;
    let fits =
        info.key_size() as usize == size_of::<K>() && info.value_size() as usize == size_of::<V>();
    u32::try_from(map.fd().as_fd().as_raw_fd())
        .ok()
        .filter(|_| fits)
}
