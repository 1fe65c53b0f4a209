//! What is delivered, by what the watches said, in whatever order.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::{
    DEFAULT_BUDGET, InventoryChanges, Labels, Namespace, NamespaceName, WorkloadId,
};
use crate::oracle::cases;
use crate::source::kubernetes_api::test_objects::{self, converted};

fn is(kind: Kind, value: Value) -> Update {
    Update::Is(Box::new(converted(kind, value)))
}

fn namespace(name: &str, env: &str) -> Update {
    let labels = json!({"env": env});
    let object = json!({"metadata": {"name": name, "labels": labels}});
    is(Kind::Namespaces, object)
}

fn pod(name: &str, node: &str, address: &str) -> Update {
    Update::Is(Box::new(test_objects::pod(name, node, address)))
}

fn node(name: &str, address: &str) -> Update {
    let addresses = json!([{"type": "InternalIP", "address": address}]);
    let object = json!({"metadata": {"name": name}, "status": {"addresses": addresses}});
    is(Kind::Nodes, object)
}

fn services(cidr: &str) -> Update {
    let object = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [cidr]}});
    is(Kind::ServiceCidrs, object)
}

fn policy(name: &str, subject: &Value) -> Update {
    Update::Is(Box::new(test_objects::policy(name, "", subject)))
}

fn unreadable() -> Value {
    json!({"matchExpressions": [{"key": "a", "operator": "Near"}]})
}

fn key(update: &Update) -> Key {
    match update {
        Update::Is(converted) => converted.key.clone(),
        other => panic!("{other:?}"),
    }
}

fn gone(update: &Update) -> Update {
    Update::IsGone(key(update))
}

struct World {
    state: ApiState,
    objects: Objects,
}

impl World {
    fn new() -> Self {
        Self {
            state: ApiState::default(),
            objects: Objects::new(DEFAULT_BUDGET),
        }
    }

    /// One in which every kind was listed, with these objects.
    fn of<const N: usize>(updates: [Update; N]) -> Self {
        let mut world = Self::new();
        for kind in Kind::ALL {
            world.state.take(Update::Begins(kind));
        }
        world.take(updates);
        for kind in Kind::ALL {
            world.state.take(Update::IsWhole(kind));
        }
        world.find([]);
        assert_eq!(world.state.known(), Known::All);
        world
    }

    /// All addresses were looked up, and these have interfaces.
    fn find<const N: usize>(&mut self, found: [(&str, &str); N]) {
        let found = found.map(|(address, name)| (address.parse().unwrap(), name.to_owned()));
        self.state.take_interfaces(FoundInterfaces {
            names: found.into(),
            settled: self.state.local_addresses(),
        });
    }

    fn take<const N: usize>(&mut self, updates: [Update; N]) {
        updates.into_iter().for_each(|it| self.state.take(it));
    }

    fn deliver(&mut self) -> Vec<String> {
        let report = self.state.deliver(&mut self.objects, Instant::now());
        report.errors.iter().map(ToString::to_string).collect()
    }

    fn names(&self) -> Vec<String> {
        let inventory = self.objects.inventory();
        let policies = self.objects.policies().policies.keys();
        let all = inventory.namespaces.keys().map(ToString::to_string);
        let all = all.chain(inventory.nodes.keys().map(ToString::to_string));
        let all = all.chain(inventory.workloads.keys().map(ToString::to_string));
        all.chain(policies.map(ToString::to_string)).collect()
    }
}

#[test]
fn nothing_is_delivered_before_every_kind_is_whole() {
    let mut world = World::new();
    world.take([Update::Begins(Kind::Pods), pod("a", "n2", "10.2.0.1")]);
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        assert!(world.state.known() != Known::All, "{number}");
        world.deliver();
        assert_eq!(world.names(), Vec::<String>::new(), "{number}");
        world.take([Update::Begins(kind), Update::IsWhole(kind)]);
        if kind == Kind::Namespaces {
            // It is changed before it was delivered.
            world.take([namespace("shop", "test"), namespace("shop", "prod")]);
        }
        if kind == Kind::Pods {
            world.take([pod("a", "n2", "10.2.0.1")]);
        }
    }
    assert_eq!(world.state.known(), Known::All);
    assert_eq!(world.deliver(), Vec::<String>::new());
    assert_eq!(world.names(), ["shop", "shop/a"]);
    let shop = NamespaceName::new("shop").unwrap();
    let labels = world.objects.inventory().namespaces.get(&shop).unwrap();
    assert_eq!(labels.labels().get("env"), Some("prod"));
}

#[test]
fn nothing_is_delivered_before_interfaces_are_looked_up() {
    let mut world = World::new();
    world.take(Kind::ALL.map(Update::Begins));
    world.take([pod("a", "n1", "10.1.0.1")]);
    world.take(Kind::ALL.map(Update::IsWhole));
    world.deliver();
    assert!(world.state.known() != Known::All && world.names().is_empty());
    world.find([("10.1.0.1", "v1")]);
    assert_eq!(world.state.known(), Known::All);
    world.deliver();
    assert_eq!(world.names(), ["shop", "shop/a"]);
    // Later ones hold nothing back.
    world.take([pod("b", "n1", "10.1.0.2")]);
    assert_eq!(world.state.known(), Known::All);
    world.deliver();
    assert_eq!(world.names(), ["shop", "shop/a", "shop/b"]);
}

#[test]
fn a_list_removes_nothing_before_it_is_whole() {
    let (a, b) = (pod("a", "n2", "10.2.0.1"), pod("b", "n2", "10.2.0.2"));
    let mut world = World::of([namespace("shop", "x"), a.clone(), b]);
    world.deliver();
    world.take([Update::Begins(Kind::Pods), a.clone()]);
    world.deliver();
    assert_eq!(world.names(), ["shop", "shop/a", "shop/b"]);
    // It breaks off, and what it has named so far does not count for the next one.
    let c = pod("c", "n2", "10.2.0.3");
    world.take([Update::Begins(Kind::Pods), c]);
    world.deliver();
    assert_eq!(world.names(), ["shop", "shop/a", "shop/b", "shop/c"]);
    world.take([Update::IsWhole(Kind::Pods)]);
    world.deliver();
    assert_eq!(world.names(), ["shop", "shop/c"]);
    // One that went while the list was made.
    world.take([Update::Begins(Kind::Pods), a.clone(), gone(&a)]);
    world.take([Update::IsWhole(Kind::Pods)]);
    world.deliver();
    assert_eq!(world.names(), ["shop"]);
}

#[test]
fn an_unreadable_policy_leaves_its_last_good_content_or_locks_its_namespace_down() {
    let web = json!({"matchLabels": {"app": "web"}});
    let mut world = World::of([
        namespace("shop", "x"),
        policy("good", &web),
        policy("never", &unreadable()),
    ]);
    let errors = world.deliver();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("networkpolicy/shop/never") && errors[0].contains("locked down"));
    assert_eq!(world.names(), ["shop", "networkpolicy/shop/good"]);
    assert_eq!(world.objects.locked().len(), 1);
    world.take([policy("good", &unreadable()), policy("never", &web)]);
    let errors = world.deliver();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("last good content"), "{errors:?}");
    let all = [
        "shop",
        "networkpolicy/shop/good",
        "networkpolicy/shop/never",
    ];
    assert_eq!(world.names(), all);
    assert_eq!(world.objects.locked().len(), 0);
    // What was good once is, until its object is gone.
    let good = policy("good", &web);
    world.take([gone(&good), policy("good", &unreadable())]);
    world.deliver();
    assert_eq!(world.names(), ["shop", "networkpolicy/shop/never"]);
    assert_eq!(world.objects.locked().len(), 1);
    world.take([gone(&good)]);
    assert_eq!(world.deliver(), Vec::<String>::new());
    assert_eq!(world.objects.locked().len(), 0);
}

#[test]
fn what_contradicts_others_holds_nothing_back_and_follows_later() {
    let files = SourceId::FILES;
    let mut world = World::of([
        namespace("shop", "x"),
        node("n1", "172.30.1.11"),
        pod("a", "n1", "10.1.0.1"),
        pod("b", "n2", "10.2.0.1"),
    ]);
    let id = WorkloadId::new("own", "w").unwrap();
    let text = "[[namespace]]\nname = \"own\"\n[[workload]]\nname = \"w\"\nnamespace = \"own\"\n\
                interface = \"v1\"\naddresses = [\"10.9.0.1\"]\n";
    let read = crate::source::inventory_toml::parse("i.toml", text).unwrap();
    let own = Arc::clone(&read.workloads[0].item);
    let of_files = |workload: Option<Arc<crate::model::Workload>>| ObjectChanges {
        inventory: InventoryChanges {
            namespaces: vec![(
                id.namespace.clone(),
                Some(Namespace::new(id.namespace.clone(), Labels::new()).unwrap()),
            )],
            workloads: vec![(id.clone(), workload)],
            nodes: Vec::new(),
        },
        policies: Vec::new(),
    };
    world.objects.apply(files, of_files(Some(own))).unwrap();
    world.find([("10.1.0.1", "v1")]);
    let errors = world.deliver();
    assert!(
        errors
            .iter()
            .any(|it| it.contains("pod shop/a is not in force") && it.contains("interface v1")),
        "{errors:?}"
    );
    assert_eq!(world.names(), ["own", "shop", "n1", "own/w", "shop/b"]);
    world.objects.apply(files, of_files(None)).unwrap();
    assert_eq!(world.deliver(), Vec::<String>::new());
    assert_eq!(world.names(), ["own", "shop", "n1", "shop/a", "shop/b"]);
}

#[test]
fn errors_are_bounded_and_say_what_stays() {
    let mut world = World::of([namespace("shop", "x")]);
    world.take([Update::Fails(Kind::Pods, "refused\u{1b}".repeat(200))]);
    let errors = world.deliver();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("kubernetes: pods: refused\\u{1b}"));
    assert!(
        errors[0].ends_with("; what is in force stays"),
        "{errors:?}"
    );
    assert!(errors[0].len() < 4000);
    world.take([Update::Works(Kind::Pods)]);
    assert_eq!(world.deliver(), Vec::<String>::new());
    for number in 0..2 * MOST {
        world.take([policy(&format!("p{number}"), &unreadable())]);
    }
    let errors = world.deliver();
    assert_eq!(errors.len(), MOST + 1);
    assert!(
        errors
            .last()
            .unwrap()
            .ends_with(&format!("{MOST} more errors are not shown"))
    );
}

/// Updates of each kind, in the order in which its watch says them.
fn any_updates() -> impl Strategy<Value = Vec<(usize, Update)>> {
    let name = |number: usize| ["a", "b", "c"][number % 3];
    let one = (0..4_usize, 0..3_usize, 0..4_usize, any::<bool>());
    let one = one.prop_map(move |(kind, number, variant, is_gone)| {
        let web = json!({"matchLabels": {"app": "web"}});
        let update = match kind {
            0 => namespace(["shop", "lab"][number % 2], ["x", "y"][variant % 2]),
            1 => node(
                ["n1", "n2"][number % 2],
                ["172.30.1.11", "172.30.1.12"][variant % 2],
            ),
            2 if variant == 0 => policy(name(number), &unreadable()),
            2 => policy(name(number), &web),
            // Several may claim one address.
            _ => pod(name(number), "n2", ["10.2.0.1", "10.2.0.2"][variant % 2]),
        };
        let update = if is_gone { gone(&update) } else { update };
        (kind, update)
    });
    vec(one, 0..24)
}

#[test]
fn the_order_of_kinds_and_of_deliveries_does_not_matter() {
    proptest!(cases(300), |(updates in any_updates(), order in any::<u64>(), often in 1..9_usize)| {
        let mut one = World::of([]);
        for (_, update) in &updates {
            one.state.take(update.clone());
        }
        one.deliver();
        // Another one gets the kinds interleaved in another way, and delivers in between.
        let mut other = World::of([]);
        let mut queues: [Vec<Update>; 4] = Default::default();
        for (kind, update) in &updates {
            queues[*kind].push(update.clone());
        }
        queues.iter_mut().for_each(|queue| queue.reverse());
        let mut random = order | 1;
        for step in 0.. {
            if queues.iter().all(Vec::is_empty) {
                break;
            }
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let place = usize::try_from(random >> 62).unwrap();
            if let Some(update) = queues[place].pop() {
                other.state.take(update);
            }
            if step % often == 0 {
                other.deliver();
            }
        }
        other.deliver();
        prop_assert_eq!(one.objects.inventory(), other.objects.inventory());
        prop_assert_eq!(one.objects.locked(), other.objects.locked());
        let policies = |world: &World| world.objects.policies().policies.clone();
        prop_assert_eq!(policies(&one), policies(&other));
        // Lists of everything lead both to the same state, whatever was said before.
        for world in [&mut one, &mut other] {
            for kind in Kind::ALL {
                world.take([Update::Begins(kind), Update::IsWhole(kind)]);
            }
            world.deliver();
            prop_assert_eq!(world.names(), Vec::<String>::new());
        }
    });
}

#[test]
fn a_policy_of_the_same_name_has_no_part_in_what_the_deleted_one_was() {
    let of = |uid: &str, subject: &Value| {
        let object = json!({
            "metadata": {"name": "p", "namespace": "shop", "uid": uid},
            "spec": {"podSelector": subject, "policyTypes": ["Ingress"]}
        });
        is(Kind::NetworkPolicies, object)
    };
    let web = json!({"matchLabels": {"app": "web"}});
    let mut world = World::of([namespace("shop", "x"), of("1", &web)]);
    world.deliver();
    // The control: the same one.
    world.take([of("1", &unreadable())]);
    let errors = world.deliver();
    assert!(errors[0].contains("last good content"), "{errors:?}");
    assert_eq!(world.names(), ["shop", "networkpolicy/shop/p"]);
    assert_eq!(world.objects.locked().len(), 0);
    // A list that begins again does not say that it was deleted in between.
    world.take([
        Update::Begins(Kind::NetworkPolicies),
        of("2", &unreadable()),
    ]);
    world.take([Update::IsWhole(Kind::NetworkPolicies)]);
    let errors = world.deliver();
    assert!(errors[0].contains("locked down"), "{errors:?}");
    assert_eq!(world.names(), ["shop"]);
    assert_eq!(world.objects.locked().len(), 1);
    world.take([of("2", &web)]);
    assert_eq!(world.deliver(), [""; 0]);
    assert_eq!(world.names(), ["shop", "networkpolicy/shop/p"]);
    assert_eq!(world.objects.locked().len(), 0);
}

#[test]
fn an_object_that_becomes_unreadable_stays_as_it_was() {
    let web = pod("web", "n2", "10.0.0.1");
    let mut world = World::of([namespace("shop", "prod"), web.clone()]);
    assert_eq!(world.deliver(), Vec::<String>::new());
    let key = key(&web);
    for update in [
        Update::Begins(Kind::Pods),
        Update::IsUnreadable(key.clone(), "odd".to_owned()),
        Update::IsWhole(Kind::Pods),
    ] {
        world.state.take(update);
    }
    let errors = world.deliver();
    assert!(
        errors
            .iter()
            .any(|it| it.contains("pod shop/web") && it.contains("odd")),
        "{errors:?}"
    );
    let id = WorkloadId::new("shop", "web").unwrap();
    assert!(world.objects.inventory().workloads.contains_key(&id));
    world.take([Update::Begins(Kind::Pods), Update::IsWhole(Kind::Pods)]);
    assert_eq!(world.deliver(), Vec::<String>::new());
    assert!(
        !world.objects.inventory().workloads.contains_key(&id),
        "the control"
    );
}

#[test]
fn ranges_of_services_are_reported_until_their_object_is_gone() {
    let ranges = |world: &mut World| {
        let report = world.state.deliver(&mut world.objects, Instant::now());
        let ranges = report.cluster_ranges.into_iter();
        ranges.map(|it| it.to_string()).collect::<Vec<_>>()
    };
    let mut world = World::of([services("10.96.0.0/16")]);
    assert_eq!(ranges(&mut world), ["10.96.0.0/16"]);
    assert_eq!(ranges(&mut world), ["10.96.0.0/16"], "in every report");
    world.take([services("10.97.0.0/16")]);
    assert_eq!(ranges(&mut world), ["10.97.0.0/16"]);
    world.take([Update::Begins(Kind::ServiceCidrs)]);
    assert_eq!(
        ranges(&mut world),
        ["10.97.0.0/16"],
        "a list that is not whole"
    );
    world.take([Update::IsWhole(Kind::ServiceCidrs)]);
    assert_eq!(ranges(&mut world), [""; 0]);
    world.take([services("10.97.0.0/16"), services("0.0.0.0/0")]);
    assert_eq!(ranges(&mut world), ["10.97.0.0/16"], "what cannot be read");
    world.take([gone(&services("10.97.0.0/16"))]);
    assert_eq!(ranges(&mut world), [""; 0]);
}
