//! Whatever came before: the inventory is that of the present objects, built as a whole.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;
use crate::model::dispute::Recency;
use crate::model::name::ServiceAccountName;
use crate::oracle::cases;

/// Objects that no change concerns, so that a few changes are few.
const BYSTANDERS: usize = 60;

/// All objects, as the changes left them.
#[derive(Debug, Clone, Default)]
struct Objects {
    namespaces: BTreeMap<NamespaceName, Namespace>,
    workloads: BTreeMap<WorkloadId, Arc<Workload>>,
    nodes: BTreeMap<NodeName, Arc<NodeEntry>>,
}

fn set_all<K: Ord + Clone, T: Clone>(objects: &mut BTreeMap<K, T>, changes: &[Change<K, T>]) {
    for (name, item) in changes {
        match item {
            Some(item) => objects.insert(name.clone(), item.clone()),
            None => objects.remove(name),
        };
    }
}

impl Objects {
    fn with(&self, changes: &InventoryChanges) -> Self {
        let mut next = self.clone();
        set_all(&mut next.namespaces, &changes.namespaces);
        set_all(&mut next.workloads, &changes.workloads);
        set_all(&mut next.nodes, &changes.nodes);
        next
    }

    fn build(&self) -> builder::Built {
        builder::build(
            self.namespaces.values().cloned().collect(),
            self.workloads.values().cloned().collect(),
            self.nodes.values().cloned().collect(),
        )
    }
}

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    let all = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"];
    let all: Vec<IpAddr> = all.map(|text| text.parse().unwrap()).to_vec();
    let odd = prop_oneof![
        12 => Just(None),
        1 => Just(Some("127.0.0.1".parse::<IpAddr>().unwrap())),
        1 => Just(Some("10.0.0.1".parse::<IpAddr>().unwrap())),
    ];
    (subsequence(all, 0..=3), odd).prop_map(|(mut addresses, odd)| {
        addresses.extend(odd);
        addresses
    })
}

fn namespace_change() -> impl Strategy<Value = Change<NamespaceName, Namespace>> {
    (0..3_usize, of(0..2_u8)).prop_map(|(name, label)| {
        let name = NamespaceName::new(["a", "b", "c"][name]).unwrap();
        let declared = label.map(|label| {
            let labels = Labels::from_pairs([("l", label.to_string())]).unwrap();
            Namespace::new(name.clone(), labels).unwrap()
        });
        (name, declared)
    })
}

fn workload_change() -> impl Strategy<Value = Change<WorkloadId, Arc<Workload>>> {
    let recency = of((any::<bool>(), 0..3_i64, any::<bool>()));
    let about = (0..2_u8, addresses(), of(0..3_u8), recency);
    (0..3_usize, 0..3_u8, of(about)).prop_map(|(namespace, name, about)| {
        let id = WorkloadId::new(["a", "b", "c"][namespace], &format!("w{name}")).unwrap();
        let workload = about.map(|(label, addresses, interface, recency)| {
            let recency = recency.map(|(is_running, created, has_lapsed)| Recency {
                is_running,
                created,
                uid: id.to_string().into(),
                has_lapsed,
            });
            Arc::new(Workload {
                id: id.clone(),
                labels: Labels::from_pairs([("l", label.to_string())]).unwrap(),
                service_account: ServiceAccountName::default(),
                addresses,
                ports: Vec::new(),
                interface: interface.map(|number| format!("v{number}")),
                recency,
            })
        });
        (id, workload)
    })
}

fn node_change() -> impl Strategy<Value = Change<NodeName, Arc<NodeEntry>>> {
    (0..3_u8, of((addresses(), any::<bool>()))).prop_map(|(name, about)| {
        let name = NodeName::new(&format!("n{name}")).unwrap();
        let node = about.map(|(addresses, local)| {
            Arc::new(NodeEntry {
                name: name.clone(),
                addresses,
                local,
            })
        });
        (name, node)
    })
}

fn once<K: Ord + Clone, T>(changes: Vec<Change<K, T>>) -> Vec<Change<K, T>> {
    let mut seen = BTreeSet::new();
    let mut changes = changes;
    changes.retain(|(name, _)| seen.insert(name.clone()));
    changes
}

fn changes() -> impl Strategy<Value = InventoryChanges> {
    let parts = (
        vec(namespace_change(), 0..=1),
        vec(workload_change(), 0..=3),
        vec(node_change(), 0..=2),
    );
    parts.prop_map(|(namespaces, workloads, nodes)| InventoryChanges {
        namespaces: once(namespaces),
        workloads: once(workloads),
        nodes: once(nodes),
    })
}

fn bystanders() -> InventoryChanges {
    let far = |number: usize| {
        let id = WorkloadId::new("far", &format!("w{number}")).unwrap();
        let workload = Workload {
            id: id.clone(),
            labels: Labels::new(),
            service_account: ServiceAccountName::default(),
            addresses: vec![format!("10.9.0.{}", number + 1).parse().unwrap()],
            ports: Vec::new(),
            interface: None,
            recency: None,
        };
        (id, Some(Arc::new(workload)))
    };
    InventoryChanges {
        workloads: (0..BYSTANDERS).map(far).collect(),
        ..InventoryChanges::default()
    }
}

/// What a fault is about, without which of two objects was first.
fn about(fault: &InventoryFault) -> String {
    match fault {
        InventoryFault::InterfaceClaimedTwice { interface, .. } => interface.clone(),
        InventoryFault::TwoLocalNodes { .. } => "two local nodes".to_owned(),
        other => other.to_string(),
    }
}

fn same_as_built(store: &InventoryStore, objects: &Objects) -> Result<(), TestCaseError> {
    let built = objects.build();
    prop_assert_eq!(&built.errors, &vec![]);
    prop_assert_eq!(&store.inventory, &built.store.inventory);
    prop_assert_eq!(&store.undeclared, &built.store.undeclared);
    prop_assert_eq!(&store.interfaces, &built.store.interfaces);
    prop_assert_eq!(&store.local, &built.store.local);
    Ok(())
}

#[test]
fn the_inventory_after_any_changes_is_the_one_that_is_built_of_all_objects() {
    let counts = std::cell::Cell::new([0; 3]);
    let count = |place: usize| {
        let mut all = counts.get();
        all[place] += 1;
        counts.set(all);
    };
    proptest!(cases(2000), |(start in any::<bool>(), steps in vec(changes(), 1..12))| {
        let mut store = InventoryStore::default();
        let mut objects = Objects::default();
        if start {
            objects = objects.with(&bystanders());
            store.apply(bystanders()).unwrap();
        }
        for changes in &steps {
            let next = objects.with(changes);
            let expected: BTreeSet<String> =
                next.build().errors.iter().map(|error| about(&error.fault)).collect();
            match store.apply(changes.clone()) {
                Ok(()) => {
                    prop_assert!(expected.is_empty(), "{:?}", expected);
                    objects = next;
                    count(0);
                }
                Err(faults) => {
                    let faults: BTreeSet<String> = faults.iter().map(about).collect();
                    prop_assert_eq!(faults, expected);
                    count(1);
                }
            }
            same_as_built(&store, &objects)?;
            if !store.inventory.disputed.is_empty() {
                count(2);
            }
        }
    });
    let [taken, refused, disputed] = counts.get();
    println!("{taken} changes taken, {refused} refused, {disputed} states with disputes");
}

#[test]
fn objects_make_one_inventory_in_any_order() {
    proptest!(cases(500), |(all in changes(), more in changes(), order in any::<u64>())| {
        let mut objects = Objects::default().with(&bystanders());
        objects = objects.with(&all).with(&more);
        prop_assume!(objects.build().errors.is_empty());
        let one = |namespace, workload, node| InventoryChanges {
            namespaces: Vec::from_iter(namespace),
            workloads: Vec::from_iter(workload),
            nodes: Vec::from_iter(node),
        };
        let mut single: Vec<InventoryChanges> = Vec::new();
        let namespaces = objects.namespaces.clone().into_iter();
        single.extend(namespaces.map(|(name, it)| one(Some((name, Some(it))), None, None)));
        let workloads = objects.workloads.clone().into_iter();
        single.extend(workloads.map(|(id, it)| one(None, Some((id, Some(it))), None)));
        let nodes = objects.nodes.clone().into_iter();
        single.extend(nodes.map(|(name, it)| one(None, None, Some((name, Some(it))))));
        single.sort_by_key(|change| {
            use std::hash::{DefaultHasher, Hasher as _};
            let mut hasher = DefaultHasher::new();
            (order, format!("{change:?}")).hash(&mut hasher);
            hasher.finish()
        });
        let mut store = InventoryStore::default();
        for change in single {
            store.apply(change).unwrap();
        }
        same_as_built(&store, &objects)?;
    });
}

#[test]
fn what_is_as_it_was_is_no_change_and_keeps_the_inventory() {
    let mut store = InventoryStore::default();
    store.apply(bystanders()).unwrap();
    let before = Arc::clone(&store.inventory);
    store.apply(bystanders()).unwrap();
    assert!(Arc::ptr_eq(&before, &store.inventory));
}

#[test]
fn what_no_change_concerns_is_shared() {
    let mut store = InventoryStore::default();
    store.apply(bystanders()).unwrap();
    let before = Arc::clone(&store.inventory);
    let id = WorkloadId::new("far", "w7").unwrap();
    let change = InventoryChanges {
        workloads: vec![(id, None)],
        ..InventoryChanges::default()
    };
    store.apply(change).unwrap();
    let mut others = before
        .workloads
        .iter()
        .filter(|(id, _)| id.name.as_str() != "w7");
    assert!(others.all(|(id, old)| Arc::ptr_eq(old, store.inventory.workloads.get(id).unwrap())));
    assert!(store.inventory.nodes.is_same(&before.nodes));
    assert!(store.inventory.namespaces.is_same(&before.namespaces));
}
