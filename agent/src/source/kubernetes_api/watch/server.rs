//! The API server as its client sees it.
//!
//! Invariants: credentials are read again with each new connection, which follows every failure, and at least
//! once a minute for a service account; no request waits for ever.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use hyper::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::WatchEvent;
use kube::{Client, Config, Error};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::backoff::spread;
use super::list_watch::{Event, Failure, Page, Server};
use super::query_part;
use super::thread::Connection;
use crate::source::kubernetes_api::object::Kind;

/// How long an answer may take to begin, and a page of a list to come.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// After how long the server ends a watch.
const WATCH: Duration = Duration::from_mins(10);
/// The most objects of a page.
const PAGE: usize = 250;
/// The same for objects that have up to 1,000 endpoints each.
const SLICE_PAGE: usize = 50;
/// The group and version of network policies and of ranges of Services.
const NETWORKING: &str = "/apis/networking.k8s.io/v1";
/// The group and version of the endpoints of Services.
const DISCOVERY: &str = "/apis/discovery.k8s.io/v1";
/// The group of cluster policies, and its versions that the agent reads, the best first.
const POLICY_GROUP: &str = "/apis/policy.networking.k8s.io";
const POLICY_VERSIONS: [&str; 2] = ["v1beta1", "v1alpha2"];
/// The annotation of the bookmark at the end of a list.
const LIST_ENDS: &str = "k8s.io/initial-events-end";

/// One kind of objects on an API server.
pub(super) struct ApiServer {
    connection: Connection,
    kind: Kind,
    client: Option<Client>,
    /// Where the objects are, once that is known.
    path: Option<String>,
}

type Events = Pin<Box<dyn Stream<Item = Result<Event, Failure>> + Send>>;

impl ApiServer {
    pub(super) const fn new(connection: Connection, kind: Kind) -> Self {
        Self {
            connection,
            kind,
            client: None,
            path: None,
        }
    }

    async fn client(&mut self) -> Result<Client, Failure> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let mut config = match &self.connection {
            Connection::Kubeconfig(path) => {
                let read = Kubeconfig::read_from(path).map_err(|error| unconfigured(&error))?;
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(read, &options).await;
                config.map_err(|error| unconfigured(&error))?
            }
            Connection::ServiceAccount => {
                Config::incluster().map_err(|error| unconfigured(&error))?
            }
        };
        config.connect_timeout = Some(TIME_LIMIT);
        // The watches wait by themselves.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|error| failure(&error))?;
        Ok(self.client.insert(client).clone())
    }

    async fn text(&mut self, path: &str) -> Result<String, Failure> {
        let client = self.client().await?;
        let request = request(path)?;
        let answer = timeout(TIME_LIMIT, client.request_text(request)).await;
        let answer = answer.map_err(|_| too_slow())?;
        answer.map_err(|error| failure(&error))
    }

    async fn path(&mut self) -> Result<String, Failure> {
        if let Some(path) = &self.path {
            return Ok(path.clone());
        }
        let path = match self.kind {
            Kind::Namespaces => "/api/v1/namespaces".to_owned(),
            Kind::Nodes => "/api/v1/nodes".to_owned(),
            Kind::Pods => "/api/v1/pods".to_owned(),
            Kind::Services => "/api/v1/services".to_owned(),
            Kind::EndpointSlices => format!("{DISCOVERY}/endpointslices"),
            Kind::NetworkPolicies => format!("{NETWORKING}/networkpolicies"),
            Kind::ServiceCidrs => {
                let version: Version = parse(&self.text(NETWORKING).await?)?;
                let name = self.kind.name();
                if !version.resources.iter().any(|it| it.name == name) {
                    return Err(lacks(&format!(
                        "the API server has no {name} in this version"
                    )));
                }
                format!("{NETWORKING}/{name}")
            }
            Kind::ClusterNetworkPolicies => {
                let group: Group = parse(&self.text(POLICY_GROUP).await?)?;
                let has = |version: &str| group.versions.iter().any(|it| it.version == version);
                let version = POLICY_VERSIONS.iter().copied().find(|it| has(it));
                let Some(version) = version else {
                    return Err(lacks(
                        "the API server has no version of it that the agent reads",
                    ));
                };
                format!("{POLICY_GROUP}/{version}/clusternetworkpolicies")
            }
        };
        Ok(self.path.insert(path).clone())
    }
}

impl Server for ApiServer {
    type Events = Events;

    async fn page(&mut self, rest: Option<&str>) -> Result<Page, Failure> {
        let limit = match self.kind {
            Kind::EndpointSlices => SLICE_PAGE,
            _ => PAGE,
        };
        let mut path = format!("{}?limit={limit}", self.path().await?);
        if let Some(rest) = rest {
            path.push_str("&continue=");
            path.push_str(&query_part(rest));
        }
        let list: List = parse(&self.text(&path).await?)?;
        Ok(Page {
            items: list.items.unwrap_or_default(),
            version: list.metadata.resource_version,
            rest: list.metadata.rest.filter(|rest| !rest.is_empty()),
        })
    }

    async fn watch(&mut self, version: Option<&str>) -> Result<Events, Failure> {
        let seconds = spread(WATCH).as_secs();
        let path = self.path().await?;
        let mut path =
            format!("{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}");
        match version {
            Some(version) => {
                path.push_str("&resourceVersion=");
                path.push_str(&query_part(version));
            }
            // Without a version, what is sent is not older than what the server has now.
            None => path.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
        }
        let client = self.client().await?;
        let request = request(&path)?;
        let answer = timeout(TIME_LIMIT, client.request_events::<Value>(request)).await;
        let events = answer.map_err(|_| too_slow())?;
        let events = events.map_err(|error| failure(&error))?;
        let read = |event: Result<WatchEvent<Value>, Error>| {
            event.map_err(|error| failure(&error)).and_then(read_event)
        };
        Ok(Box::pin(events.map(read)))
    }

    async fn is_absent(&mut self) -> bool {
        // In this order, and without what was found before: a server that has just started, or a version that
        // is not served any more, is no absence.
        if self.text("/readyz").await.is_err() {
            return false;
        }
        self.path = None;
        self.path().await.is_err_and(|failure| failure.is(404))
    }

    fn reconnect(&mut self) {
        self.client = None;
        self.path = None;
    }
}

fn read_event(event: WatchEvent<Value>) -> Result<Event, Failure> {
    Ok(match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => Event::Is(object),
        WatchEvent::Deleted(object) => Event::IsGone(object),
        WatchEvent::Bookmark(bookmark) => Event::Bookmark {
            ends_list: bookmark.metadata.annotations.contains_key(LIST_ENDS),
            version: bookmark.metadata.resource_version,
        },
        WatchEvent::Error(status) => return Err(failure(&Error::Api(status))),
    })
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMetadata,
    items: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    rest: Option<String>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
}

#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
}

/// A failure as if the kind itself had been asked for.
fn lacks(text: &str) -> Failure {
    Failure {
        code: Some(404),
        text: text.to_owned(),
        ..Failure::default()
    }
}

fn request(path: &str) -> Result<Request<Vec<u8>>, Failure> {
    let request = Request::get(path).body(Vec::new());
    request.map_err(|error| Failure {
        text: format!("no request can be made: {error}"),
        ..Failure::default()
    })
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| Failure {
        text: format!("the API server's answer cannot be read: {error}"),
        ..Failure::default()
    })
}

fn too_slow() -> Failure {
    Failure {
        text: format!(
            "the API server did not answer within {} seconds",
            TIME_LIMIT.as_secs()
        ),
        ..Failure::default()
    }
}

fn unconfigured(error: &dyn std::error::Error) -> Failure {
    Failure {
        text: format!(
            "how to reach the API server cannot be read: {}",
            chain(error)
        ),
        ..Failure::default()
    }
}

fn failure(error: &Error) -> Failure {
    let Error::Api(status) = error else {
        return Failure {
            text: format!("the API server cannot be asked: {}", chain(error)),
            ..Failure::default()
        };
    };
    let asked = status.details.as_ref().map(|it| it.retry_after_seconds);
    let asked = asked.filter(|seconds| *seconds > 0);
    Failure {
        code: Some(status.code).filter(|code| *code != 0),
        text: format!("the API server answers {}: {}", status.code, status.message),
        wait: asked.map(|seconds| Duration::from_secs(seconds.into())),
    }
}

/// An error with its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
