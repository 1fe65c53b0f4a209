//! What an earlier agent left, until the API server has said everything.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{DEFAULT_BUDGET, NodeName, WorkloadId};
use crate::oracle::cases;
use crate::source::kubernetes_api::kept::Kept;
use crate::source::kubernetes_api::object::{Converted, Kind};
use crate::source::kubernetes_api::test_objects::{self, converted, pod};
use crate::source::pod_interfaces::FoundInterfaces;
use crate::source::{Known, Objects};

fn namespace(name: &str) -> Converted {
    converted(Kind::Namespaces, json!({"metadata": {"name": name}}))
}

fn policy(name: &str, subject: &Value) -> Converted {
    test_objects::policy(name, "u", subject)
}

struct World {
    state: ApiState,
    objects: Objects,
    start: Instant,
    interfaces: BTreeMap<IpAddr, String>,
}

impl World {
    /// One that has restored these objects, on a node with these interfaces.
    fn restored<const N: usize>(
        objects: impl IntoIterator<Item = Converted>,
        interfaces: [(&str, &str); N],
    ) -> Self {
        let interfaces = interfaces.map(|(at, name)| (at.parse().unwrap(), name.to_owned()));
        let mut world = Self {
            state: ApiState::default(),
            objects: Objects::new(DEFAULT_BUDGET),
            start: Instant::now(),
            interfaces: interfaces.into(),
        };
        let objects = objects.into_iter().collect();
        world.state.restore(Stored { at: 5, objects }, world.start);
        world.find();
        world
    }

    fn find(&mut self) {
        self.state.take_interfaces(FoundInterfaces {
            names: self.interfaces.clone(),
            settled: self.state.local_addresses(),
        });
    }

    fn list(&mut self, objects: impl IntoIterator<Item = Converted>) {
        Kind::ALL
            .into_iter()
            .for_each(|kind| self.state.take(Update::Begins(kind)));
        for object in objects {
            self.state.take(Update::Is(Box::new(object)));
        }
        Kind::ALL
            .into_iter()
            .for_each(|kind| self.state.take(Update::IsWhole(kind)));
    }

    fn deliver(&mut self, after: Duration) -> crate::source::Report {
        self.state.deliver(&mut self.objects, self.start + after)
    }

    /// Workloads with their interfaces.
    fn pods(&mut self) -> Vec<String> {
        self.deliver(Duration::ZERO);
        let workloads = self.objects.inventory().workloads.values();
        let text = |it: &Arc<Workload>| {
            let interface = it.interface.as_deref().unwrap_or("-");
            format!("{} {interface}", it.id.name)
        };
        workloads.map(text).collect()
    }

    fn is_unknown(&self, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        let inventory = self.objects.inventory();
        assert_eq!(
            inventory.is_unknown(address),
            inventory.owners.get(&address).is_none()
        );
        inventory.is_unknown(address)
    }
}

const HERE: &str = "10.1.0.1";
const THERE: &str = "10.2.0.1";

fn shop() -> [Converted; 3] {
    [
        namespace("shop"),
        pod("here", "n1", HERE),
        pod("there", "n2", THERE),
    ]
}

#[test]
fn a_restored_state_is_in_force_and_says_so() {
    let mut world = World::restored(shop(), [(HERE, "v1")]);
    assert_eq!(world.state.known(), Known::Restored);
    assert_eq!(world.pods(), ["here v1", "there -"]);
    let fails = Update::Fails(Kind::Pods, "no route".into());
    world.state.take(fails);
    let report = world.deliver(Duration::ZERO);
    assert_eq!(report.restored, Some(5));
    let error = report.errors[0].to_string();
    let expected = "pods: no route; what an earlier run stored is in force";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn a_pod_of_the_node_without_an_interface_is_no_part_of_it() {
    let more = pod("gone", "n1", "10.1.0.2");
    let mut world = World::restored(shop().into_iter().chain([more]), [(HERE, "v1")]);
    assert_eq!(world.pods(), ["here v1", "there -"]);
}

#[test]
fn nothing_is_restored_before_it_is_known_which_pods_have_an_interface() {
    let mut world = World::restored([], []);
    let mut state = ApiState::default();
    let objects = shop().into();
    state.restore(Stored { at: 5, objects }, world.start);
    world.state = state;
    assert_eq!(world.state.known(), Known::NotYet);
    assert_eq!(world.pods(), [""; 0]);
    world.find();
    assert_eq!(world.state.known(), Known::Restored, "the control");
}

#[test]
fn pods_elsewhere_have_their_addresses_for_a_while_and_then_they_are_unknown() {
    let mut world = World::restored(shop(), [(HERE, "v1")]);
    let report = world.deliver(Duration::ZERO);
    assert_eq!(report.next_change, Some(world.start + PEERS));
    world.deliver(PEERS - Duration::from_millis(1));
    assert!(!world.is_unknown(THERE));
    let report = world.deliver(PEERS);
    assert!(world.is_unknown(THERE) && !world.is_unknown(HERE));
    assert_eq!((report.next_change, report.errors.len()), (None, 0));
    // One of this node that loses its interface then has nothing but the word of an earlier agent.
    world.interfaces.clear();
    world.find();
    world.deliver(PEERS);
    assert!(world.is_unknown(HERE));
    // The server says it again.
    world.list(shop());
    world.find();
    world.deliver(PEERS);
    assert_eq!(world.state.known(), Known::All);
    assert!(!world.is_unknown(THERE) && !world.is_unknown(HERE));
    assert_eq!(world.deliver(2 * PEERS).restored, None);
}

#[test]
fn what_the_server_has_confirmed_does_not_lapse() {
    let mut world = World::restored(shop(), [(HERE, "v1")]);
    world.list(shop());
    world.find();
    world.deliver(PEERS);
    assert!(!world.is_unknown(THERE));
}

#[test]
fn the_server_replaces_it_by_all_kinds_together() {
    let old = policy("old", &json!({}));
    let mut world = World::restored(shop().into_iter().chain([old]), [(HERE, "v1")]);
    let [namespace, here, _] = shop();
    let new = pod("new", "n2", "10.2.0.2");
    let listed = [namespace, here, new, policy("new", &json!({}))];
    for kind in Kind::ALL {
        let policies = world.objects.policies().policies.keys().count();
        assert_eq!(world.pods(), ["here v1", "there -"], "before {kind:?}");
        assert!(policies <= 1);
        world.state.take(Update::Begins(kind));
        for object in &listed {
            if object.key.kind() == kind {
                world.state.take(Update::Is(Box::new(object.clone())));
            }
        }
        world.state.take(Update::IsWhole(kind));
    }
    world.find();
    assert_eq!(world.pods(), ["here v1", "new -"]);
    let policies = world.objects.policies().policies.keys();
    let policies: Vec<_> = policies.map(|it| it.name.to_string()).collect();
    assert_eq!(policies, ["new"]);
}

#[test]
fn removals_wait_until_new_pods_of_the_node_were_looked_up() {
    let mut world = World::restored(shop(), [(HERE, "v1")]);
    let more = pod("late", "n1", "10.1.0.9");
    world.list(shop().into_iter().chain([more]));
    assert_eq!(world.state.known(), Known::Restored);
    assert_eq!(world.pods(), ["here v1", "late -", "there -"]);
    world.find();
    assert_eq!(world.state.known(), Known::All);
}

#[test]
fn a_pod_that_went_meanwhile_keeps_its_fence_until_its_interface_is_gone() {
    let mut world = World::restored(shop(), [(HERE, "v1")]);
    world.deliver(Duration::ZERO);
    let [namespace, _, there] = shop();
    world.list([namespace, there]);
    world.find();
    assert_eq!(world.pods(), ["here v1", "there -"]);
    world.interfaces.clear();
    world.find();
    assert_eq!(world.pods(), ["there -"]);
}

#[test]
fn of_a_policy_that_cannot_be_read_the_last_good_content_is_kept_and_restored() {
    let odd = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
    let mut world = World::restored([], []);
    world.state = ApiState::default();
    world.list([namespace("shop"), policy("p", &json!({}))]);
    world.find();
    let unreadable = Update::Is(Box::new(policy("p", &odd)));
    world.state.take(unreadable);
    let kept: Vec<Converted> = world.state.kept().iter().map(again).collect();
    let mut next = World::restored(kept, []);
    next.deliver(Duration::ZERO);
    assert_eq!(next.objects.policies().policies.keys().count(), 1);
    assert!(next.objects.locked().is_empty());
    // The server says the odd one again: its last good content is known.
    next.list([namespace("shop"), policy("p", &odd)]);
    next.find();
    next.deliver(Duration::ZERO);
    assert_eq!(next.objects.policies().policies.keys().count(), 1);
    assert!(next.objects.locked().is_empty());
}

/// What is kept of an object, converted again.
fn again((key, kept): (&Key, &Kept)) -> Converted {
    let json = kept.json(key, &NodeName::new("n1").unwrap());
    converted(key.kind(), serde_json::from_str(&json).unwrap())
}

#[test]
fn what_comes_too_late_is_not_restored() {
    let mut world = World::restored([], []);
    world.state = ApiState::default();
    world.list([]);
    world.find();
    let objects = shop().into();
    world.state.restore(Stored { at: 5, objects }, world.start);
    assert_eq!(world.pods(), [""; 0]);
}

fn some_pods() -> impl Strategy<Value = BTreeMap<u8, (bool, u8)>> {
    proptest::collection::btree_map(0..6_u8, (any::<bool>(), 1..5_u8), 0..6)
}

fn objects(pods: &BTreeMap<u8, (bool, u8)>) -> Vec<Converted> {
    let pods = pods.iter().map(|(name, (is_local, address))| {
        let (node, net) = if *is_local { ("n1", 1) } else { ("n2", 2) };
        pod(&format!("p{name}"), node, &format!("10.{net}.0.{address}"))
    });
    pods.chain([namespace("shop")]).collect()
}

proptest! {
    #![proptest_config(cases(150))]

    /// Once the server has said everything and the interfaces of all pods are gone, nothing of what was restored is left.
    #[test]
    fn what_was_restored_leaves_no_trace(
        before in some_pods(), now in some_pods(), lapses in any::<bool>(),
        reached in proptest::collection::btree_set(1..5_u8, 0..4),
    ) {
        let interfaces: BTreeMap<IpAddr, String> = reached.iter().map(|it| {
            (format!("10.1.0.{it}").parse().unwrap(), format!("v{it}"))
        }).collect();
        let mut world = World::restored([], []);
        world.interfaces = interfaces;
        world.state = ApiState::default();
        let stored = Stored { at: 5, objects: objects(&before) };
        world.state.restore(stored, world.start);
        world.find();
        let late = if lapses { PEERS } else { Duration::ZERO };
        world.deliver(late);
        for workload in world.objects.inventory().workloads.values() {
            let is_local = before.iter().any(|(name, (is_local, _))| {
                *is_local && workload.id.name.as_str() == format!("p{name}")
            });
            prop_assert_eq!(is_local, workload.interface.is_some());
        }
        world.list(objects(&now));
        world.find();
        world.deliver(late);
        world.interfaces.clear();
        world.find();
        world.deliver(late);
        let mut fresh = World::restored([], []);
        fresh.state = ApiState::default();
        fresh.list(objects(&now));
        fresh.find();
        fresh.deliver(late);
        prop_assert_eq!(world.objects.inventory(), fresh.objects.inventory());
        prop_assert_eq!(world.state.kept(), fresh.state.kept());
        let ids: Vec<WorkloadId> = fresh.objects.inventory().workloads.keys().cloned().collect();
        prop_assert!(ids.len() <= now.len());
    }
}
