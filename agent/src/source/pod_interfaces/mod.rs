//! The interfaces of this node that the addresses of its pods are behind, found and watched by netlink.
//!
//! A cluster's network gives each pod an interface on its node, and does not say which. The kernel knows: it
//! has a route to each address, or a bridge that has learned its port. The search has its own thread, because
//! the kernel's answers wait for its lock over all interfaces. Invariants: no error of netlink ends it; what a
//! lost notice was about is looked up again after [`RESYNC`]. It does not know which pod an address is of.

mod lookup;
mod message;
mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time;
use tracing::warn;

use crate::netlink::message::messages;
use crate::netlink::request::{DATAGRAM, open};
use lookup::Netlink;
use search::Search;

/// The interval of lookups without a notice.
pub const RESYNC: Duration = Duration::from_secs(5);
/// The pause after a pass, so that a flood of notices leaves a processor to others.
const PAUSE: Duration = Duration::from_millis(2);
/// The groups of links, neighbours and both families' routes, as bits (`RTMGRP_LINK`, `RTMGRP_NEIGH`,
/// `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_ROUTE`).
const GROUPS: u32 = 0x1 | 0x4 | 0x40 | 0x400;
/// Room for notices, in bytes.
const NOTICES: usize = 4 << 20;

/// What a search has found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundInterfaces {
    /// The interface that each address is behind.
    pub names: BTreeMap<IpAddr, String>,
    /// The addresses of which it is known whether they have one.
    pub settled: BTreeSet<IpAddr>,
}

/// The search for interfaces of pods. It ends when this value is dropped.
#[derive(Debug)]
pub struct PodInterfaces {
    wanted: watch::Sender<BTreeSet<IpAddr>>,
    found: watch::Receiver<FoundInterfaces>,
}

impl PodInterfaces {
    /// Starts a search in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the system has no socket or thread for it.
    pub fn start() -> io::Result<Self> {
        let socket = open(GROUPS)?;
        // More than the system's limit is for the privileged, and less is no fault: see `RESYNC`.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &NOTICES);
        let (wanted, of_wanted) = watch::channel(BTreeSet::new());
        let (of_found, found) = watch::channel(FoundInterfaces::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("pod-interfaces".to_owned())
            .spawn(move || runtime.block_on(run(socket, of_wanted, of_found)))?;
        Ok(Self { wanted, found })
    }

    /// Looks for the interfaces of these addresses from now on.
    pub fn look_for(&self, addresses: BTreeSet<IpAddr>) {
        self.wanted.send_if_modified(|wanted| {
            let differs = *wanted != addresses;
            if differs {
                *wanted = addresses;
            }
            differs
        });
    }

    /// Waits until something else is found, and returns it. Safe to cancel.
    ///
    /// # Errors
    /// When the thread has ended, which no error of netlink brings about.
    pub async fn changed(&mut self) -> io::Result<FoundInterfaces> {
        let ended = |_| io::Error::other("the search for interfaces of pods ended");
        self.found.changed().await.map_err(ended)?;
        Ok(self.found.borrow_and_update().clone())
    }
}

/// Searches until the other end is dropped.
async fn run(
    socket: OwnedFd,
    mut wanted: watch::Receiver<BTreeSet<IpAddr>>,
    found: watch::Sender<FoundInterfaces>,
) {
    let socket = match register(socket) {
        Ok(socket) => socket,
        Err(error) => {
            warn!("the search for interfaces of pods cannot wait for notices: {error}");
            return;
        }
    };
    let mut search = Search::default();
    let mut resync = time::interval(RESYNC);
    let mut buffer = vec![0; DATAGRAM];
    let mut logged: Option<String> = None;
    loop {
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                search.look_for(wanted.borrow_and_update().clone());
            }
            _ = resync.tick() => search.look_again(),
            ready = socket.readable() => {
                if let Ok(mut ready) = ready {
                    read_notices(socket.get_ref(), &mut buffer, &mut search);
                    ready.clear_ready();
                }
            }
        }
        if !search.is_due() {
            continue;
        }
        let (has_changed, failure) = search.pass(&mut Netlink, Instant::now());
        let failure = failure.map(|error| error.to_string());
        if let Some(failure) = failure.as_ref().filter(|_| failure != logged) {
            warn!("cannot look up interfaces of pods: {failure}; they are looked up again");
        }
        logged = failure;
        if has_changed {
            found.send_replace(search.found());
        }
        time::sleep(PAUSE).await;
    }
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe because a value could change its descriptor; an OwnedFd keeps its \
              descriptor for its lifetime and nothing here replaces it"
)]
fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, tokio::io::Interest::READABLE)
}

/// Reads the notices that are there. If some were lost, everything is looked up.
fn read_notices(socket: &OwnedFd, buffer: &mut [u8], search: &mut Search) {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                let datagram = buffer.get(..length).unwrap_or_default();
                for message in messages(datagram) {
                    if let Some(notice) = message::notice(&message, &search.wanted) {
                        search.notice(notice);
                    }
                }
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return,
            Err(_) => {
                search.look_again();
                return;
            }
        }
    }
}
