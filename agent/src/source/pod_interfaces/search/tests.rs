//! Interfaces by what a kernel answers.

use std::collections::HashMap;

use super::*;
use crate::netlink::message::{Message, attribute, message, messages};
use crate::source::pod_interfaces::message::{
    get_link, get_neighbour, get_port, get_route, solicit,
};

const ADDRESS: &str = "10.1.0.7";
const BRIDGE: u32 = 3;

/// A kernel that answers as it is told, and counts what it is asked for.
#[derive(Default)]
struct Fake {
    answers: HashMap<Vec<u8>, Vec<u8>>,
    asked: Vec<Vec<u8>>,
    fails: bool,
}

impl Kernel for Fake {
    fn ask<T>(
        &mut self,
        request: &[u8],
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> io::Result<Option<T>> {
        self.asked.push(request.to_vec());
        if self.fails {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let answer = self.answers.get(request);
        Ok(answer.and_then(|it| messages(it).find_map(|it| read(&it))))
    }
}

fn address() -> IpAddr {
    ADDRESS.parse().unwrap()
}

impl Fake {
    fn link(&mut self, index: u32, name: &str, kind: &str) {
        let mut body = vec![0, 0, 1, 0];
        body.extend_from_slice(&index.to_ne_bytes());
        body.resize(16, 0);
        body.extend(attribute(3, format!("{name}\0").as_bytes()));
        body.extend(attribute(18, &attribute(1, format!("{kind}\0").as_bytes())));
        self.answers.insert(get_link(index), message(16, 0, &body));
    }

    fn unlink(&mut self, index: u32) {
        self.answers.remove(&get_link(index));
    }

    fn route(&mut self, length: u8, device: u32) {
        let mut body = vec![2, length, 0, 0, 254, 2, 253, 1, 0, 0, 0, 0];
        body.extend(attribute(4, &device.to_ne_bytes()));
        self.answers
            .insert(get_route(address()), message(24, 0, &body));
    }

    /// The bridge knows where the address is.
    fn port(&mut self, port: u32) {
        let hardware = [2, 0, 0, 0, 0, 7];
        let mut body = vec![2, 0, 0, 0];
        body.extend_from_slice(&BRIDGE.to_ne_bytes());
        body.extend_from_slice(&[2, 0, 0, 0]);
        body.extend(attribute(2, &hardware));
        let request = get_neighbour(address(), BRIDGE);
        self.answers.insert(request, message(28, 0, &body));
        let mut body = vec![7, 0, 0, 0];
        body.extend_from_slice(&port.to_ne_bytes());
        body.extend_from_slice(&[2, 0, 0, 0]);
        let request = get_port(hardware, BRIDGE);
        self.answers.insert(request, message(28, 0, &body));
    }
}

struct World {
    search: Search,
    kernel: Fake,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut search = Search::default();
        search.look_for([address()].into());
        Self {
            search,
            kernel: Fake::default(),
            now: Instant::now(),
        }
    }

    /// The name of the interface after a pass, and whether that said that it changed.
    fn pass(&mut self) -> (Option<String>, bool) {
        let (changed, failure) = self.search.pass(&mut self.kernel, self.now);
        assert_eq!(failure.is_some(), self.kernel.fails);
        (self.search.found().names.remove(&address()), changed)
    }

    fn after(&mut self, notice: Notice) -> (Option<String>, bool) {
        self.search.notice(notice);
        self.pass()
    }
}

fn is(name: &str) -> (Option<String>, bool) {
    (Some(name.to_owned()), true)
}

#[test]
fn a_route_of_the_address_alone_leads_to_its_interface() {
    let mut world = World::new();
    assert_eq!(world.pass(), (None, true), "it has none");
    world.kernel.link(7, "veth7", "veth");
    world.kernel.route(24, 7);
    let notice = Notice::Address(address());
    assert_eq!(world.after(notice), (None, false), "of a range");
    world.kernel.route(32, 7);
    assert_eq!(world.after(notice), is("veth7"));
    assert!(!world.search.is_due());
    // The route goes first, then the link.
    world.kernel.answers.remove(&get_route(address()));
    assert_eq!(world.after(notice), (Some("veth7".to_owned()), false));
    world.kernel.unlink(7);
    assert_eq!(world.after(Notice::Link), (None, true));
}

#[test]
fn another_pod_of_the_address_has_another_interface() {
    let mut world = World::new();
    world.kernel.link(7, "veth7", "veth");
    world.kernel.route(32, 7);
    assert_eq!(world.pass(), is("veth7"));
    world.kernel.link(8, "veth8", "veth");
    world.kernel.route(32, 8);
    assert_eq!(world.after(Notice::Address(address())), is("veth8"));
    // A device with another name is the same one.
    world.kernel.link(8, "renamed", "veth");
    assert_eq!(world.after(Notice::Link), is("renamed"));
    world.search.look_for(BTreeSet::new());
    assert_eq!(world.pass(), (None, false));
    world.search.look_for([address()].into());
    assert_eq!(world.pass(), is("renamed"));
}

#[test]
fn a_bridge_is_asked_for_the_port_and_may_forget_it() {
    let mut world = World::new();
    world.kernel.link(BRIDGE, "cni0", "bridge");
    world.kernel.link(9, "veth9", "veth");
    world.kernel.route(24, BRIDGE);
    assert_eq!(world.pass(), (None, false));
    let asks = |world: &World| {
        let request = solicit(address(), BRIDGE);
        world
            .kernel
            .asked
            .iter()
            .filter(|it| **it == request)
            .count()
    };
    assert_eq!(asks(&world), 1);
    assert_eq!(world.after(Notice::Bridge), (None, false));
    assert_eq!(asks(&world), 1, "not so soon again");
    assert!(world.search.found().settled.is_empty(), "it may have one");
    world.now += SOLICITED_EVERY;
    assert_eq!(world.after(Notice::Bridge), (None, true), "it has none");
    assert_eq!(asks(&world), 2);
    world.kernel.port(9);
    assert_eq!(world.after(Notice::Bridge), is("veth9"));
    world.search.notice(Notice::Bridge);
    assert!(!world.search.is_due(), "it is known");
    world
        .kernel
        .answers
        .remove(&get_neighbour(address(), BRIDGE));
    world.search.look_again();
    assert_eq!(world.pass(), (Some("veth9".to_owned()), false));
    world.kernel.unlink(9);
    assert_eq!(world.after(Notice::Link), (None, true));
}

#[test]
fn an_announcement_on_a_bridge_takes_no_interface_away() {
    let mut world = World::new();
    world.kernel.link(BRIDGE, "cni0", "bridge");
    world.kernel.link(9, "veth9", "veth");
    world.kernel.link(10, "veth10", "veth");
    world.kernel.route(24, BRIDGE);
    world.kernel.port(9);
    assert_eq!(world.pass(), is("veth9"));
    world.kernel.port(10);
    let notice = Notice::Address(address());
    assert_eq!(world.after(notice), (Some("veth9".to_owned()), false));
    // Another pod has the address when the first one's interface is gone.
    world.kernel.unlink(9);
    assert_eq!(world.after(Notice::Link), is("veth10"));
}

#[test]
fn an_error_changes_nothing() {
    let mut world = World::new();
    world.kernel.link(7, "veth7", "veth");
    world.kernel.route(32, 7);
    assert_eq!(world.pass(), is("veth7"));
    world.kernel.fails = true;
    world.search.look_again();
    assert_eq!(world.pass(), (Some("veth7".to_owned()), false));
}
