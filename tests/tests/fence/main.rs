//! The whole agent on real interfaces: denied packets do not arrive, allowed ones do.
//!
//! Every grid of probes runs twice against the same agent and the same policies: first in
//! `observe`, where each probe must be answered (the control), then in `enforce`. Several checks
//! share a test bed, because building one and starting an agent takes most of the time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot continue should stop"
)]

mod any_kernel;
mod bridge;
mod changes;
mod clients;
mod contradictions;
mod editors;
mod exclusive;
mod failures;
mod interfaces;
mod live;
mod modes;
mod no_room;
mod node;
mod numbers;
mod originators;
mod peers;
mod ports;
mod presence;
mod refused;
mod rejects;
mod renames;
mod restarts;
mod start;
mod surfaces;
mod testbed;
mod translated;
mod tunnels;
mod unfenced;
mod upgrade;
mod verification;
mod world;
