//! Interfaces of pods that come, go and follow each other.

use super::*;
use crate::model::{Labels, ServiceAccountName};

fn pod(name: &str, uid: &str, created: i64, address: Option<&str>) -> PodObject {
    let workload = Workload {
        id: WorkloadId::new("shop", name).unwrap(),
        labels: Labels::new(),
        service_account: ServiceAccountName::default(),
        addresses: address.iter().map(|it| it.parse().unwrap()).collect(),
        ports: Vec::new(),
        interface: None,
        recency: Some(Recency {
            is_running: true,
            created,
            uid: uid.into(),
            has_lapsed: false,
        }),
    };
    PodObject {
        workload: Arc::new(workload),
        is_local: true,
    }
}

fn elsewhere(pod: PodObject) -> PodObject {
    PodObject {
        is_local: false,
        ..pod
    }
}

fn interfaces<const N: usize>(all: [(&str, &str); N]) -> BTreeMap<IpAddr, String> {
    all.map(|(address, name)| (address.parse().unwrap(), name.to_owned()))
        .into()
}

/// What is delivered: name, UID and interface, or nothing.
fn delivered(pods: &mut LocalPods) -> Vec<String> {
    let changes = pods.changes().into_iter();
    changes
        .map(|(key, object)| match object {
            None => format!("{key} gone"),
            Some(Object::Pod(pod)) => {
                let uid = uid(&pod.workload).unwrap();
                let interface = pod.workload.interface.as_deref().unwrap_or("-");
                format!("{key} {uid} {interface}")
            }
            Some(other) => panic!("{other:?}"),
        })
        .collect()
}

const ADDRESS: &str = "10.1.0.7";

#[test]
fn the_interface_may_come_before_the_object_and_after_it() {
    let mut pods = LocalPods::default();
    assert_eq!(pods.upsert(pod("a", "1", 1, None)), None);
    assert_eq!(delivered(&mut pods), ["pod shop/a 1 -"]);
    pods.upsert(pod("a", "1", 1, Some(ADDRESS)));
    assert_eq!(delivered(&mut pods), ["pod shop/a 1 -"]);
    pods.interfaces = interfaces([(ADDRESS, "v1")]);
    assert_eq!(delivered(&mut pods), ["pod shop/a 1 v1"]);
    assert_eq!(delivered(&mut pods), Vec::<String>::new());
    let mut first = LocalPods {
        interfaces: interfaces([(ADDRESS, "v1")]),
        ..LocalPods::default()
    };
    first.upsert(pod("a", "1", 1, Some(ADDRESS)));
    assert_eq!(delivered(&mut first), ["pod shop/a 1 v1"]);
}

#[test]
fn a_pod_whose_object_is_gone_stays_until_its_interface_is_gone() {
    let mut pods = LocalPods {
        interfaces: interfaces([(ADDRESS, "v1")]),
        ..LocalPods::default()
    };
    let a = pod("a", "1", 1, Some(ADDRESS)).workload;
    pods.upsert(pod("a", "1", 1, Some(ADDRESS)));
    delivered(&mut pods);
    assert!(pods.remove(&a.id));
    assert_eq!(delivered(&mut pods), Vec::<String>::new());
    assert_eq!(pods.addresses().len(), 1);
    pods.interfaces.clear();
    assert_eq!(delivered(&mut pods), ["pod shop/a gone"]);
    assert_eq!(pods.addresses().len(), 0);
    assert!(!pods.remove(&a.id), "it is forgotten");
}

#[test]
fn a_pod_follows_another_one_of_its_name_once_it_has_an_interface() {
    let second = "10.1.0.8";
    for says_gone in [true, false] {
        let mut pods = LocalPods {
            interfaces: interfaces([(ADDRESS, "v1")]),
            ..LocalPods::default()
        };
        pods.upsert(pod("a", "1", 1, Some(ADDRESS)));
        delivered(&mut pods);
        if says_gone {
            let id = pod("a", "1", 1, None).workload.id.clone();
            pods.remove(&id);
        }
        pods.upsert(pod("a", "2", 2, None));
        assert_eq!(delivered(&mut pods), Vec::<String>::new());
        pods.upsert(pod("a", "2", 2, Some(second)));
        assert_eq!(delivered(&mut pods), Vec::<String>::new());
        pods.interfaces = interfaces([(ADDRESS, "v1"), (second, "v2")]);
        // The one before keeps its fence, since its processes may still run.
        let both = ["pod shop/a~1 1 v1", "pod shop/a 2 v2"];
        assert_eq!(delivered(&mut pods), both);
        assert_eq!(delivered(&mut pods), Vec::<String>::new());
        pods.interfaces.remove(&ADDRESS.parse::<IpAddr>().unwrap());
        assert_eq!(delivered(&mut pods), ["pod shop/a~1 gone"]);
        // One on another node has none here.
        pods.upsert(elsewhere(pod("a", "3", 3, Some("10.2.0.1"))));
        let both = ["pod shop/a~2 2 v2", "pod shop/a 3 -"];
        assert_eq!(delivered(&mut pods), both);
        pods.interfaces.clear();
        assert_eq!(delivered(&mut pods), ["pod shop/a~2 gone"]);
        let other = elsewhere(pod("a", "3", 3, None));
        assert_eq!(
            pods.upsert(other.clone()),
            Some(other),
            "it is another node's"
        );
    }
}

#[test]
fn each_pod_that_outlives_its_name_keeps_its_fence() {
    let addresses = ["10.1.0.1", "10.1.0.2", "10.1.0.3"];
    let [one, two, three] = addresses;
    let mut pods = LocalPods {
        interfaces: interfaces([(one, "v1"), (two, "v2")]),
        ..LocalPods::default()
    };
    for (uid, address) in [("1", one), ("2", two), ("3", three)] {
        pods.upsert(pod("a", uid, 1, Some(address)));
    }
    // The last one has none yet, and the one before it has the name until then.
    assert_eq!(
        delivered(&mut pods),
        ["pod shop/a~1 1 v1", "pod shop/a 2 v2"]
    );
    assert_eq!(pods.addresses().len(), 3);
    pods.interfaces.insert(three.parse().unwrap(), "v3".into());
    assert_eq!(
        delivered(&mut pods),
        ["pod shop/a~2 2 v2", "pod shop/a 3 v3"]
    );
    pods.interfaces.clear();
    assert_eq!(
        delivered(&mut pods),
        ["pod shop/a~1 gone", "pod shop/a~2 gone", "pod shop/a 3 -"]
    );
    assert_eq!(pods.addresses().len(), 1);
}

#[test]
fn an_interface_is_the_most_recent_pods_whose_address_leads_to_it() {
    for turn in [false, true] {
        let mut all = [
            pod("a", "1", 2, Some(ADDRESS)),
            pod("b", "2", 1, Some(ADDRESS)),
        ];
        if turn {
            all.reverse();
        }
        let mut pods = LocalPods {
            interfaces: interfaces([(ADDRESS, "v1")]),
            ..LocalPods::default()
        };
        for pod in all {
            pods.upsert(pod);
        }
        assert_eq!(delivered(&mut pods), ["pod shop/a 1 v1", "pod shop/b 2 -"]);
        // One whose object is gone yields to one that is there.
        let a = pod("a", "1", 2, None).workload.id.clone();
        pods.remove(&a);
        assert_eq!(delivered(&mut pods), ["pod shop/a gone", "pod shop/b 2 v1"]);
    }
}

#[test]
fn a_pod_without_an_interface_is_an_error_after_some_time() {
    let mut pods = LocalPods::default();
    let start = Instant::now();
    pods.upsert(pod("a", "1", 1, Some(ADDRESS)));
    pods.upsert(pod("b", "2", 1, None));
    delivered(&mut pods);
    let first = pods.unreached(start);
    assert_eq!((first.texts.len(), first.next), (0, Some(start + GRACE)));
    let later = pods.unreached(start + GRACE);
    assert_eq!(
        later.texts,
        ["pod shop/a of this node has no fence: no interface of its own leads to 10.1.0.7"]
    );
    assert_eq!(later.next, None);
    pods.interfaces = interfaces([(ADDRESS, "v1")]);
    delivered(&mut pods);
    assert_eq!(pods.unreached(start + GRACE), Unreached::default());
}
