//! The control API over a Unix socket, with a fake application.

use std::path::PathBuf;
use std::sync::Mutex;

use jiff::Timestamp;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::*;
use crate::model::WallTime;
use crate::observe::flow::tests::{denied, event, record};
use crate::observe::{Filter, FlowRecord};
use crate::server::ControlListener;
use crate::server::view::{ModeSource, SetMode};
use crate::server::{Client, ClientError};

#[derive(Default)]
struct Fake {
    modes: Mutex<Vec<ModeView>>,
}

impl Views for Fake {
    fn status(&self) -> Status {
        Status {
            node: "node-1".into(),
            revision: 7,
            ..Status::default()
        }
    }

    fn endpoints(&self) -> Vec<EndpointView> {
        vec![EndpointView {
            workload: "shop/a".into(),
            ..EndpointView::default()
        }]
    }

    fn identities(&self) -> Vec<IdentityView> {
        vec![IdentityView {
            identity: 16,
            ..IdentityView::default()
        }]
    }

    fn policies(&self) -> Vec<PolicyView> {
        Vec::new()
    }

    fn rules(&self) -> Vec<RuleView> {
        let rule = |slot, policy: Option<&str>, last_hit| RuleView {
            slot,
            policy: policy.map(Into::into),
            last_hit,
            ..RuleView::default()
        };
        vec![
            rule(1, None, None),
            rule(16, Some("shop/a"), None),
            rule(17, Some("shop/b"), Some(Timestamp::UNIX_EPOCH)),
            rule(18, Some("shop/c"), Some(Timestamp::now())),
        ]
    }

    fn modes(&self) -> Vec<ModeView> {
        self.modes.lock().unwrap().clone()
    }

    fn explain(&self, query: &Query, all: bool) -> Result<Explanation, QueryError> {
        let (inventory, policies) = Default::default();
        crate::policy::explain::explain(&inventory, &policies, WallTime(0), query, all)
    }
}

struct Running {
    dir: TempDir,
    history: Arc<History>,
    server: JoinHandle<()>,
}

impl Running {
    fn path(&self) -> PathBuf {
        self.dir.path().join("ringfence.sock")
    }

    fn client(&self) -> Client {
        Client::new(&self.path())
    }
}

/// A server whose application has one namespace, `shop`.
fn start() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let view = ModeView {
        namespace: "shop".into(),
        mode: ModeName::Observe,
        source: ModeSource::Config,
        unstored: None,
    };
    let fake = Arc::new(Fake {
        modes: Mutex::new(vec![view]),
    });
    let (commands, mut inbox) = mpsc::channel(1);
    let application = Arc::clone(&fake);
    tokio::spawn(async move {
        while let Some(command) = inbox.recv().await {
            let (outcome, reply) = match command {
                Command::SetMode {
                    namespace,
                    mode,
                    reply,
                } => (application.set(namespace.as_str(), mode), reply),
                Command::Reload { reply } => (Err("policies.toml:1:1: bad".into()), reply),
            };
            reply.send(outcome).unwrap();
        }
    });
    let history = Arc::new(History::new(100));
    let control = Control {
        views: fake,
        commands,
        history: Arc::clone(&history),
        node: "node-1".into(),
    };
    let listener = ControlListener::bind(&dir.path().join("ringfence.sock")).unwrap();
    let server = tokio::spawn(control.serve(listener, 1024, std::future::pending()));
    Running {
        dir,
        history,
        server,
    }
}

impl Fake {
    fn set(&self, namespace: &str, mode: Option<ModeName>) -> Outcome {
        let mut modes = self.modes.lock().unwrap();
        let known = modes.iter_mut().find(|view| view.namespace == namespace);
        let view = known.ok_or_else(|| format!("unknown namespace {namespace}"))?;
        (view.mode, view.source) = match mode {
            Some(mode) => (mode, ModeSource::Set),
            None => (ModeName::Observe, ModeSource::Config),
        };
        Ok(())
    }
}

fn refused(error: ClientError) -> (u16, String) {
    match error {
        ClientError::Refused { status, error } => (status, error),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn views_are_served() {
    let running = start();
    let client = running.client();
    let status: Status = client.get("/v1/status").await.unwrap();
    assert_eq!((status.node.as_str(), status.revision), ("node-1", 7));
    let endpoints: Vec<EndpointView> = client.get("/v1/endpoints").await.unwrap();
    assert_eq!(endpoints.len(), 1);
    let identities: Vec<IdentityView> = client.get("/v1/identities").await.unwrap();
    assert_eq!(identities[0].identity, 16);
    let policies: Vec<PolicyView> = client.get("/v1/policies").await.unwrap();
    assert!(policies.is_empty());
}

#[tokio::test]
async fn unused_lists_rules_of_policies_only() {
    let running = start();
    let slots = async |target: &str| -> Vec<u32> {
        let rules: Vec<RuleView> = running.client().get(target).await.unwrap();
        rules.into_iter().map(|rule| rule.slot).collect()
    };
    assert_eq!(slots("/v1/rules").await, [1, 16, 17, 18]);
    assert_eq!(slots("/v1/rules?unused=3600").await, [16, 17]);
    assert_eq!(slots("/v1/rules?unused=4294967295").await, [16]);
}

#[tokio::test]
async fn a_mode_that_was_set_is_listed() {
    let running = start();
    let client = running.client();
    let body = SetMode {
        mode: ModeName::Enforce,
    };
    let view: ModeView = client.put("/v1/modes/shop", &body).await.unwrap();
    assert_eq!(
        (view.mode, view.source),
        (ModeName::Enforce, ModeSource::Set)
    );
    let views: Vec<ModeView> = client.get("/v1/modes").await.unwrap();
    assert_eq!(views, [view]);
    let view: ModeView = client.delete("/v1/modes/shop").await.unwrap();
    assert_eq!(
        (view.mode, view.source),
        (ModeName::Observe, ModeSource::Config)
    );

    let error = client
        .put::<ModeView>("/v1/modes/lab", &body)
        .await
        .unwrap_err();
    assert_eq!(refused(error), (422, "unknown namespace lab".into()));
    let error = client
        .put::<ModeView>("/v1/modes/BAD", &body)
        .await
        .unwrap_err();
    assert_eq!(refused(error).0, 400);
    let bad = serde_json::json!({"mode": "enforce", "more": 1});
    let error = client
        .put::<ModeView>("/v1/modes/shop", &bad)
        .await
        .unwrap_err();
    assert_eq!(refused(error).0, 400);
}

#[tokio::test]
async fn errors_are_json_with_the_right_status() {
    let running = start();
    let client = running.client();
    let error = client.post::<Status>("/v1/reload").await.unwrap_err();
    assert_eq!(refused(error), (422, "policies.toml:1:1: bad".into()));
    for (target, status) in [
        ("/v1/else", 404),
        ("/v1/reload", 405),
        ("/v1/rules?unused=x", 400),
        ("/v1/flows?verdict=dropped", 400),
        ("/v1/flows?namespace=BAD", 400),
        ("/v1/flows?since=yesterday", 400),
        ("/v1/flows?unknown=1", 400),
    ] {
        let error = client.get::<Status>(target).await.unwrap_err();
        let (found, text) = refused(error);
        assert_eq!(found, status, "{target}");
        assert!(!text.contains("the agent responded"), "{target}: {text}");
    }
    let huge = "x".repeat(65 * 1024);
    let error = client
        .put::<ModeView>("/v1/modes/shop", &huge)
        .await
        .unwrap_err();
    assert_eq!(refused(error).0, 413);
}

fn batch() -> Vec<Arc<FlowRecord>> {
    use ringfence_common::mode::Action;
    [event(), denied(event(), Action::Drop)]
        .map(|event| Arc::new(record(&event)))
        .to_vec()
}

#[tokio::test]
async fn flows_are_filtered_and_followed() {
    let running = start();
    running.history.push(&batch());
    let mut lines = running
        .client()
        .lines("/v1/flows?verdict=denied")
        .await
        .unwrap();
    let line = lines.next().await.unwrap().unwrap();
    assert!(line.contains(r#""verdict":"DROPPED""#), "{line}");
    assert_eq!(lines.next().await.unwrap(), None);

    let target = "/v1/flows?last=1&follow=true&namespace=shop&since=2020-01-01T00:00:00Z";
    let mut lines = running.client().lines(target).await.unwrap();
    assert!(lines.next().await.unwrap().unwrap().contains("DROPPED"));
    running.history.push(&batch());
    assert!(lines.next().await.unwrap().unwrap().contains("FORWARDED"));
    assert!(lines.next().await.unwrap().unwrap().contains("DROPPED"));
}

#[tokio::test]
async fn many_flows_arrive_as_whole_lines() {
    let running = start();
    for _ in 0..100 {
        running.history.push(&batch());
    }
    let mut lines = running.client().lines("/v1/flows").await.unwrap();
    let mut count = 0;
    while let Some(line) = lines.next().await.unwrap() {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
        count += 1;
    }
    assert_eq!(
        count,
        running.history.recent(&Filter::default(), None).len()
    );
}

#[tokio::test]
async fn a_broken_request_does_not_stop_the_server() {
    let running = start();
    let mut stream = UnixStream::connect(running.path()).await.unwrap();
    stream.write_all(b"\x00\xffnonsense\r\n\r\n").await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    assert!(running.client().get::<Status>("/v1/status").await.is_ok());
    running.server.abort();
}

#[tokio::test]
async fn without_an_agent_the_error_has_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new(&dir.path().join("none.sock"));
    let error = client.get::<Status>("/v1/status").await.unwrap_err();
    assert!(error.to_string().contains("none.sock"), "{error}");
    assert!(
        error.to_string().ends_with("(is it running? see --socket)"),
        "{error}"
    );
}

#[tokio::test]
async fn explanations_are_served() {
    let running = start();
    let client = running.client();
    let target = "/v1/explain?from=192.0.2.1&to=2001:db8::1&port=tcp/80";
    let error = client.get::<Explanation>(target).await.unwrap_err();
    let ClientError::Refused { status: 400, error } = error else {
        panic!("{error}");
    };
    assert!(error.contains("same family"), "{error}");
    for bad in [
        "",
        "?from=a&to=b&port=tcp/80",
        "?from=a/b&to=c/d&port=tcp/1-2",
    ] {
        let error = client
            .get::<Explanation>(&format!("/v1/explain{bad}"))
            .await;
        assert!(
            matches!(error, Err(ClientError::Refused { status: 400, .. })),
            "{bad}: {error:?}"
        );
    }
    let target = "/v1/explain?from=192.0.2.1&to=192.0.2.2&port=icmp&family=4&all=true";
    let explanation: Explanation = client.get(target).await.unwrap();
    assert_eq!(explanation.egress.rule, "not-a-workload");
    assert_eq!(explanation.at, "1970-01-01T00:00:00Z");
}
