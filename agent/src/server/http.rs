//! Serves HTTP/1.1 on the connections of a listener, within limits.
//!
//! Invariants: a connection carries one request; the number of open connections is bounded, and that
//! of open-ended responses more tightly; a connection without a whole request head is closed after
//! [`HEAD`], or earlier, oldest first, when a new connection needs its place; every other one is
//! closed at its deadline unless its response is open-ended. So any client that sends a request at
//! once is answered, however many connections idle.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::StatusCode,
    response::{IntoResponse, Response},
    serve::Listener,
};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, Id, JoinSet, yield_now},
    time::timeout,
};

/// How long a client may take to send the head of its request.
const HEAD: Duration = Duration::from_secs(5);

/// What the clients of one server may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Open connections, at least 2.
    pub(super) connections: usize,
    /// From the start of a connection to the end of its response.
    pub(super) deadline: Duration,
}

impl Limits {
    /// For a process that may have so many descriptors: an eighth of them, at least 4 and at most 64.
    /// The others stay for maps, links and files.
    #[must_use]
    pub(super) fn of_descriptors(descriptors: u64, deadline: Duration) -> Self {
        let share = usize::try_from(descriptors / 8).unwrap_or(usize::MAX);
        Self {
            connections: share.clamp(4, 64),
            deadline,
        }
    }
}

/// Put into the extensions of a response that has no end of its own: it has no deadline.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenEnded;

/// What a connection has come to.
#[derive(Debug, Default)]
struct Progress {
    /// The whole head of its request has arrived.
    has_request: AtomicBool,
    /// Its response is open-ended.
    stream: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Progress {
    fn has_request(&self) -> bool {
        self.has_request.load(Ordering::Relaxed)
    }

    fn is_stream(&self) -> bool {
        let stream = self.stream.lock();
        stream.unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// What becomes of a new connection.
#[derive(Debug, PartialEq, Eq)]
enum Admission {
    /// There is room.
    Room,
    /// This one gives way to it: the oldest that has not sent its request.
    Replaces(Id),
    /// It waits in the listener's queue until another connection ends.
    Waits,
}

/// Decides about the next connection; `open` are the open ones, oldest first, each with whether it
/// has sent its request.
fn admit(limit: usize, mut open: impl ExactSizeIterator<Item = (Id, bool)>) -> Admission {
    if open.len() < limit {
        return Admission::Room;
    }
    open.find(|(_, has_request)| !has_request)
        .map_or(Admission::Waits, |(id, _)| Admission::Replaces(id))
}

/// The open connections, oldest first.
#[derive(Default)]
struct Connections {
    next: u64,
    open: BTreeMap<u64, (AbortHandle, Arc<Progress>)>,
}

impl Connections {
    fn add(&mut self, task: AbortHandle, progress: Arc<Progress>) {
        self.open.insert(self.next, (task, progress));
        self.next += 1;
    }

    fn remove(&mut self, id: Id) {
        self.open.retain(|_, (task, _)| task.id() != id);
    }

    fn admission(&self, limit: usize) -> Admission {
        let open = self.open.values();
        admit(
            limit,
            open.map(|(task, progress)| (task.id(), progress.has_request())),
        )
    }

    /// Closes a connection. Its descriptor is free once its task has run again.
    fn close(&mut self, id: Id) {
        for (task, _) in self.open.values().filter(|(task, _)| task.id() == id) {
            task.abort();
        }
        self.remove(id);
    }
}

/// Serves connections until `shutdown` completes; open responses do not delay that.
pub(super) async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let streams = Arc::new(Semaphore::new(limits.connections / 2));
    let mut connections = Connections::default();
    let mut tasks = JoinSet::new();
    loop {
        let may_accept = connections.admission(limits.connections) != Admission::Waits;
        tokio::select! {
            biased;
            () = &mut shutdown => return,
            Some(ended) = tasks.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                connections.remove(id);
            }
            (io, _) = listener.accept(), if may_accept => {
                // Others may have ended or sent their request meanwhile.
                if let Admission::Replaces(id) = connections.admission(limits.connections) {
                    connections.close(id);
                }
                let progress = Arc::new(Progress::default());
                let service = Tracked {
                    router: TowerToHyperService::new(router.clone()),
                    progress: Arc::clone(&progress),
                    streams: Arc::clone(&streams),
                };
                let task = tasks.spawn(carry(io, service, limits.deadline));
                connections.add(task, progress);
                // Lets it read its request before the next connection can take its place.
                yield_now().await;
            }
        }
    }
}

/// Carries one connection to its end.
async fn carry<I>(io: I, service: Tracked, deadline: Duration)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let progress = Arc::clone(&service.progress);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    // An error ends the connection; the client sees that.
    let in_time = timeout(deadline, connection.as_mut()).await;
    if in_time.is_err() && progress.is_stream() {
        let _ = connection.await;
    }
}

/// The router, for one connection.
struct Tracked {
    router: TowerToHyperService<Router>,
    progress: Arc<Progress>,
    streams: Arc<Semaphore>,
}

impl hyper::service::Service<Request<Incoming>> for Tracked {
    type Response = Response;
    type Error = Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.progress.has_request.store(true, Ordering::Relaxed);
        let (progress, streams) = (Arc::clone(&self.progress), Arc::clone(&self.streams));
        let response = self.router.call(request);
        Box::pin(async move {
            let response = response.await?;
            if response.extensions().get::<OpenEnded>().is_none() {
                return Ok(response);
            }
            let Ok(permit) = streams.try_acquire_owned() else {
                return Ok(too_many_streams());
            };
            let stream = progress.stream.lock();
            *stream.unwrap_or_else(PoisonError::into_inner) = Some(permit);
            Ok(response)
        })
    }
}

fn too_many_streams() -> Response {
    let error = "{\"error\":\"too many open streams: end one of them first\"}";
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [(axum::http::header::CONTENT_TYPE, "application/json")],
        Body::from(error),
    )
        .into_response()
}

#[cfg(test)]
mod tests;
