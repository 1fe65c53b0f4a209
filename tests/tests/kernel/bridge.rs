//! Fences that are filters until their links are attached: they are there at once, and leave nothing.
//!
//! Of several interfaces the last one has its bridge for the longest, because one link is attached at a
//! time, each after a grace period.

use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use ringfence::datapath::{Datapath as _, KernelDatapath, LoadOptions, Standing};
use ringfence::plan::Action;
use ringfence_common::{endpoint::Endpoint, maps};
use ringfence_testbed::{NetNs, eventually};

use crate::loaded::Pinned;

const SOON: Duration = Duration::from_secs(20);
const HOOKS: [&str; 2] = ["ingress", "egress"];

/// Interfaces, and the agent's pins.
struct Node {
    ns: NetNs,
    indices: Vec<u32>,
    pinned: Pinned,
}

fn name(index: usize) -> String {
    format!("rf{index}")
}

impl Node {
    fn new(interfaces: usize) -> Self {
        let ns = NetNs::new().unwrap();
        let mut indices = Vec::new();
        for index in 0..interfaces {
            let name = name(index);
            let add = format!("link add {name} type veth peer name {name}p\nlink set {name} up\n");
            ns.ip(&add).unwrap();
            let found = ns.run(|| nix::net::if_::if_nametoindex(name.as_str()));
            indices.push(found.unwrap().unwrap());
        }
        let pinned = Pinned::new();
        Self {
            ns,
            indices,
            pinned,
        }
    }

    fn load(&self) -> KernelDatapath {
        self.pinned
            .load(&LoadOptions {
                capacities: vec![(maps::CT4, 1024), (maps::CT6, 1024)],
                ..LoadOptions::default()
            })
            .0
    }

    fn attach_at_once(&self, datapath: &mut KernelDatapath, index: usize) {
        let ifindex = self.indices[index];
        let action = Action::PutEndpoint(ifindex, Endpoint::default());
        datapath.write(&action).unwrap();
        let attach = || datapath.attach_at_once(ifindex, &name(index));
        self.ns.run(attach).unwrap().unwrap();
    }

    fn attach(&self, datapath: &mut KernelDatapath, index: usize) {
        let attach = || datapath.attach(self.indices[index], &name(index));
        self.ns.run(attach).unwrap().unwrap();
    }

    fn detach(&self, datapath: &mut KernelDatapath, index: usize) {
        let detach = || datapath.detach(self.indices[index]);
        self.ns.run(detach).unwrap().unwrap();
    }

    fn standings(&self, datapath: &mut KernelDatapath) -> Vec<Standing> {
        let look = datapath.look().unwrap();
        self.ns.run(look).unwrap().into_values().collect()
    }

    fn tc(&self, command: &str) -> String {
        let mut tc = self.ns.command("tc");
        let output = tc.args(command.split_whitespace()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The number of filters at each hook.
    fn filters(&self, index: usize) -> [usize; 2] {
        HOOKS.map(|hook| {
            let shown = self.tc(&format!("filter show dev {} {hook}", name(index)));
            shown.lines().filter(|line| line.contains("handle")).count()
        })
    }

    fn has_clsact(&self, index: usize) -> bool {
        let shown = self.tc(&format!("qdisc show dev {}", name(index)));
        shown.contains("clsact")
    }

    fn links(&self, index: usize) -> [usize; 2] {
        [TcAttachType::Ingress, TcAttachType::Egress].map(|hook| {
            let query = || SchedClassifier::query_tcx(&name(index), hook);
            self.ns.run(query).unwrap().unwrap().1.len()
        })
    }

    fn has_mark(&self, index: usize) -> bool {
        let pin = self.pinned.pins.link(self.indices[index], "bridge");
        pin.exists()
    }

    fn wait_for_links(&self, index: usize) {
        let attached = || {
            let is_bridged = self.has_clsact(index) || self.has_mark(index);
            Ok((!is_bridged && self.links(index) == [1, 1]).then_some(()))
        };
        eventually(SOON, "links without a bridge", attached).unwrap();
    }

    fn program(&self, name: &str) -> String {
        self.pinned.pins.program(name).display().to_string()
    }

    /// What a process that died leaves.
    fn leave_a_bridge(&self, index: usize) {
        let interface = name(index);
        self.tc(&format!("qdisc add dev {interface} clsact"));
        for (hook, program) in HOOKS.into_iter().zip(["from_workload", "to_workload"]) {
            let program = self.program(program);
            self.tc(&format!(
                "filter add dev {interface} {hook} pref 1 handle 0x5246 bpf da object-pinned {program}"
            ));
        }
        let mark = self.pinned.pins.link(self.indices[index], "bridge");
        let program = SchedClassifier::from_pin(self.program("from_workload"));
        program.unwrap().pin(mark).unwrap();
    }
}

#[test]
fn a_bridge_is_the_fence_until_its_links_are_attached() {
    let node = Node::new(8);
    let mut datapath = node.load();
    for index in 0..8 {
        node.attach_at_once(&mut datapath, index);
    }
    assert_eq!((node.filters(7), node.links(7)), ([1, 1], [0, 0]));
    assert!(node.has_mark(7));
    assert_eq!(
        node.standings(&mut datapath),
        [(); 8].map(|()| Standing::First)
    );
    node.wait_for_links(7);
    for index in 0..8 {
        node.wait_for_links(index);
    }
    assert_eq!(
        node.standings(&mut datapath),
        [(); 8].map(|()| Standing::First)
    );
    // The control: links that are there already need no bridge.
    node.attach_at_once(&mut datapath, 0);
    assert!(!node.has_clsact(0));
    assert_eq!(node.links(0), [1, 1]);
}

#[test]
fn a_bridge_that_was_taken_away_is_noticed() {
    let node = Node::new(8);
    let mut datapath = node.load();
    for index in 0..8 {
        node.attach_at_once(&mut datapath, index);
    }
    node.tc("qdisc del dev rf7 clsact");
    let found = node.standings(&mut datapath);
    assert!(
        matches!(found.last(), Some(Standing::Absent { .. })),
        "{found:?}"
    );
    // As after a look that finds it missing.
    node.attach(&mut datapath, 7);
    assert_eq!(node.links(7), [1, 1]);
    node.wait_for_links(7);
}

#[test]
fn filters_of_others_keep_the_qdisc() {
    let node = Node::new(8);
    let mut datapath = node.load();
    for index in 0..8 {
        node.attach_at_once(&mut datapath, index);
    }
    let foreign = node.program("clocks");
    node.tc(&format!(
        "filter add dev rf7 egress pref 9 bpf da object-pinned {foreign}"
    ));
    let attached = || Ok((!node.has_mark(7)).then_some(()));
    eventually(SOON, "the bridge removed", attached).unwrap();
    assert_eq!((node.filters(7), node.links(7)), ([0, 1], [1, 1]));
}

#[test]
fn a_qdisc_in_the_place_of_clsact_is_left_alone() {
    let node = Node::new(3);
    let mut datapath = node.load();
    node.tc("qdisc add dev rf0 clsact");
    node.attach_at_once(&mut datapath, 0);
    assert_eq!((node.filters(0), node.links(0)), ([0, 0], [1, 1]));
    assert!(node.has_clsact(0) && !node.has_mark(0));
    // The plugin `bandwidth` is in use.
    node.tc("qdisc add dev rf1 ingress");
    node.attach_at_once(&mut datapath, 1);
    assert_eq!(node.links(1), [1, 1]);
    assert!(!node.has_clsact(1) && !node.has_mark(1));
    node.attach_at_once(&mut datapath, 2);
    assert_eq!(node.links(2), [1, 1]);
    assert!(!node.has_clsact(2));
}

#[test]
fn a_fence_that_is_detached_leaves_no_bridge() {
    let node = Node::new(8);
    let mut datapath = node.load();
    for index in 0..8 {
        node.attach_at_once(&mut datapath, index);
    }
    for index in 0..8 {
        node.detach(&mut datapath, index);
    }
    drop(datapath);
    for index in 0..8 {
        assert!(!node.has_clsact(index) && !node.has_mark(index), "{index}");
        let detached = || Ok((node.links(index) == [0, 0]).then_some(()));
        eventually(SOON, "no links", detached).unwrap();
    }
}

#[test]
fn a_process_that_stops_attaches_what_is_left() {
    let node = Node::new(4);
    let mut datapath = node.load();
    for index in 0..4 {
        node.attach_at_once(&mut datapath, index);
    }
    drop(datapath);
    for index in 0..4 {
        assert_eq!(node.links(index), [1, 1]);
        assert!(!node.has_clsact(index) && !node.has_mark(index), "{index}");
    }
}

#[test]
fn a_bridge_that_a_process_left_goes_when_its_interface_is_attached_or_detached() {
    let node = Node::new(3);
    let mut datapath = node.load();
    // This one has its links already.
    node.attach(&mut datapath, 0);
    drop(datapath);
    for index in 0..3 {
        node.leave_a_bridge(index);
    }
    let mut datapath = node.load();
    let all = node.indices.iter().copied().collect();
    assert_eq!(datapath.attached(), all);
    node.attach_at_once(&mut datapath, 0);
    node.attach_at_once(&mut datapath, 1);
    node.detach(&mut datapath, 2);
    for index in 0..2 {
        node.wait_for_links(index);
    }
    assert!(!node.has_clsact(2) && !node.has_mark(2));
    assert_eq!(node.links(2), [0, 0]);
}
