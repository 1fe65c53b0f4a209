//! An echo server in a namespace that also records what reached it: the target of a probe.
//!
//! It serves TCP and UDP, and observes ICMP echo requests, which the kernel answers; each for IPv4
//! and IPv6, from one thread that ends when the server is dropped. A nonce is recorded before it is
//! echoed. Payloads that carry no nonce (load) are echoed and not recorded.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::NetNs;
use crate::nonce::{HEADER, Nonce};
use crate::wait::for_this_machine;

/// The protocol of a probe or a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proto {
    /// TCP: connect, send a nonce, receive it back.
    Tcp,
    /// UDP: one datagram in each direction.
    Udp,
    /// ICMP or ICMPv6 echo, answered by the kernel.
    Icmp,
}

/// An echo server; dropping it closes its sockets.
#[derive(Debug)]
pub struct Server {
    ports: Vec<(Proto, u16)>,
    seen: Arc<Mutex<Seen>>,
    control: Mutex<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    nonces: HashSet<Nonce>,
    /// Keyed by the listening port and the peer: connections to two ports may use one source port.
    accepted: HashMap<(u16, SocketAddr), Instant>,
}

impl Server {
    /// Serves the given ports; port 0 picks a free one. For [`Proto::Icmp`] the port is ignored.
    pub fn start(ns: &NetNs, ports: &[(Proto, u16)]) -> Result<Self> {
        let (control, worker_control) = UnixStream::pair().context("making a socket pair")?;
        worker_control.set_nonblocking(true)?;
        control.set_read_timeout(Some(for_this_machine(CONTROL)?))?;
        let seen = Arc::<Mutex<Seen>>::default();
        let mut worker = Worker {
            control: worker_control,
            seen: Arc::clone(&seen),
            listeners: Vec::new(),
            udp: Vec::new(),
            icmp: Vec::new(),
            connections: Vec::new(),
        };
        let ports = ns.run(|| -> Result<Vec<_>> {
            let open = |&(proto, port)| {
                let bound = worker.open(proto, port);
                let bound = bound.with_context(|| format!("serving {proto:?} port {port}"))?;
                Ok((proto, bound))
            };
            ports.iter().map(open).collect()
        })??;
        let thread = std::thread::Builder::new()
            .name("echo-server".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self {
            ports,
            seen,
            control: Mutex::new(control),
            thread: Some(thread),
        })
    }

    /// The first port served with `proto`.
    pub fn port(&self, proto: Proto) -> Result<u16> {
        let found = self.ports.iter().find(|(served, _)| *served == proto);
        found
            .map(|(_, port)| *port)
            .with_context(|| format!("this server does not serve {proto:?}"))
    }

    /// What is served, in the order given to [`Server::start`], with the actual ports.
    #[must_use]
    pub fn ports(&self) -> &[(Proto, u16)] {
        &self.ports
    }

    /// Whether this nonce has arrived, including data that the kernel had queued at the call.
    pub fn saw(&self, nonce: Nonce) -> Result<bool> {
        self.drain()?;
        Ok(lock(&self.seen).nonces.contains(&nonce))
    }

    /// Whether a TCP connection to this port from this address and port was accepted after `since`.
    pub fn accepted(&self, port: u16, peer: SocketAddr, since: Instant) -> Result<bool> {
        self.drain()?;
        let key = (port, canonical(peer));
        Ok(lock(&self.seen)
            .accepted
            .get(&key)
            .is_some_and(|at| *at >= since))
    }

    /// How many nonces have arrived.
    pub fn seen(&self) -> Result<usize> {
        self.drain()?;
        Ok(lock(&self.seen).nonces.len())
    }

    /// Returns once the worker has handled what was queued: without this a busy machine could
    /// make a delivered payload look undelivered.
    fn drain(&self) -> Result<()> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control
            .write_all(b"?")
            .context("sending to the server thread")?;
        let mut done = [0];
        control
            .read_exact(&mut done)
            .context("the server thread does not respond")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let control = self
            .control
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let _ = control.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Passes over ready sockets after which the worker reports that it is done, even if data still
/// arrives.
const DRAIN_PASSES: u32 = 64;
/// How long the server takes to answer a question, at most.
const CONTROL: Duration = Duration::from_secs(5);

struct Worker {
    control: UnixStream,
    seen: Arc<Mutex<Seen>>,
    /// Each with its port.
    listeners: Vec<(u16, TcpListener)>,
    udp: Vec<UdpSocket>,
    icmp: Vec<Socket>,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    /// The start of a message whose rest has not arrived yet.
    partial: Vec<u8>,
}

impl Worker {
    fn open(&mut self, proto: Proto, port: u16) -> Result<u16> {
        match proto {
            Proto::Tcp => {
                let socket = dual_stack(Type::STREAM, Protocol::TCP, port)?;
                socket.listen(1024)?;
                let listener = TcpListener::from(socket);
                let port = listener.local_addr()?.port();
                self.listeners.push((port, listener));
                Ok(port)
            }
            Proto::Udp => {
                let socket = UdpSocket::from(dual_stack(Type::DGRAM, Protocol::UDP, port)?);
                let port = socket.local_addr()?.port();
                self.udp.push(socket);
                Ok(port)
            }
            Proto::Icmp => {
                let families = [
                    (Domain::IPV4, Protocol::ICMPV4),
                    (Domain::IPV6, Protocol::ICMPV6),
                ];
                for (domain, protocol) in families {
                    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
                    socket.set_nonblocking(true)?;
                    self.icmp.push(socket);
                }
                Ok(0)
            }
        }
    }

    fn run(mut self) {
        let mut draining = 0_u32;
        loop {
            let timeout = if draining > 0 {
                PollTimeout::ZERO
            } else {
                PollTimeout::NONE
            };
            let Ok(ready) = self.poll(timeout) else {
                return;
            };
            let idle = !ready.iter().skip(1).any(|ready| *ready);
            if draining > 0 && (idle || draining > DRAIN_PASSES) {
                draining = 0;
                if self.control.write_all(b"!").is_err() {
                    return;
                }
            }
            if ready.first() == Some(&true) {
                match self.control.read(&mut [0]) {
                    Ok(0) => return,
                    Ok(_) => draining = 1,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
            if draining > 0 {
                draining += 1;
            }
            self.serve(&ready);
        }
    }

    /// Readiness in this order: control, listeners, UDP, ICMP, connections.
    fn poll(&self, timeout: PollTimeout) -> nix::Result<Vec<bool>> {
        let mut fds: Vec<PollFd<'_>> = [self.control.as_fd()]
            .into_iter()
            .chain(self.listeners.iter().map(|(_, l)| l.as_fd()))
            .chain(self.udp.iter().map(AsFd::as_fd))
            .chain(self.icmp.iter().map(AsFd::as_fd))
            .chain(self.connections.iter().map(|c| c.stream.as_fd()))
            .map(|fd: BorrowedFd<'_>| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(fds.iter().map(|fd| fd.any() == Some(true)).collect())
    }

    fn serve(&mut self, ready: &[bool]) {
        // Each group consumes exactly its own flags: `zip` stops at the end of its left side
        // before it takes a flag from the right.
        let mut ready = ready.iter().skip(1).copied();
        let mut fresh = Vec::new();
        for ((port, listener), _) in self.listeners.iter().zip(&mut ready).filter(|(_, r)| *r) {
            while let Ok((stream, peer)) = listener.accept() {
                lock(&self.seen)
                    .accepted
                    .insert((*port, canonical(peer)), Instant::now());
                if stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok() {
                    let partial = Vec::new();
                    fresh.push(Connection { stream, partial });
                }
            }
        }
        for (socket, _) in self.udp.iter().zip(&mut ready).filter(|(_, r)| *r) {
            echo_datagrams(socket, &self.seen);
        }
        for (socket, _) in self.icmp.iter().zip(&mut ready).filter(|(_, r)| *r) {
            observe_echo(socket, &self.seen);
        }
        let seen = &self.seen;
        self.connections
            .retain_mut(|connection| match ready.next() {
                Some(true) => connection.echo(seen).unwrap_or(false),
                Some(false) | None => true,
            });
        self.connections.append(&mut fresh);
    }
}

impl Connection {
    /// Echoes what has arrived; false when the peer has closed the connection.
    fn echo(&mut self, seen: &Mutex<Seen>) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            let got = match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            self.partial.extend_from_slice(got);
            let whole = self.partial.len() - self.partial.len() % HEADER;
            let rest = self.partial.split_off(whole);
            for message in self.partial.chunks(HEADER) {
                record(seen, message);
            }
            self.stream.write_all(&self.partial)?;
            self.partial = rest;
        }
    }
}

fn echo_datagrams(socket: &UdpSocket, seen: &Mutex<Seen>) {
    let mut buffer = vec![0; 65_536];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        let message = buffer.get(..length).unwrap_or_default();
        record(seen, message);
        // If sending fails, the probe reports the missing echo.
        let _ = socket.send_to(message, peer);
    }
}

/// Records the nonces of echo requests. Raw IPv4 sockets also deliver the IP header, with or
/// without options; raw IPv6 sockets do not.
fn observe_echo(mut socket: &Socket, seen: &Mutex<Seen>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length) = socket.read(&mut buffer) {
        let packet = buffer.get(..length).unwrap_or_default();
        let first = packet.first().copied().unwrap_or_default();
        let header = if first >> 4 == 4 {
            usize::from(first & 15) * 4
        } else {
            0
        };
        let Some((&[8 | 128, _, ..], message)) = packet
            .get(header..)
            .and_then(<[u8]>::split_first_chunk::<8>)
        else {
            continue;
        };
        record(seen, message);
    }
}

fn record(seen: &Mutex<Seen>, message: &[u8]) {
    if let Some(nonce) = Nonce::parse(message) {
        lock(seen).nonces.insert(nonce);
    }
}

fn dual_stack(kind: Type, protocol: Protocol, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, kind, Some(protocol))?;
    socket.set_only_v6(false)?;
    socket.set_nonblocking(true)?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    Ok(socket)
}

/// A dual-stack socket reports IPv4 peers as mapped IPv6 addresses.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
