//! Everything the kernel programs and the agent share: the layout of every map, and every decision
//! that needs no kernel (policy lookup, conntrack, verdict × mode, packet parsing).
//!
//! Invariants: `no_std`, no allocation, no panics. Shared structs are `#[repr(C)]`, fully padded
//! and asserted at compile time. Addresses and ports are in network byte order, in types that say
//! so. Times are nanoseconds: of the kernel's boot clock for points in time, of its tick clock for
//! durations. This crate does no I/O and holds no state.
#![cfg_attr(not(test), no_std)]

pub mod conntrack;
pub mod deny_aggregate;
pub mod drop_reason;
pub mod endpoint;
pub mod event;
pub mod fragment;
pub mod ids;
pub mod ipcache;
mod layout;
pub mod maps;
pub mod mode;
pub mod net;
pub mod packet;
pub mod policy;
pub mod quota;
pub mod reject;
pub mod stats;

/// Layout version of everything that is pinned; part of the pin path, so that two incompatible
/// agents never share a map. Bump it with every change of a map's key, value or meaning.
pub const ABI_VERSION: u32 = 8;

/// Nanoseconds in a second, the unit of every time in a map.
pub const SECOND: u64 = 1_000_000_000;
