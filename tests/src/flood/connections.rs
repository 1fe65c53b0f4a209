//! Connections of the other workloads, many at once: opened, and then used in both directions.
//!
//! The server sends first, because policy does not allow what it sends unless the fence remembers
//! the connection. A segment of the client would be allowed, and remembered again.
//!
//! TCP sends again what a busy machine loses, so the deadline is long; it is reached only if
//! something is dropped for good.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::topology::Workload;
use crate::wait::eventually;

/// The server's end of all connections, one listener for each IP version.
pub(super) struct Listeners([(TcpListener, SocketAddr); 2]);

impl Listeners {
    pub(super) fn open(server: &Workload) -> Result<Self> {
        let [one, other] = server.ips().map(|ip| -> Result<_> {
            let at = SocketAddr::new(ip, 0);
            let socket = server.ns.run(|| -> std::io::Result<_> {
                let domain = Domain::for_address(at);
                let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
                socket.bind(&at.into())?;
                socket.listen(4096)?;
                socket.set_nonblocking(true)?;
                Ok(TcpListener::from(socket))
            })?;
            let listener = socket.context("listening")?;
            let at = listener.local_addr()?;
            Ok((listener, at))
        });
        Ok(Self([one?, other?]))
    }
}

/// Connections in order; `None` for one that was not established in time.
pub(super) struct Connections(Vec<Option<Ends>>);

struct Ends {
    client: TcpStream,
    server: TcpStream,
    /// Bytes that the client has received and sent back, and that the server has received.
    received: usize,
    echoed: usize,
    answered: usize,
}

impl Connections {
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn append(&mut self, mut more: Self) {
        self.0.append(&mut more.0);
    }

    /// Removes every other connection.
    pub(super) fn split_off_half(&mut self) -> Self {
        let mut half = Vec::new();
        let mut number = 0_usize;
        self.0.retain_mut(|ends| {
            number += 1;
            if number.is_multiple_of(2) {
                half.push(ends.take());
            }
            !number.is_multiple_of(2)
        });
        Self(half)
    }

    /// How many are established.
    pub(super) fn established(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// Opens this many connections at once, from each client in turn, alternately over IPv4 and
    /// IPv6, and waits until they are established or the deadline is over.
    pub(super) fn open(
        clients: &[Workload],
        listeners: &Listeners,
        count: usize,
        deadline: Duration,
    ) -> Result<Self> {
        let mut opening = HashMap::new();
        for (number, client) in clients.iter().enumerate() {
            let count = (count + clients.len() - 1 - number) / clients.len();
            let sockets = client.ns.run(|| -> std::io::Result<Vec<_>> {
                let mut sockets = Vec::new();
                for ([(_, v4), (_, v6)], number) in
                    std::iter::repeat_n(&listeners.0, count).zip(0_usize..)
                {
                    let to = if number & 1 == 1 { *v6 } else { *v4 };
                    sockets.push(connect(to)?);
                }
                Ok(sockets)
            })?;
            for socket in sockets.context("connecting")? {
                opening.insert(socket.local_addr()?, socket);
            }
        }
        let mut established = Vec::new();
        let accept = || {
            for (listener, _) in &listeners.0 {
                while let Ok((server, from)) = listener.accept() {
                    server.set_nonblocking(true)?;
                    server.set_nodelay(true)?;
                    if let Some(client) = opening.remove(&from) {
                        established.push(Some(Ends {
                            client,
                            server,
                            received: 0,
                            echoed: 0,
                            answered: 0,
                        }));
                    }
                }
            }
            Ok(opening.is_empty().then_some(()))
        };
        // Missing connections show in the counts.
        let _ = eventually(deadline, "connections", accept);
        established.extend(opening.iter().map(|_| None));
        Ok(Self(established))
    }

    /// Sends data from the server to every client and back, and returns how many connections carried both within
    /// the deadline.
    pub(super) fn exchange(&mut self, deadline: Duration) -> usize {
        for ends in self.0.iter_mut().flatten() {
            ends.received = 0;
            ends.echoed = 0;
            ends.answered = 0;
            // A failure shows in what arrives.
            let _ = ends.server.write_all(&MESSAGE);
        }
        let mut done = 0;
        let _ = eventually(deadline, "data on every connection", || {
            done = 0;
            for ends in self.0.iter_mut().flatten() {
                done += usize::from(ends.advance());
            }
            Ok((done == self.0.len()).then_some(()))
        });
        done
    }
}

const MESSAGE: [u8; 32] = *b"data of a connection that stays ";

impl Ends {
    /// Moves what has arrived on; true once the server has its answer.
    fn advance(&mut self) -> bool {
        self.received += arrived(&self.client);
        if self.echoed < self.received
            && let Some(part) = MESSAGE.get(self.echoed..self.received)
            && self.client.write_all(part).is_ok()
        {
            self.echoed = self.received;
        }
        self.answered += arrived(&self.server);
        self.answered == MESSAGE.len()
    }
}

/// Bytes that have arrived; a reset shows as data that never arrives.
fn arrived(mut stream: &TcpStream) -> usize {
    stream.read(&mut [0; 64]).unwrap_or_default()
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(libc::EINPROGRESS)
                || error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}
