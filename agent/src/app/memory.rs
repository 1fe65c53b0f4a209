//! Returns memory to the kernel after a large file was read.
//!
//! Parsing an inventory takes more memory than its content needs, and glibc keeps the free memory
//! between the allocations that remain. Other allocators are left alone.

#![allow(unsafe_code, reason = "malloc_trim has no safe wrapper")]

/// Returns glibc's free memory to the kernel; takes a few milliseconds.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number and no pointer, locks each arena while working in it, and touches
    // only memory that the allocator holds as free.
    unsafe {
        libc::malloc_trim(0);
    }
}
