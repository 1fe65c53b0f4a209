//! How glibc is to handle memory; other allocators are left alone.
//!
//! Parsing an inventory of ten thousand workloads takes three times the memory that its content
//! needs, in a million small pieces. glibc keeps what lies between the pieces that stay, and puts small
//! free pieces on lists of their own that it has to sort out again and again.

#![allow(unsafe_code, reason = "mallopt and malloc_trim have no safe wrappers")]

/// To be called before there is another thread. Without lists of small free pieces an inventory is read
/// in two thirds of the time.
pub(super) fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers and no pointer; no other thread allocates.
    unsafe {
        libc::mallopt(libc::M_MXFAST, 0);
    }
}

/// Returns free memory to the kernel; takes a few milliseconds.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number and no pointer, locks each arena while it works in it, and touches
    // only memory that the allocator holds as free.
    unsafe {
        libc::malloc_trim(0);
    }
}
