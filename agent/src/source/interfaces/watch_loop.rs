//! The loop of the watch: waits for notices, lists the links, and publishes them if they differ.
//!
//! Invariants: no error ends it; after an error everything is listed again, later and later until it
//! succeeds, and what is published says so when it has not for about a second; the same error is logged
//! once a minute at most. Sockets are in `route_socket`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{Link, LinkAddresses, Links};

/// The interval of lists without a notice: a lost one leaves an interface without a fence for at most
/// this long.
pub const RESYNC: Duration = Duration::from_secs(5);
/// How soon the loop sees that no receiver is left.
const TICK: Duration = Duration::from_secs(1);
/// The delay after an error, and after many.
const BACKOFF: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(1)];
/// How long an error is not logged again.
const LOGGED_FOR: Duration = Duration::from_mins(1);
/// How many links that left are remembered: the last ones, as indices grow.
const MOST_LEFT: usize = 1024;
/// How often a list is repeated because links changed in its course.
const REPEATS: usize = 3;

/// A list of links.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) links: BTreeMap<u32, Link>,
    /// Links changed in its course, so that it may lack some.
    pub(super) is_interrupted: bool,
}

/// What the loop needs of the kernel; a trait, so that tests can inject failures.
pub(super) trait Netlink {
    /// Subscribes to notices, again after an error.
    fn subscribe(&mut self) -> io::Result<()>;

    /// Waits at most this long for notices, and reads all of them; returns whether there were any. Adds
    /// the links that left for another network namespace.
    fn notices(&mut self, most: Duration, left: &mut BTreeSet<u32>) -> io::Result<bool>;

    /// Lists every link.
    fn list(&mut self) -> io::Result<Listing>;

    /// Lists the addresses of all links, and whether they changed in the course of it.
    fn addresses(&mut self) -> io::Result<(LinkAddresses, bool)>;

    /// Lists the devices of default routes, unless they may be fenced.
    fn uplinks(&mut self) -> io::Result<BTreeSet<u32>>;
}

/// The loop.
pub(super) struct WatchLoop<N> {
    netlink: N,
    links: watch::Sender<Arc<Links>>,
    is_subscribed: bool,
    /// The last list may be out of date.
    is_stale: bool,
    /// The last pass listed all links and addresses, if it listed any. Routes may still have failed.
    is_listed: bool,
    next_resync: Instant,
    uplinks: BTreeSet<u32>,
    left: BTreeSet<u32>,
    backoff: Duration,
    logged: Option<(String, Instant)>,
}

impl<N: Netlink> WatchLoop<N> {
    pub(super) fn new(netlink: N, links: watch::Sender<Arc<Links>>) -> Self {
        Self {
            netlink,
            links,
            is_subscribed: false,
            is_stale: true,
            is_listed: false,
            next_resync: Instant::now(),
            uplinks: BTreeSet::new(),
            left: BTreeSet::new(),
            backoff: BACKOFF[0],
            logged: None,
        }
    }

    /// Runs until no receiver is left.
    pub(super) fn run(mut self) {
        while !self.links.is_closed() {
            if let Some(delay) = self.step(Instant::now()) {
                std::thread::sleep(delay);
            }
        }
    }

    /// Waits for notices and lists the links if necessary. Returns how long to wait after an error.
    fn step(&mut self, now: Instant) -> Option<Duration> {
        match self.pass(now) {
            Ok(()) => None,
            Err(error) => {
                self.is_stale = true;
                self.log(&error, now);
                let delay = self.backoff;
                self.backoff = (delay * 2).min(BACKOFF[1]);
                if delay == BACKOFF[1] && !self.is_listed {
                    self.show(&error);
                }
                Some(delay)
            }
        }
    }

    fn pass(&mut self, now: Instant) -> io::Result<()> {
        self.is_listed = false;
        if !self.is_subscribed {
            self.netlink.subscribe()?;
            self.is_subscribed = true;
            self.is_stale = true;
        }
        if !self.is_stale {
            let most = self.next_resync.saturating_duration_since(now).min(TICK);
            let noticed = self.netlink.notices(most, &mut self.left);
            let noticed = noticed.inspect_err(|error| {
                // The kernel had no room for notices; the subscription itself is fine.
                self.is_subscribed = error.raw_os_error() == Some(libc::ENOBUFS);
            })?;
            self.is_stale = noticed || now >= self.next_resync;
        }
        if self.is_stale {
            self.list(now)?;
            self.is_stale = false;
            if self.backoff > BACKOFF[0] {
                info!("interfaces are listed again");
            }
            self.backoff = BACKOFF[0];
        }
        Ok(())
    }

    fn list(&mut self, now: Instant) -> io::Result<()> {
        let mut outcome = Ok(());
        // Routes may be many, so a notice of a link is no reason to list them.
        if now >= self.next_resync {
            match self.netlink.uplinks() {
                Ok(uplinks) => {
                    self.uplinks = uplinks;
                    self.next_resync = now + RESYNC;
                }
                // It must not hold back the fences of new interfaces.
                Err(error) => outcome = Err(error),
            }
        }
        let mut listing = self.netlink.list()?;
        for _ in 0..REPEATS {
            if !listing.is_interrupted {
                break;
            }
            listing = self.netlink.list()?;
        }
        let mut links = Links::new(listing.links);
        links.uplinks = self.uplinks.clone();
        self.left.retain(|index| links.get(*index).is_none());
        while self.left.len() > MOST_LEFT {
            self.left.pop_first();
        }
        links.left = self.left.clone();
        if listing.is_interrupted {
            links.keep(&self.links.borrow());
        }
        let mut is_listed = true;
        match self.addresses() {
            Ok(addresses) => links.addresses = addresses,
            // Without a list before, the node would have no addresses.
            Err(error) if **self.links.borrow() == Links::default() => return Err(error),
            Err(error) => {
                let before = self.links.borrow();
                links.addresses = before.addresses.clone();
                links.failure.clone_from(&before.failure);
                outcome = Err(error);
                is_listed = false;
            }
        }
        self.is_listed = is_listed;
        self.links.send_if_modified(|published| {
            let differs = **published != links;
            if differs {
                *published = Arc::new(links);
            }
            differs
        });
        outcome
    }

    /// The addresses of the links, and those of the list before if one was missed again and again.
    fn addresses(&mut self) -> io::Result<LinkAddresses> {
        let mut listed = self.netlink.addresses()?;
        for _ in 0..REPEATS {
            if !listed.1 {
                return Ok(listed.0);
            }
            listed = self.netlink.addresses()?;
        }
        let (mut addresses, is_interrupted) = listed;
        if is_interrupted {
            addresses.extend(self.links.borrow().addresses.clone());
        }
        Ok(addresses)
    }

    /// Shows with the links of before that they may be out of date. A start waits for its first list.
    fn show(&self, error: &io::Error) {
        self.links.send_if_modified(|published| {
            if published.failure.is_some() || **published == Links::default() {
                return false;
            }
            let mut links = Links::clone(published);
            links.failure = Some(error.to_string());
            *published = Arc::new(links);
            true
        });
    }

    fn log(&mut self, error: &io::Error, now: Instant) {
        let text = error.to_string();
        if let Some((logged, at)) = &self.logged
            && *logged == text
            && now.saturating_duration_since(*at) < LOGGED_FOR
        {
            return;
        }
        warn!("watching interfaces: {text}; all are listed again");
        self.logged = Some((text, now));
    }
}

#[cfg(test)]
mod tests;
