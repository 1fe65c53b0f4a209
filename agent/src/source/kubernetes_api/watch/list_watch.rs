//! The watch of one kind of objects: a list of all, and then what changes.
//!
//! Invariants: an error never ends it, and after one it continues from where it was; only if the server does not
//! know that place any more, all objects are listed again. A list begins with [`Update::Begins`] and counts
//! only if it ends with [`Update::IsWhole`]. A list and a watch without any sign of life end and begin again.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::backoff::{Backoff, spread};
use crate::model::NodeName;
use crate::source::kubernetes_api::object::{Kind, convert, key};
use crate::source::kubernetes_api::state::Update;

/// How long a list may be silent.
const LIST_SILENCE: Duration = Duration::from_secs(20);
/// How long a watch may be silent. The server sends a bookmark about each minute.
const WATCH_SILENCE: Duration = Duration::from_secs(100);
/// A watch that the server ends sooner than that is waited for before the next one.
const SHORT: Duration = Duration::from_secs(5);
/// How often a kind that the server does not have is asked for.
const ABSENT: Duration = Duration::from_secs(30);

/// Why a request failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Failure {
    /// The HTTP status, if there was an answer.
    pub(super) code: Option<u16>,
    /// What was wrong, in words.
    pub(super) text: String,
    /// How long the server asks to wait.
    pub(super) wait: Option<Duration>,
}

impl Failure {
    fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn is(&self, code: u16) -> bool {
        self.code == Some(code)
    }
}

/// What a watch says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// An object is there, or has changed.
    Is(Value),
    /// An object is gone.
    IsGone(Value),
    /// Everything up to this version was said.
    Bookmark {
        version: String,
        /// It is the end of the list that the watch began with.
        ends_list: bool,
    },
}

/// Objects of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    pub(super) version: String,
    /// What to ask for next.
    pub(super) rest: Option<String>,
}

/// The API server; a trait, so that tests can answer.
pub(super) trait Server: Send {
    type Events: Stream<Item = Result<Event, Failure>> + Unpin + Send;

    /// The objects from this place in the list on.
    fn page(&mut self, rest: Option<&str>) -> impl Future<Output = Result<Page, Failure>> + Send;

    /// What changes after this version; without one, all objects come first, with a bookmark at their end.
    fn watch(
        &mut self,
        version: Option<&str>,
    ) -> impl Future<Output = Result<Self::Events, Failure>> + Send;

    /// Whether a server that knows everything that it has does not have the kind.
    fn is_absent(&mut self) -> impl Future<Output = bool> + Send;

    /// Connects again before the next request.
    fn reconnect(&mut self);
}

/// Why a step ended.
enum End {
    /// Updates are not taken any more.
    Unwanted,
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The watch of one kind.
pub(super) struct ListWatch<S> {
    kind: Kind,
    node: NodeName,
    server: S,
    updates: mpsc::Sender<Update>,
    /// Whether the server can send a list as part of a watch.
    is_streaming: bool,
    /// Up to where everything is known.
    version: Option<String>,
    backoff: Backoff,
    is_failing: bool,
}

impl<S: Server> ListWatch<S> {
    pub(super) fn new(
        kind: Kind,
        node: NodeName,
        server: S,
        updates: mpsc::Sender<Update>,
    ) -> Self {
        Self {
            kind,
            node,
            server,
            updates,
            is_streaming: true,
            version: None,
            backoff: Backoff::new(),
            is_failing: false,
        }
    }

    /// Runs until updates are not taken any more.
    pub(super) async fn run(mut self) {
        loop {
            let began = Instant::now();
            let wait = match self.step().await {
                Ok(()) if began.elapsed() < SHORT => spread(SHORT),
                Ok(()) => Duration::ZERO,
                Err(End::Unwanted) => return,
                Err(End::Failed(failure)) => match self.failed(failure).await {
                    Ok(wait) => wait,
                    Err(_) => return,
                },
            };
            sleep(wait).await;
        }
    }

    /// Reports a failure; returns how long to wait.
    async fn failed(&mut self, failure: Failure) -> Result<Duration, End> {
        self.server.reconnect();
        if failure.is(410) {
            self.version = None;
        }
        if self.kind.is_optional() && failure.is(404) && self.server.is_absent().await {
            self.version = None;
            self.send(Update::Begins(self.kind)).await?;
            self.send(Update::IsWhole(self.kind)).await?;
            self.works().await?;
            return Ok(spread(ABSENT));
        }
        self.is_failing = true;
        self.send(Update::Fails(self.kind, failure.text)).await?;
        Ok(self.backoff.after_error(failure.wait))
    }

    /// Notes a success.
    async fn works(&mut self) -> Result<(), End> {
        self.backoff.reset();
        self.answers().await
    }

    /// Notes that the server answers again. What it says may be another error.
    async fn answers(&mut self) -> Result<(), End> {
        if std::mem::take(&mut self.is_failing) {
            self.send(Update::Works(self.kind)).await?;
        }
        Ok(())
    }

    async fn send(&self, update: Update) -> Result<(), End> {
        let sent = self.updates.send(update).await;
        sent.map_err(|_| End::Unwanted)
    }

    /// Lists all objects if need be, and follows what changes until the watch ends.
    async fn step(&mut self) -> Result<(), End> {
        if self.version.is_none() {
            if self.is_streaming {
                match self.server.watch(None).await {
                    Ok(events) => {
                        self.send(Update::Begins(self.kind)).await?;
                        return self.follow(events, true).await;
                    }
                    // It does not know what is asked for.
                    Err(failure) if failure.is(400) || failure.is(422) => self.is_streaming = false,
                    Err(failure) => return Err(failure.into()),
                }
            }
            self.list().await?;
        }
        let version = self.version.clone();
        let events = self.server.watch(version.as_deref()).await?;
        self.answers().await?;
        self.follow(events, false).await
    }

    /// Lists all objects page by page.
    async fn list(&mut self) -> Result<(), End> {
        self.send(Update::Begins(self.kind)).await?;
        let mut rest: Option<String> = None;
        loop {
            let page = self.server.page(rest.as_deref()).await?;
            for item in page.items {
                self.is(item).await?;
            }
            if page.rest.is_none() {
                self.send(Update::IsWhole(self.kind)).await?;
                self.version = Some(page.version);
                return self.works().await;
            }
            rest = page.rest;
        }
    }

    /// Follows a watch, which begins with all objects if it is the list.
    async fn follow(&mut self, mut events: S::Events, mut is_list: bool) -> Result<(), End> {
        let began = Instant::now();
        loop {
            let most = if is_list { LIST_SILENCE } else { WATCH_SILENCE };
            let event = match timeout(most, events.next()).await {
                Ok(Some(event)) => event?,
                Ok(None) if is_list => return Err(Failure::new("the list broke off").into()),
                Err(_) if is_list => {
                    // An older server sends all objects, and never says which one is the last.
                    self.is_streaming = false;
                    return Err(Failure::new("the list did not end").into());
                }
                Ok(None) | Err(_) => return Ok(()),
            };
            let version = match event {
                Event::Is(object) => {
                    let version = version_of(&object);
                    self.is(object).await?;
                    version
                }
                Event::IsGone(object) => {
                    let version = version_of(&object);
                    match key(self.kind, &object) {
                        Ok(key) => self.send(Update::IsGone(key)).await?,
                        Err(error) => self.nameless(error).await?,
                    }
                    version
                }
                Event::Bookmark { version, ends_list } => {
                    if is_list && ends_list {
                        is_list = false;
                        self.send(Update::IsWhole(self.kind)).await?;
                        self.works().await?;
                    }
                    Some(version)
                }
            };
            if !is_list {
                self.version = version.or(self.version.take());
                // A server that says a little and then fails, again and again, is no server that works.
                if began.elapsed() >= SHORT {
                    self.backoff.reset();
                }
                self.answers().await?;
            }
        }
    }

    async fn is(&mut self, mut object: Value) -> Result<(), End> {
        let error = match convert(self.kind, &self.node, &mut object) {
            Ok(converted) => return self.send(Update::Is(Box::new(converted))).await,
            Err(error) => error,
        };
        match key(self.kind, &object) {
            Ok(key) => self.send(Update::IsUnreadable(key, error)).await,
            Err(error) => self.nameless(error).await,
        }
    }

    async fn nameless(&mut self, error: String) -> Result<(), End> {
        self.is_failing = true;
        let text = format!("an object cannot be read: {error}");
        self.send(Update::Fails(self.kind, text)).await
    }
}

fn version_of(object: &Value) -> Option<String> {
    let version = object.get("metadata")?.get("resourceVersion")?;
    version.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests;
