//! The limits, on real connections.

use std::net::SocketAddr;

use axum::routing::get;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::*;

/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(20);
const LIMITS: Limits = Limits {
    connections: 4,
    deadline: Duration::from_millis(400),
};

/// A server with a short page, a page larger than any socket's buffers, a page that never comes and
/// a response without end.
async fn start(limits: Limits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endless = || async {
        let first = futures_util::stream::iter([Ok::<_, Infallible>("first\n")]);
        let lines = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        let mut response = Body::from_stream(lines).into_response();
        response.extensions_mut().insert(OpenEnded);
        response
    };
    let router = Router::new()
        .route("/", get(|| async { "page\n" }))
        .route("/large", get(|| async { "x".repeat(64 << 20) }))
        .route("/never", get(std::future::pending::<&str>))
        .route("/endless", get(endless));
    tokio::spawn(serve(listener, router, limits, std::future::pending()));
    address
}

async fn connect(address: SocketAddr) -> TcpStream {
    timeout(SOON, TcpStream::connect(address))
        .await
        .unwrap()
        .unwrap()
}

async fn send(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = connect(address).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// What comes until the server closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends it as well.
    let _ = timeout(SOON, stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn fetch(address: SocketAddr, path: &str) -> String {
    rest(send(address, path).await).await
}

async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let length = timeout(SOON, stream.read(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[tokio::test]
async fn requests_are_answered_while_many_connections_idle() {
    let address = start(Limits {
        deadline: SOON,
        ..LIMITS
    })
    .await;
    // Before the first connection, whose head has until then plus `HEAD`.
    let began = Instant::now();
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(connect(address).await);
    }
    assert!(fetch(address, "/").await.ends_with("page\n"));
    // The oldest gave way, the newest are still open.
    assert_eq!(rest(idle.remove(0)).await, "");
    assert!(began.elapsed() < HEAD, "only after {:?}", began.elapsed());
    let mut newest = idle.pop().unwrap();
    newest
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    assert!(rest(newest).await.ends_with("page\n"));
}

#[tokio::test]
async fn a_connection_carries_one_request() {
    let address = start(LIMITS).await;
    let mut stream = connect(address).await;
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream
        .write_all(request.repeat(2).as_bytes())
        .await
        .unwrap();
    let response = rest(stream).await;
    assert_eq!(response.matches("HTTP/1.1 200").count(), 1, "{response}");
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let address = start(Limits {
        deadline: SOON,
        ..LIMITS
    })
    .await;
    let mut slow = connect(address).await;
    slow.write_all(b"GET / HT").await.unwrap();
    let silent = connect(address).await;
    let began = Instant::now();
    rest(silent).await;
    rest(slow).await;
    assert!(began.elapsed() < HEAD + HEAD, "{:?}", began.elapsed());
}

#[tokio::test]
async fn slow_readers_and_slow_answers_end_at_the_deadline() {
    let address = start(LIMITS).await;
    // They take every place and do not give way to others.
    let mut busy = Vec::new();
    for path in ["/large", "/large", "/never", "/never"] {
        busy.push(send(address, path).await);
    }
    let began = Instant::now();
    assert!(fetch(address, "/").await.ends_with("page\n"));
    assert!(began.elapsed() < SOON / 2, "{:?}", began.elapsed());
    let never = rest(busy.pop().unwrap()).await;
    assert_eq!(never, "");
}

#[tokio::test]
async fn an_open_ended_response_has_no_deadline_and_there_are_only_so_many() {
    let address = start(LIMITS).await;
    let mut streams = Vec::new();
    for _ in 0..LIMITS.connections / 2 {
        let mut stream = send(address, "/endless").await;
        let text = head(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        streams.push(stream);
    }
    let refused = fetch(address, "/endless").await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("too many open streams"), "{refused}");
    // The control: another connection ends at its deadline, and these are still open then.
    rest(send(address, "/never").await).await;
    for stream in &mut streams {
        let more = timeout(LIMITS.deadline, async {
            while stream.read(&mut [0; 64]).await.unwrap() > 0 {}
        });
        assert!(more.await.is_err(), "a stream ended");
    }
    // The place of a stream that ends is free again.
    drop(streams);
    let end = Instant::now() + SOON;
    loop {
        let mut stream = send(address, "/endless").await;
        if head(&mut stream).await.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(Instant::now() < end, "no stream ended");
    }
}

#[test]
fn an_eighth_of_the_descriptors_is_for_the_clients_of_a_server() {
    let connections = |of| Limits::of_descriptors(of, SOON).connections;
    assert_eq!(
        [0, 64, 256, 1024, u64::MAX].map(connections),
        [4, 8, 32, 64, 64]
    );
}
