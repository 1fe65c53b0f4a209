//! Writes and reads many entries of one map with one system call (`BPF_MAP_UPDATE_BATCH`,
//! `BPF_MAP_LOOKUP_BATCH`), which `aya` does not wrap.
//!
//! Invariants: a batch makes the same writes in the same order as single calls, each still atomic
//! by itself; the number of writes made is known even after a failure. The cause of a failed write
//! is not reported here: the caller continues with single writes, which also covers maps without
//! batch operations (LPM tries have them since Linux 5.13).

#![allow(unsafe_code, reason = "aya has no batches and bpf(2) no safe wrapper")]

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Pod,
    maps::{IterableMap, MapData},
};

/// `BPF_MAP_LOOKUP_BATCH` in `enum bpf_cmd`.
const LOOKUP_BATCH: libc::c_int = 24;
/// `BPF_MAP_UPDATE_BATCH` in `enum bpf_cmd`.
const UPDATE_BATCH: libc::c_int = 26;
/// Entries read by one call at first.
const READ: usize = 4096;

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

/// Visits every entry of a hash map, bucket by bucket.
///
/// # Errors
/// When the kernel refuses a read; entries may have been visited before.
pub(super) fn lookup<K: Pod, V: Pod>(
    map: &impl IterableMap<K, V>,
    each: &mut dyn FnMut(&K, &V),
) -> io::Result<()> {
    let mut place = Place::default();
    while lookup_some(map, &mut place, READ, each)? {}
    Ok(())
}

/// Where a walk continues: the number of a bucket for hashes, a key for tries.
#[derive(Debug, Default)]
pub(super) struct Place(Option<Vec<u8>>);

/// Visits about this many entries of a hash or of a trie from a place on. Returns whether there are more;
/// if not, the place is the beginning again.
///
/// # Errors
/// When the kernel refuses a read; then the place is as before.
pub(super) fn lookup_some<K: Pod, V: Pod>(
    map: &impl IterableMap<K, V>,
    place: &mut Place,
    most: usize,
    each: &mut dyn FnMut(&K, &V),
) -> io::Result<bool> {
    let other_size = || io::Error::other("the map has entries of another size");
    let descriptor = descriptor::<K, V>(map.map()).ok_or_else(other_size)?;
    let mut room = most.max(1);
    loop {
        let mut keys: Vec<K> = Vec::with_capacity(room);
        let mut values: Vec<V> = Vec::with_capacity(room);
        let mut next = vec![0_u8; size_of::<K>().max(size_of::<u32>())];
        let mut attributes = Attributes {
            in_batch: place
                .0
                .as_ref()
                .map_or(0, |place| place.as_ptr().expose_provenance() as u64),
            out_batch: next.as_mut_ptr().expose_provenance() as u64,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: u32::try_from(room).unwrap_or(u32::MAX),
            map: descriptor,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel writes at most `count` keys and values of the sizes that the map has,
        // which `descriptor` compared; both vectors have room for `room` elements. It reads
        // `in_batch` and writes `out_batch`, four bytes each for hashes and a key each for tries; both
        // have room for either and outlive the call. It reads no more of the attributes than `size`.
        let refused = unsafe {
            let size = size_of::<Attributes>();
            libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attributes, size) != 0
        };
        let error = refused.then(io::Error::last_os_error);
        let cause = error.as_ref().and_then(io::Error::raw_os_error);
        match (error, cause) {
            (None, _) | (_, Some(libc::ENOENT)) => {}
            // A single bucket has more entries.
            (_, Some(libc::ENOSPC)) if room < 1 << 20 => {
                room *= 2;
                continue;
            }
            (Some(error), _) => return Err(error),
        }
        let read = room.min(attributes.count as usize);
        // SAFETY: the kernel wrote this many of both, no more than there is room for. Any bytes are
        // a valid `Pod`.
        unsafe {
            keys.set_len(read);
            values.set_len(read);
        }
        for (key, value) in keys.iter().zip(&values) {
            each(key, value);
        }
        let is_end = cause == Some(libc::ENOENT);
        place.0 = (!is_end).then_some(next);
        return Ok(!is_end);
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

/// The least room for a batch: a hash gives whole buckets, which hold a few entries.
const LEAST: usize = 1024;
/// About how many bytes of values a batch reads.
const BYTES: usize = 1 << 20;

/// Reads every entry of a hash or an array as bytes. An entry that is written meanwhile may be left
/// out; the value of an array may be a mixture of two.
pub(super) fn read(map: &MapData, mut visit: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
    let info = map.info().map_err(io::Error::other)?;
    let (key_size, value_size) = (info.key_size() as usize, info.value_size() as usize);
    // The kernel rounds the values of arrays up, but copies their own size.
    let room = LEAST.max(BYTES / value_size.max(1));
    let mut keys = vec![0u8; room * key_size];
    let mut values = vec![0u8; room * value_size];
    // A bucket number for hashes, a key for arrays.
    let mut cursor = vec![0u8; key_size.max(size_of::<u32>())];
    let mut next = cursor.clone();
    let mut is_first = true;
    loop {
        let from = if is_first {
            0
        } else {
            cursor.as_ptr().expose_provenance() as u64
        };
        let mut attributes = Attributes {
            in_batch: from,
            out_batch: next.as_mut_ptr().expose_provenance() as u64,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: u32::try_from(room).map_err(io::Error::other)?,
            map: u32::try_from(map.fd().as_fd().as_raw_fd()).map_err(io::Error::other)?,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel writes at most `count` keys and values of the map's own sizes, for
        // which both buffers have room, a cursor of at most four bytes or a key to `next`, and
        // `count`; it reads such a cursor from `cursor`. All of them outlive the call.
        let refused = unsafe {
            let size = size_of::<Attributes>();
            libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attributes, size) != 0
        };
        let error = io::Error::last_os_error();
        let is_last = refused && error.raw_os_error() == Some(libc::ENOENT);
        if refused && !is_last {
            return Err(error);
        }
        let read = (attributes.count as usize).min(room);
        let entries = keys
            .chunks_exact(key_size)
            .zip(values.chunks_exact(value_size));
        entries
            .take(read)
            .for_each(|(key, value)| visit(key, value));
        if is_last {
            return Ok(());
        }
        is_first = false;
        std::mem::swap(&mut cursor, &mut next);
    }
}
