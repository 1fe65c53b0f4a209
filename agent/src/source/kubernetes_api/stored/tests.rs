//! The file: whole, or not used.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::oracle::cases;
use crate::source::kubernetes_api::object::{Kind, Object};

fn node() -> NodeName {
    NodeName::new("n1").unwrap()
}

fn kept(pods: usize) -> Map<Key, Kept> {
    let mut objects = vec![
        (Kind::Namespaces, json!({"metadata": {"name": "shop"}})),
        (
            Kind::NetworkPolicies,
            json!({
                "metadata": {"name": "p", "namespace": "shop", "uid": "u"},
                "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}
            }),
        ),
    ];
    for number in 0..pods {
        let node = if number == pods - 1 { "n1" } else { "n2" };
        objects.push((
            Kind::Pods,
            json!({
                "metadata": {
                    "name": format!("web-{number}"), "namespace": "shop",
                    "uid": format!("0d3c1c9e-6d0e-4f6e-9a51-{number:012}"),
                    "creationTimestamp": "2026-11-30T10:00:05Z",
                    "labels": {"app": "web", "pod-template-hash": "6c8f7d5b9"}
                },
                "spec": {"nodeName": node, "containers": [
                    {"ports": [{"name": "http", "containerPort": 8080}]}
                ]},
                "status": {"phase": "Running", "podIP": format!("10.1.{}.{}", number / 250, number % 250 + 1)}
            }),
        ));
    }
    let kept = objects.into_iter().map(|(kind, mut value)| {
        let converted = convert(kind, &node(), &mut value).unwrap();
        let kept = Kept::of(&converted).unwrap();
        (converted.key, kept)
    });
    kept.collect()
}

fn file(kept: &Map<Key, Kept>, limits: Limits) -> (Vec<u8>, io::Result<usize>) {
    let mut bytes = Vec::new();
    let outcome = write(&mut bytes, kept, (&node(), 5), limits);
    (bytes, outcome)
}

fn names(stored: &Stored) -> Vec<String> {
    let objects = stored.objects.iter();
    objects.map(|it| it.key.to_string()).collect()
}

#[test]
fn what_is_written_is_read_with_the_pods_of_the_node_first() {
    let (bytes, outcome) = file(&kept(3), LIMITS);
    assert_eq!(outcome.unwrap(), 0);
    let stored = read(bytes.as_slice(), &node(), LIMITS).unwrap();
    assert_eq!(stored.at, 5);
    let pods = ["pod shop/web-2", "pod shop/web-0", "pod shop/web-1"];
    assert_eq!(names(&stored)[2..], pods);
    assert!(names(&stored)[0].starts_with("namespace"));
}

#[test]
fn what_is_cut_off_changed_or_of_another_is_not_used() {
    let (bytes, _) = file(&kept(2), LIMITS);
    let text = String::from_utf8(bytes.clone()).unwrap();
    let used = |bytes: &[u8]| read(bytes, &node(), LIMITS).is_ok();
    assert!(used(&bytes), "the control");
    for end in 0..bytes.len() {
        assert!(!used(&bytes[..end]), "{end} bytes");
    }
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        assert!(!used(&changed), "byte {place}");
    }
    // A line that is missing, or twice.
    let lines: Vec<&str> = text.lines().collect();
    for place in 0..lines.len() {
        let mut others = lines.clone();
        let line = others.remove(place);
        assert!(
            !used(format!("{}\n", others.join("\n")).as_bytes()),
            "{line}"
        );
        others.insert(place, line);
        others.insert(place, line);
        assert!(
            !used(format!("{}\n", others.join("\n")).as_bytes()),
            "{line}"
        );
    }
    let why = |text: &str| {
        read(text.as_bytes(), &node(), LIMITS)
            .unwrap_err()
            .to_string()
    };
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    assert_eq!(
        why(&newer),
        "it has format version 2, and this agent reads 1"
    );
    let other = text.replacen("\"node\":\"n1\"", "\"node\":\"n\\u001b2\"", 1);
    assert_eq!(why(&other), "it is the node \"n\\u{1b}2\"'s");
}

#[test]
fn hostile_content_is_bounded() {
    let why = |bytes: &[u8]| read(bytes, &node(), LIMITS).unwrap_err().to_string();
    let (bytes, _) = file(&kept(0), LIMITS);
    let head = bytes.split_inclusive(|it| *it == b'\n').next().unwrap();
    let after = |line: &[u8]| why(&[head, line].concat());
    let too_much = "it has more than an agent writes";
    assert_eq!(why(&vec![b'x'; 1 << 20]), too_much);
    assert_eq!(after(&vec![b' '; 1 << 20]), too_much);
    let deep = format!(
        "{{\"kind\":\"pods\",\"object\":{}{}}}\n",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(after(deep.as_bytes()), "it is damaged");
    for line in [
        "\u{1b}[2J\n",
        "{\"kind\":\"secrets\",\"object\":{}}\n",
        "\n",
        "null\n",
    ] {
        assert_eq!(after(line.as_bytes()), "it is damaged", "{line:?}");
    }
    // An endless file.
    let few = Limits {
        total: 4096,
        ..LIMITS
    };
    let endless = io::repeat(b'\n');
    let error = read(io::BufReader::new(endless), &node(), few).unwrap_err();
    assert_eq!(error.to_string(), "it is damaged");
    let (bytes, _) = file(&kept(9), LIMITS);
    let error = read(
        bytes.as_slice(),
        &node(),
        Limits {
            total: 900,
            ..LIMITS
        },
    )
    .unwrap_err();
    assert_eq!(error.to_string(), too_much);
    let most = Limits {
        objects: 3,
        ..LIMITS
    };
    let error = read(bytes.as_slice(), &node(), most).unwrap_err();
    assert_eq!(error.to_string(), too_much);
}

#[test]
fn what_is_too_much_is_left_out_and_counted() {
    let all = kept(9);
    let most = Limits {
        objects: 4,
        ..LIMITS
    };
    let (bytes, left_out) = file(&all, most);
    assert_eq!(left_out.unwrap(), 7);
    let stored = read(bytes.as_slice(), &node(), most).unwrap();
    assert_eq!(names(&stored)[2..], ["pod shop/web-8", "pod shop/web-0"]);
    // Neither policies nor pods of the node are missing.
    let (_, outcome) = file(
        &all,
        Limits {
            objects: 2,
            ..LIMITS
        },
    );
    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    // A policy that is too long for a line is there by its name.
    let short = Limits {
        line: 120,
        ..LIMITS
    };
    let (bytes, left_out) = file(&kept(1), short);
    assert_eq!(left_out.unwrap(), 2, "it, and the pod");
    let stored = read(bytes.as_slice(), &node(), short).unwrap();
    let policy = stored.objects.last().unwrap();
    assert!(matches!(policy.object, Object::UnreadablePolicy(Some(_))));
}

#[test]
fn a_pod_is_a_short_line() {
    let (bytes, _) = file(&kept(1000), LIMITS);
    let each = bytes.len() / 1000;
    assert!((300..500).contains(&each), "{each} bytes");
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn no_bytes_are_a_fault_of_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(bytes.as_slice(), &node(), LIMITS).is_err());
    }
}
