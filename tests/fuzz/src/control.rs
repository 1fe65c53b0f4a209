//! The control API: any bytes on a connection get an HTTP response or none, never an internal
//! error, and every response is well-formed.
//!
//! The server is the agent's, with connections in memory and fixed views.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::sync::Arc;

use axum::serve::Listener;
use jiff::Timestamp;
use ringfence::model::ModeName;
use ringfence::observe::History;
use ringfence::policy::{Explanation, Query, QueryError, explain};
use ringfence::server::view::{
    EndpointView, IdentityView, ModeSource, ModeView, PolicyView, RuleView, Status,
};
use ringfence::server::{Command, Control, Views};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::yield_now;

use crate::example::{INVENTORY, POLICIES};
use crate::policy::NOW;

/// Larger than any input or response, so that neither end ever waits for buffer space.
const BUFFER: usize = 1 << 20;
/// How often other tasks run before a response counts as complete.
const YIELDS: usize = 24;
/// The status codes that untrusted input may cause; 500 is not one of them.
const STATUSES: [u16; 10] = [200, 400, 404, 405, 408, 413, 415, 422, 431, 503];

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

/// Bytes that a client sends on one connection.
pub fn control(input: &[u8]) {
    check(input, &respond(input));
}

/// The agent's response to it.
pub(crate) fn respond(input: &[u8]) -> Vec<u8> {
    SERVER.with_borrow_mut(|server| {
        let Server { runtime, clients } = server.get_or_insert_with(Server::start);
        runtime.block_on(receive_response(clients, input))
    })
}

async fn receive_response(clients: &mpsc::UnboundedSender<DuplexStream>, input: &[u8]) -> Vec<u8> {
    let (mut client, server_end) = duplex(BUFFER);
    clients.send(server_end).expect("the server runs");
    let mut response = Vec::new();
    // The server may have closed the connection already.
    _ = client.write_all(input).await;
    for _ in 0..YIELDS {
        yield_now().await;
    }
    // Read what is available; do not wait for a stream that continues.
    loop {
        tokio::select! {
            biased;
            read = client.read_buf(&mut response) => {
                if !matches!(read, Ok(1..)) {
                    return response;
                }
            }
            () = yield_now() => return response,
        }
    }
}

struct Server {
    runtime: Runtime,
    clients: mpsc::UnboundedSender<DuplexStream>,
}

impl Server {
    fn start() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let (clients, connections) = mpsc::unbounded_channel();
        let (commands, mut inbox) = mpsc::channel(1);
        let control = Control {
            views: Arc::new(Fixed),
            commands,
            history: Arc::new(History::new(10)),
            node: Arc::from("node-1"),
        };
        runtime.spawn(control.serve(MemoryListener(connections), 1024, pending()));
        runtime.spawn(async move {
            while let Some(command) = inbox.recv().await {
                let (outcome, reply) = match command {
                    Command::SetMode { reply, .. } => (Ok(()), reply),
                    Command::Reload { reply } => (Err("f.toml:1:1: bad".to_owned()), reply),
                };
                // The client may have disconnected.
                _ = reply.send(outcome);
            }
        });
        Self { runtime, clients }
    }
}

/// A listener for in-memory connections.
struct MemoryListener(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for MemoryListener {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(connection) => (connection, ()),
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

struct Fixed;

impl Views for Fixed {
    fn status(&self) -> Status {
        Status::default()
    }

    fn endpoints(&self) -> Vec<EndpointView> {
        vec![EndpointView::default()]
    }

    fn identities(&self) -> Vec<IdentityView> {
        vec![IdentityView::default()]
    }

    fn policies(&self) -> Vec<PolicyView> {
        Vec::new()
    }

    fn rules(&self) -> Vec<RuleView> {
        vec![RuleView {
            policy: Some("shop/orders".to_owned()),
            last_hit: Some(Timestamp::UNIX_EPOCH),
            ..RuleView::default()
        }]
    }

    fn modes(&self) -> Vec<ModeView> {
        vec![ModeView {
            namespace: "shop".to_owned(),
            mode: ModeName::Observe,
            source: ModeSource::Config,
            unstored: None,
        }]
    }

    fn explain(&self, query: &Query, all: bool) -> Result<Explanation, QueryError> {
        explain(&INVENTORY, &POLICIES, NOW, query, all)
    }
}

/// Checks the first response; the same code serves pipelined requests.
fn check(input: &[u8], response: &[u8]) {
    let Some((head, body)) = head(response) else {
        assert!(
            response.is_empty(),
            "a partial response: {}",
            escaped(response)
        );
        return;
    };
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status: u16 = status.unwrap_or_else(|| panic!("no status: {first}"));
    if status == 100 {
        return check(input, body);
    }
    assert!(STATUSES.contains(&status), "{first}");
    let value = |name: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        headers.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    };
    let is_json = value("content-type") == Some("application/json");
    let length = value("content-length").and_then(|length| length.parse::<usize>().ok());
    // The response to HEAD has the length of a body that does not follow.
    if let Some(body) = length.and_then(|length| body.get(..length))
        && is_json
        && !input.starts_with(b"HEAD")
    {
        json(status, body);
    }
}

fn json(status: u16, body: &[u8]) {
    let control = body.iter().find(|byte| byte.is_ascii_control());
    assert!(control.is_none(), "{control:?} in {}", escaped(body));
    let value: Value = serde_json::from_slice(body).expect("JSON is JSON");
    if status != 200 {
        let error = value.get("error").and_then(Value::as_str);
        assert!(error.is_some_and(|error| !error.is_empty()), "{value}");
    }
}

fn head(response: &[u8]) -> Option<(&str, &[u8])> {
    let end = response.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = response.split_at_checked(end + 4)?;
    Some((std::str::from_utf8(head).expect("a head is text"), body))
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().take(400).map(char::from).collect()
}
