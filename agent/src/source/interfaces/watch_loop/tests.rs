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
    addresses: LinkAddresses,
    no_addresses: bool,
    no_routes: bool,
    addresses_interrupted: usize,
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

    fn addresses(&mut self) -> io::Result<(LinkAddresses, bool)> {
        let mut kernel = self.0.borrow_mut();
        if kernel.no_addresses {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let is_interrupted = kernel.addresses_interrupted > 0;
        let mut addresses = kernel.addresses.clone();
        if is_interrupted {
            kernel.addresses_interrupted -= 1;
            addresses.own.pop_first();
        }
        Ok((addresses, is_interrupted))
    }

    fn uplinks(&mut self) -> io::Result<BTreeSet<u32>> {
        let kernel = self.0.borrow();
        if kernel.no_routes {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        Ok(kernel.uplinks.clone())
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

fn addresses(own: &[&str]) -> LinkAddresses {
    LinkAddresses {
        own: own.iter().map(|it| it.parse().unwrap()).collect(),
        ..LinkAddresses::default()
    }
}

#[test]
fn addresses_follow_notices() {
    let mut world = World::new(&[("a", 7)]);
    let both = addresses(&["10.0.0.1", "fe80::1"]);
    world.kernel.borrow_mut().addresses = both.clone();
    assert_eq!(world.step(), None);
    assert!(!world.changed(), "the control");
    world.kernel.borrow_mut().noticed = true;
    assert_eq!(world.step(), None);
    assert!(world.changed());
    assert_eq!(*world.links.borrow().addresses(), both);
    world.kernel.borrow_mut().addresses = addresses(&["fe80::1"]);
    world.kernel.borrow_mut().noticed = true;
    assert_eq!(world.step(), None);
    assert_eq!(*world.links.borrow().addresses(), addresses(&["fe80::1"]));
}

#[test]
fn addresses_that_cannot_be_listed_stay_and_hold_back_no_link() {
    let mut world = World::new(&[("a", 7)]);
    let both = addresses(&["10.0.0.1", "fe80::1"]);
    world.kernel.borrow_mut().addresses = both.clone();
    world.kernel.borrow_mut().noticed = true;
    assert_eq!(world.step(), None);
    world.set(&[("a", 7), ("b", 8)]);
    world.kernel.borrow_mut().addresses = addresses(&["10.0.0.2"]);
    world.kernel.borrow_mut().no_addresses = true;
    world.kernel.borrow_mut().noticed = true;
    assert!(world.step().is_some(), "an error");
    assert!(world.has("b"));
    assert_eq!(*world.links.borrow().addresses(), both);
    world.kernel.borrow_mut().no_addresses = false;
    assert_eq!(world.step(), None, "without another notice");
    assert_eq!(*world.links.borrow().addresses(), addresses(&["10.0.0.2"]));
}

#[test]
fn links_that_cannot_be_listed_for_long_say_so_until_they_can() {
    for what in ["links", "addresses"] {
        let mut world = World::new(&[("a", 7)]);
        let fail = |world: &World, count: usize| {
            let mut kernel = world.kernel.borrow_mut();
            kernel.noticed = true;
            kernel.no_addresses = what == "addresses" && count > 0;
            let links = what == "links";
            kernel.refusals = vec![libc::ENOBUFS; if links { count } else { 0 }].into();
        };
        let failure = |world: &World| world.links.borrow().failure().map(str::to_owned);
        fail(&world, 1);
        assert!(world.step().is_some());
        assert_eq!(failure(&world), None, "{what}: one error is none");
        fail(&world, 20);
        let mut shown = 0;
        for _ in 0..20 {
            assert!(world.step().is_some());
            shown += usize::from(world.changed());
        }
        assert!(failure(&world).is_some() && world.has("a"), "{what}");
        assert_eq!(shown, 1, "{what}");
        fail(&world, 0);
        assert_eq!(world.step(), None);
        assert_eq!(failure(&world), None, "{what}");
    }
}

#[test]
fn routes_that_cannot_be_listed_leave_links_and_addresses_current() {
    let mut world = World::new(&[("a", 7)]);
    world.kernel.borrow_mut().no_routes = true;
    world.now += RESYNC;
    for _ in 0..20 {
        assert!(world.step().is_some(), "an error, which is logged");
    }
    world.set(&[("a", 7), ("b", 8)]);
    world.kernel.borrow_mut().addresses = addresses(&["10.0.0.2"]);
    assert!(world.step().is_some());
    assert!(world.has("b"), "the control: the list is current");
    let links = world.links.borrow();
    assert_eq!(*links.addresses(), addresses(&["10.0.0.2"]));
    assert_eq!(links.failure(), None);
}

#[test]
fn a_start_waits_for_addresses() {
    let fake = Fake::default();
    fake.0.borrow_mut().names = [("a".to_owned(), 7)].into();
    fake.0.borrow_mut().no_addresses = true;
    let (sender, links) = watch::channel(Arc::default());
    let mut watch = WatchLoop::new(fake.clone(), sender);
    let now = Instant::now();
    for _ in 0..20 {
        assert!(watch.step(now).is_some());
    }
    assert!(!links.has_changed().unwrap());
    fake.0.borrow_mut().no_addresses = false;
    assert_eq!(watch.step(now), None);
    assert!(links.has_changed().unwrap() && links.borrow().named("a").is_some());
}

#[test]
fn a_list_of_addresses_that_is_interrupted_removes_none() {
    for (interrupted, kept) in [(1, false), (REPEATS, false), (REPEATS + 1, true)] {
        let mut world = World::new(&[("a", 7)]);
        world.kernel.borrow_mut().addresses = addresses(&["10.0.0.1", "10.0.0.2"]);
        world.kernel.borrow_mut().noticed = true;
        assert_eq!(world.step(), None);
        world.kernel.borrow_mut().addresses = addresses(&["10.0.0.2", "10.0.0.3"]);
        world.kernel.borrow_mut().addresses_interrupted = interrupted;
        world.kernel.borrow_mut().noticed = true;
        assert_eq!(world.step(), None);
        let all: &[&str] = if kept {
            &["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        } else {
            &["10.0.0.2", "10.0.0.3"]
        };
        let found = world.links.borrow().addresses().clone();
        assert_eq!(found, addresses(all), "{interrupted}");
    }
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
