//! A server that breaks off, forgets, is an older one, or is away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::stream::{self, Iter};
use serde_json::json;

use super::*;

type Events = Iter<std::vec::IntoIter<Result<Event, Failure>>>;

/// What the server is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Page(Option<String>),
    Watch(Option<String>),
    Reconnect,
}

/// Answers in the order in which they are given. When there are none left, requests wait for ever.
#[derive(Default)]
struct Script {
    pages: VecDeque<Result<Page, Failure>>,
    watches: VecDeque<Result<Vec<Result<Event, Failure>>, Failure>>,
    asked: Vec<Asked>,
    is_absent: bool,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Script>>);

impl Server for Fake {
    type Events = std::pin::Pin<Box<dyn Stream<Item = Result<Event, Failure>> + Send>>;

    async fn page(&mut self, rest: Option<&str>) -> Result<Page, Failure> {
        let answer = {
            let mut script = self.0.lock().unwrap();
            script.asked.push(Asked::Page(rest.map(str::to_owned)));
            script.pages.pop_front()
        };
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    async fn watch(&mut self, version: Option<&str>) -> Result<Self::Events, Failure> {
        let answer = {
            let mut script = self.0.lock().unwrap();
            script.asked.push(Asked::Watch(version.map(str::to_owned)));
            script.watches.pop_front()
        };
        match answer {
            Some(Ok(events)) => {
                let is_silent = events.is_empty();
                let events: Events = stream::iter(events);
                Ok(if is_silent {
                    Box::pin(stream::pending())
                } else {
                    Box::pin(events)
                })
            }
            Some(Err(failure)) => Err(failure),
            None => std::future::pending().await,
        }
    }

    async fn is_absent(&mut self) -> bool {
        self.0.lock().unwrap().is_absent
    }

    fn reconnect(&mut self) {
        self.0.lock().unwrap().asked.push(Asked::Reconnect);
    }
}

fn object(name: &str, version: &str) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version}})
}

fn namespace(name: &str, version: &str) -> Result<Event, Failure> {
    Ok(Event::Is(object(name, version)))
}

fn bookmark(version: &str, ends_list: bool) -> Result<Event, Failure> {
    let version = version.to_owned();
    Ok(Event::Bookmark { version, ends_list })
}

fn fails(code: u16) -> Failure {
    Failure {
        code: Some(code),
        text: format!("status {code}"),
        wait: None,
    }
}

fn watch(version: &str) -> Asked {
    Asked::Watch(Some(version.to_owned()))
}

/// Runs the watch of a kind until all answers were given, and nothing happens any more. Returns what it
/// says, in short, and what the server was asked for.
fn run(kind: Kind, script: Script) -> (Vec<String>, Vec<Asked>) {
    let (said, asked, _) = run_timed(kind, script);
    (said, asked)
}

/// The same, and the time until it said the last.
fn run_timed(kind: Kind, script: Script) -> (Vec<String>, Vec<Asked>, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let fake = Fake(Arc::new(Mutex::new(script)));
    let (said, lasted) = runtime.block_on(async {
        let began = Instant::now();
        let mut last = began;
        let (sender, mut updates) = mpsc::channel(4);
        let node = NodeName::new("n1").unwrap();
        let watch = tokio::spawn(ListWatch::new(kind, node, fake.clone(), sender).run());
        let mut said = Vec::new();
        // Time passes at once while all wait.
        while let Ok(update) = timeout(Duration::from_hours(1), updates.recv()).await {
            last = Instant::now();
            said.push(match update.unwrap() {
                Update::Begins(_) => "begins".to_owned(),
                Update::Is(converted) => converted.key.to_string(),
                Update::IsUnreadable(key, _) => format!("{key} unreadable"),
                Update::IsGone(key) => format!("{key} gone"),
                Update::IsWhole(_) => "whole".to_owned(),
                Update::Fails(_, text) => text,
                Update::Works(_) => "works".to_owned(),
            });
        }
        drop(updates);
        watch.abort();
        (said, last - began)
    });
    let asked = std::mem::take(&mut fake.0.lock().unwrap().asked);
    (said, asked, lasted)
}

#[test]
fn a_server_that_says_a_little_before_each_failure_is_asked_less_and_less() {
    let list = || {
        Ok(vec![
            namespace("a", "3"),
            bookmark("7", true),
            Err(fails(500)),
        ])
    };
    let watch = || Ok(vec![namespace("a", "8"), Err(fails(500))]);
    let mut watches: VecDeque<_> = (0..8).map(|_| watch()).collect();
    watches.push_front(list());
    let script = Script {
        watches,
        ..Script::default()
    };
    let (_, asked, lasted) = run_timed(Kind::Namespaces, script);
    // The first nine, each with a connection of its own, and the one that is never answered.
    assert_eq!(asked.len(), 19, "{asked:?}");
    assert!(lasted > Duration::from_secs(12), "{lasted:?}");
    // The control: whole lists begin again with short waits.
    let script = Script {
        watches: (0..9).flat_map(|_| [list(), Err(fails(410))]).collect(),
        ..Script::default()
    };
    let (said, _, lasted) = run_timed(Kind::Namespaces, script);
    assert_eq!(
        said.iter().filter(|it| *it == "whole").count(),
        9,
        "{said:?}"
    );
    assert!(lasted < Duration::from_secs(9), "{lasted:?}");
}

#[test]
fn a_list_in_a_stream_continues_as_a_watch() {
    let script = Script {
        watches: [Ok(vec![
            namespace("a", "3"),
            bookmark("7", true),
            namespace("b", "8"),
            Ok(Event::IsGone(object("a", "9"))),
        ])]
        .into(),
        ..Script::default()
    };
    let (said, asked) = run(Kind::Namespaces, script);
    let expected = [
        "begins",
        "namespace a",
        "whole",
        "namespace b",
        "namespace a gone",
    ];
    assert_eq!(said, expected);
    assert_eq!(asked, [Asked::Watch(None), watch("9")]);
}

#[test]
fn an_object_that_cannot_be_read_is_there() {
    let pod = |spec: Value| {
        let metadata = json!({"name": "a", "namespace": "shop", "resourceVersion": "3"});
        Ok(Event::Is(json!({"metadata": metadata, "spec": spec})))
    };
    for (spec, expected) in [
        (json!({"nodeName": "n1"}), "pod shop/a"),
        (json!(5), "pod shop/a unreadable"),
    ] {
        let script = Script {
            watches: [Ok(vec![pod(spec), bookmark("7", true)])].into(),
            ..Script::default()
        };
        let (said, _) = run(Kind::Pods, script);
        assert_eq!(said, ["begins", expected, "whole"]);
    }
}

#[test]
fn a_list_that_breaks_off_is_no_list() {
    let script = Script {
        watches: [
            Ok(vec![namespace("a", "3")]),
            Ok(vec![namespace("a", "3"), Err(fails(500))]),
            Ok(vec![namespace("b", "4"), bookmark("7", true)]),
        ]
        .into(),
        ..Script::default()
    };
    let (said, asked) = run(Kind::Namespaces, script);
    let expected = [
        "begins",
        "namespace a",
        "the list broke off",
        "begins",
        "namespace a",
        "status 500",
        "begins",
        "namespace b",
        "whole",
        "works",
    ];
    assert_eq!(said, expected);
    let reconnect = Asked::Reconnect;
    let list = Asked::Watch(None);
    assert_eq!(
        asked,
        [
            list.clone(),
            reconnect.clone(),
            list.clone(),
            reconnect,
            list,
            watch("7")
        ]
    );
}

#[test]
fn an_older_server_is_asked_for_pages() {
    let page = |names: &[&str], version: &str, rest: Option<&str>| {
        Ok(Page {
            items: names.iter().map(|name| object(name, "1")).collect(),
            version: version.to_owned(),
            rest: rest.map(str::to_owned),
        })
    };
    for refusal in [Err(fails(422)), Err(fails(400)), Ok(Vec::new())] {
        let is_silent = refusal.is_ok();
        let script = Script {
            pages: [page(&["a"], "", Some("r")), page(&["b"], "5", None)].into(),
            watches: [refusal, Ok(vec![bookmark("6", false)])].into(),
            ..Script::default()
        };
        let (said, asked) = run(Kind::Namespaces, script);
        let mut expected = vec!["begins", "namespace a", "namespace b", "whole"];
        if is_silent {
            expected.splice(0..0, ["begins", "the list did not end"]);
            expected.push("works");
        }
        assert_eq!(said, expected);
        let asked: Vec<_> = asked
            .into_iter()
            .filter(|it| *it != Asked::Reconnect)
            .collect();
        let pages = [Asked::Page(None), Asked::Page(Some("r".to_owned()))];
        let rest = [watch("5"), watch("6")];
        assert_eq!(
            asked,
            [&[Asked::Watch(None)], &pages[..], &rest[..]].concat()
        );
    }
}

#[test]
fn a_version_that_is_forgotten_leads_to_a_new_list_and_an_error_does_not() {
    let script = Script {
        watches: [
            Ok(vec![namespace("a", "3"), bookmark("7", true)]),
            Err(fails(503)),
            Ok(vec![bookmark("8", false), Err(fails(429))]),
            Ok(vec![Err(fails(410))]),
            Ok(vec![bookmark("20", true)]),
        ]
        .into(),
        ..Script::default()
    };
    let (said, asked) = run(Kind::Namespaces, script);
    let expected = [
        "begins",
        "namespace a",
        "whole",
        "status 503",
        "works",
        "status 429",
        "works",
        "status 410",
        "begins",
        "whole",
        "works",
    ];
    assert_eq!(said, expected);
    let asked: Vec<_> = asked
        .into_iter()
        .filter(|it| *it != Asked::Reconnect)
        .collect();
    let list = Asked::Watch(None);
    assert_eq!(
        asked,
        [
            list.clone(),
            watch("7"),
            watch("7"),
            watch("8"),
            list,
            watch("20")
        ]
    );
}

#[test]
fn a_kind_that_a_ready_server_lacks_has_no_objects() {
    for is_absent in [true, false] {
        for kind in [Kind::ClusterNetworkPolicies, Kind::NetworkPolicies] {
            let script = Script {
                watches: [Err(fails(404))].into(),
                is_absent,
                ..Script::default()
            };
            let (said, _) = run(kind, script);
            let expected: &[&str] = if is_absent && kind == Kind::ClusterNetworkPolicies {
                &["begins", "whole"]
            } else {
                &["status 404"]
            };
            assert_eq!(said, expected, "{kind:?} {is_absent}");
        }
    }
}

#[test]
fn a_silent_watch_begins_again_where_it_was() {
    let script = Script {
        watches: [
            Ok(vec![bookmark("7", true)]),
            Ok(Vec::new()),
            Ok(Vec::new()),
        ]
        .into(),
        ..Script::default()
    };
    let (said, asked) = run(Kind::Namespaces, script);
    assert_eq!(said, ["begins", "whole"]);
    assert_eq!(
        asked,
        [Asked::Watch(None), watch("7"), watch("7"), watch("7")]
    );
}

#[test]
fn an_object_that_cannot_be_read_is_said_and_passed_over() {
    let script = Script {
        watches: [Ok(vec![
            Ok(Event::Is(json!({"metadata": 5}))),
            namespace("b", "4"),
            bookmark("7", true),
        ])]
        .into(),
        ..Script::default()
    };
    let (said, _) = run(Kind::Namespaces, script);
    assert!(
        said[1].starts_with("an object cannot be read: metadata"),
        "{said:?}"
    );
    assert_eq!(said[2..], ["namespace b", "whole", "works"]);
}
