//! A small HTTP/1.1 server and client over plain TCP: real requests between workloads.
//!
//! GET only. Connections are kept open unless the request has `Connection: close`. A request with
//! `Upgrade` turns its connection into a plain two-way channel whose server end
//! [`HttpServer::upgraded`] returns. The server counts connections by client address, so that "no
//! connection arrived" is distinguishable from "no response came back". No TLS, no request bodies.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::netns::NetNs;

/// The largest head of a request or response in bytes.
const MAX_HEAD: u64 = 8192;
/// Deadline of requests from the server's own namespace.
const LOCAL_DEADLINE: Duration = Duration::from_secs(5);

/// A server on one port, for IPv4 and IPv6; dropping it closes every connection.
#[derive(Debug)]
pub struct HttpServer {
    ns: NetNs,
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    stop: AtomicBool,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    accepted: HashMap<IpAddr, usize>,
    count: u64,
    live: HashMap<u64, TcpStream>,
    upgraded: HashMap<SocketAddr, TcpStream>,
}

impl HttpServer {
    /// Serves a port in `ns`; every response names the server and repeats the path.
    pub fn start(ns: &NetNs, port: u16, name: &str) -> Result<Self> {
        let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = ns.run(|| TcpListener::bind(at))?;
        let listener = listener.with_context(|| format!("serving tcp/{port}"))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            stop: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("http-server".to_owned())
            .spawn(move || worker.accept(&listener))?;
        Ok(Self {
            ns: ns.clone(),
            port,
            shared,
            thread: Some(thread),
        })
    }

    /// How many connections from these addresses have been accepted, including those that were in
    /// the accept queue at the call.
    pub fn accepted_from(&self, addresses: &[IpAddr]) -> Result<usize> {
        // Connections are accepted in order: after this response, earlier ones are counted.
        self.ns
            .run(|| HttpClient::new(self.loopback(), LOCAL_DEADLINE).get("/settle"))?
            .context("the server does not respond over loopback")?;
        let connections = self.shared.connections();
        let counts = addresses.iter().map(|ip| connections.accepted.get(ip));
        Ok(counts.flatten().sum())
    }

    /// The server's end of the connection that this client has upgraded.
    #[must_use]
    pub fn upgraded(&self, client: SocketAddr) -> Option<TcpStream> {
        self.shared.connections().upgraded.remove(&client)
    }

    fn loopback(&self) -> SocketAddr {
        SocketAddr::from((Ipv6Addr::LOCALHOST, self.port))
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Wakes the accepting thread, which checks `stop` for each connection.
        let loopback = self.loopback();
        let _ = self
            .ns
            .run(|| TcpStream::connect_timeout(&loopback, LOCAL_DEADLINE));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in self.shared.connections().live.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        let guard = self.connections.lock();
        guard.unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            // A failed accept affects only one connection, and its client sees the failure.
            let Ok((stream, peer)) = stream.and_then(|s| s.peer_addr().map(|peer| (s, peer)))
            else {
                continue;
            };
            // A dual-stack socket reports IPv4 peers as mapped IPv6 addresses.
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let number = {
                let mut connections = self.connections();
                *connections.accepted.entry(peer.ip()).or_default() += 1;
                connections.count += 1;
                let number = connections.count;
                if let Ok(clone) = stream.try_clone() {
                    connections.live.insert(number, clone);
                }
                number
            };
            let shared = Arc::clone(self);
            let serve = move || {
                // An error ends the connection; the client counts failures.
                let _ = shared.serve(stream, peer);
                shared.connections().live.remove(&number);
            };
            let _ = std::thread::Builder::new().spawn(serve);
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while let Some(request) = Request::read(&mut reader)? {
            if request.upgrade {
                let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                            Upgrade: channel\r\n\r\n";
                // Stored before the response, so that it is there when the client receives it.
                let stream = reader.get_ref().try_clone()?;
                self.connections().upgraded.insert(peer, stream);
                reader.get_mut().write_all(head.as_bytes())?;
                return Ok(());
            }
            let body = format!("{} answers {}\n", self.name, request.path);
            let connection = if request.close { "close" } else { "keep-alive" };
            let response = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
                 Connection: {connection}\r\n\r\n{body}",
                body.len(),
            );
            reader.get_mut().write_all(response.as_bytes())?;
            if request.close {
                return Ok(());
            }
        }
        Ok(())
    }
}

struct Request {
    path: String,
    close: bool,
    upgrade: bool,
}

impl Request {
    /// The next request of a connection, or `None` when the client has closed it.
    fn read(reader: &mut impl BufRead) -> Result<Option<Self>> {
        let head = read_head(reader)?;
        let Some((request, headers)) = head.split_first() else {
            return Ok(None);
        };
        let path = request.strip_prefix("GET ");
        let path = path.and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
        Ok(Some(Self {
            path: path.context("not a GET of HTTP/1.1")?.to_owned(),
            close: value(headers, "connection").is_some_and(|v| v.eq_ignore_ascii_case("close")),
            upgrade: value(headers, "upgrade").is_some(),
        }))
    }
}

/// A client of one server.
#[derive(Debug)]
pub struct HttpClient {
    target: SocketAddr,
    within: Duration,
    keep: bool,
    kept: Option<BufReader<TcpStream>>,
}

impl HttpClient {
    /// A client that opens a new connection for each request, in the network namespace of the
    /// thread that calls [`HttpClient::get`].
    #[must_use]
    pub fn new(target: SocketAddr, within: Duration) -> Self {
        Self {
            target,
            within,
            keep: false,
            kept: None,
        }
    }

    /// Sends all requests on one connection; opens a new one only after a failure.
    #[must_use]
    pub fn keep_alive(mut self) -> Self {
        self.keep = true;
        self
    }

    /// The body of a successful response.
    pub fn get(&mut self, path: &str) -> Result<String> {
        let connection = if self.keep { "keep-alive" } else { "close" };
        let (mut reader, head) = self.exchange(path, &format!("Connection: {connection}"))?;
        let (status, headers) = head.split_first().context("closed before the response")?;
        ensure!(status.starts_with("HTTP/1.1 200 "), "{status}");
        let length: usize = value(headers, "content-length")
            .context("no Content-Length")?
            .parse()?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if self.keep {
            self.kept = Some(reader);
        }
        Ok(String::from_utf8(body)?)
    }

    /// Opens a connection and upgrades it to a plain two-way channel.
    pub fn upgrade(mut self, path: &str) -> Result<TcpStream> {
        let headers = "Connection: Upgrade\r\nUpgrade: channel";
        let (reader, head) = self.exchange(path, headers)?;
        match head.first() {
            Some(status) if status.starts_with("HTTP/1.1 101 ") => Ok(reader.into_inner()),
            status => bail!("no upgrade: {status:?}"),
        }
    }

    fn exchange(
        &mut self,
        path: &str,
        headers: &str,
    ) -> Result<(BufReader<TcpStream>, Vec<String>)> {
        let end = Instant::now() + self.within;
        let mut reader = match self.kept.take() {
            Some(kept) => kept,
            None => BufReader::new(TcpStream::connect_timeout(&self.target, self.within)?),
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n\r\n",
            self.target
        );
        let stream = reader.get_mut();
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes())?;
        let left = end.saturating_duration_since(Instant::now());
        // A zero timeout is invalid for a socket.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let head = read_head(&mut reader)?;
        Ok((reader, head))
    }
}

/// The lines before the empty line; no lines if the other end has closed the connection.
fn read_head(reader: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut head = reader.take(MAX_HEAD);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return if lines.is_empty() {
                Ok(lines)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        match line.trim_end() {
            "" => return Ok(lines),
            line => lines.push(line.to_owned()),
        }
    }
}

fn value<'a>(headers: &'a [String], name: &str) -> Option<&'a str> {
    headers.iter().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}
