//! The loop of the watch: waits for notices, lists the links, and publishes them if they differ.
//!
//! Invariants: no error ends it; after an error everything is listed again, later and later until it
//! succeeds; the same error is logged once a minute at most. Sockets are in `route_socket`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{Link, Links};

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
                Some(delay)
            }
        }
    }

    fn pass(&mut self, now: Instant) -> io::Result<()> {
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
        self.links.send_if_modified(|published| {
            let differs = **published != links;
            if differs {
                *published = Arc::new(links);
            }
            differs
        });
        outcome
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
mod tests {
    use std::{cell::RefCell, collections::VecDeque, rc::Rc};

    use super::*;

    /// A kernel that answers as it is told, and then as usual.
    #[derive(Default)]
    struct Kernel {
        names: BTreeMap<String, u32>,
        subscriptions: usize,
        lists: usize,
        refusals: VecDeque<i32>,
        lost: VecDeque<i32>,
        interrupted: usize,
        noticed: bool,
        uplinks: BTreeSet<u32>,
        leaving: BTreeSet<u32>,
    }

    #[derive(Clone, Default)]
    struct Fake(Rc<RefCell<Kernel>>);

    impl Netlink for Fake {
        fn subscribe(&mut self) -> io::Result<()> {
            self.0.borrow_mut().subscriptions += 1;
            Ok(())
        }

        fn notices(&mut self, _: Duration, left: &mut BTreeSet<u32>) -> io::Result<bool> {
            let mut kernel = self.0.borrow_mut();
            left.append(&mut kernel.leaving);
            match kernel.lost.pop_front() {
                Some(code) => Err(io::Error::from_raw_os_error(code)),
                None => Ok(std::mem::take(&mut kernel.noticed)),
            }
        }

        fn list(&mut self) -> io::Result<Listing> {
            let mut kernel = self.0.borrow_mut();
            kernel.lists += 1;
            if let Some(code) = kernel.refusals.pop_front() {
                return Err(io::Error::from_raw_os_error(code));
            }
            let is_interrupted = kernel.interrupted > 0;
            let mut links = kernel.names.clone();
            if is_interrupted {
                kernel.interrupted -= 1;
                links.pop_first();
            }
            let link = |name| Link {
                name,
                hardware: 1,
                ..Link::default()
            };
            let links = links.into_iter().map(|(name, index)| (index, link(name)));
            Ok(Listing {
                links: links.collect(),
                is_interrupted,
            })
        }

        fn uplinks(&mut self) -> io::Result<BTreeSet<u32>> {
            Ok(self.0.borrow().uplinks.clone())
        }
    }

    struct World {
        kernel: Rc<RefCell<Kernel>>,
        watch: WatchLoop<Fake>,
        links: watch::Receiver<Arc<Links>>,
        now: Instant,
    }

    impl World {
        fn new(names: &[(&str, u32)]) -> Self {
            let fake = Fake::default();
            let kernel = Rc::clone(&fake.0);
            let (sender, links) = watch::channel(Arc::default());
            let mut world = Self {
                kernel,
                watch: WatchLoop::new(fake, sender),
                links,
                now: Instant::now(),
            };
            world.set(names);
            assert_eq!(world.step(), None);
            assert!(world.changed());
            world
        }

        fn set(&mut self, names: &[(&str, u32)]) {
            let names = names
                .iter()
                .map(|(name, index)| ((*name).to_owned(), *index));
            self.kernel.borrow_mut().names = names.collect();
        }

        fn step(&mut self) -> Option<Duration> {
            self.watch.step(self.now)
        }

        /// Whether links were published since the last call.
        fn changed(&mut self) -> bool {
            let changed = self.links.has_changed().unwrap();
            self.links.mark_unchanged();
            changed
        }

        fn has(&self, name: &str) -> bool {
            self.links.borrow().named(name).is_some()
        }
    }

    #[test]
    fn errors_are_survived_and_everything_is_listed_again() {
        for code in [libc::EBUSY, libc::ENOBUFS, libc::EINTR, libc::ENOMEM] {
            let mut world = World::new(&[("a", 7)]);
            world.set(&[("a", 7), ("b", 8)]);
            world.kernel.borrow_mut().noticed = true;
            world.kernel.borrow_mut().refusals = [code; 12].into();
            let mut delays: Vec<_> = (0..12).filter_map(|_| world.step()).collect();
            assert_eq!(delays.len(), 12, "{code}");
            assert!(delays.is_sorted(), "{delays:?}");
            assert_eq!(delays.pop(), Some(BACKOFF[1]));
            assert!(!world.has("b"), "the control");
            assert_eq!(world.step(), None, "without another notice");
            assert!(world.has("b"), "{code}");
            world.kernel.borrow_mut().noticed = true;
            world.kernel.borrow_mut().refusals = [code].into();
            assert_eq!(world.step(), Some(BACKOFF[0]), "the delay starts again");
        }
    }

    #[test]
    fn lost_notices_are_made_up_for_at_once() {
        for (code, subscriptions) in [(libc::ENOBUFS, 1), (libc::ENETDOWN, 2)] {
            let mut world = World::new(&[("a", 7)]);
            world.set(&[("b", 8)]);
            world.kernel.borrow_mut().lost = [code].into();
            assert!(world.step().is_some(), "{code}");
            assert_eq!(world.step(), None);
            assert!(world.has("b") && !world.has("a"), "{code}");
            assert_eq!(world.kernel.borrow().subscriptions, subscriptions);
        }
    }

    #[test]
    fn a_change_without_a_notice_is_found_by_time() {
        let mut world = World::new(&[("a", 7)]);
        world.set(&[("a", 7), ("b", 8)]);
        assert_eq!(world.step(), None);
        assert!(!world.has("b"), "the control");
        let lists = world.kernel.borrow().lists;
        world.now += RESYNC;
        assert_eq!(world.step(), None);
        assert!(world.has("b"));
        assert_eq!(world.kernel.borrow().lists, lists + 1);
        assert_eq!(world.step(), None);
        assert_eq!(world.kernel.borrow().lists, lists + 1, "once");
    }

    #[test]
    fn links_that_left_are_remembered_until_they_return() {
        let mut world = World::new(&[("a", 7), ("b", 8)]);
        world.set(&[]);
        world.kernel.borrow_mut().leaving = [7].into();
        // The notices that follow are lost.
        world.kernel.borrow_mut().lost = [libc::ENOBUFS].into();
        assert!(world.step().is_some());
        assert_eq!(world.step(), None);
        assert!(world.links.borrow().has_left(7) && !world.links.borrow().has_left(8));
        world.set(&[("a", 7)]);
        world.kernel.borrow_mut().noticed = true;
        assert_eq!(world.step(), None);
        assert!(!world.links.borrow().has_left(7));
        world.kernel.borrow_mut().leaving = (10..5_000).collect();
        world.kernel.borrow_mut().noticed = true;
        assert_eq!(world.step(), None);
        let links = world.links.borrow();
        assert!(
            links.has_left(4_999) && !links.has_left(10),
            "they are bounded"
        );
    }

    #[test]
    fn a_new_default_route_is_found_by_time() {
        let mut world = World::new(&[("a", 7)]);
        assert_eq!(world.links.borrow().unsuitable(7), None);
        world.kernel.borrow_mut().uplinks = [7].into();
        world.now += RESYNC;
        assert_eq!(world.step(), None);
        assert!(world.links.borrow().unsuitable(7).is_some());
        world.kernel.borrow_mut().noticed = true;
        assert_eq!(world.step(), None);
        assert!(
            world.links.borrow().unsuitable(7).is_some(),
            "after a notice"
        );
    }

    #[test]
    fn nothing_is_published_without_a_difference() {
        let mut world = World::new(&[("a", 7)]);
        world.kernel.borrow_mut().noticed = true;
        assert_eq!(world.step(), None);
        assert_eq!(world.kernel.borrow().lists, 2);
        assert!(!world.changed());
    }

    #[test]
    fn a_list_that_is_interrupted_is_repeated_and_removes_nothing() {
        for (interrupted, kept) in [(1, false), (REPEATS, false), (REPEATS + 1, true)] {
            let mut world = World::new(&[("a", 7), ("gone", 8)]);
            world.set(&[("a", 7), ("z", 9)]);
            world.kernel.borrow_mut().noticed = true;
            world.kernel.borrow_mut().interrupted = interrupted;
            assert_eq!(world.step(), None);
            assert!(world.has("a") && world.has("z"), "{interrupted}");
            assert_eq!(world.has("gone"), kept, "{interrupted}");
        }
    }
}
