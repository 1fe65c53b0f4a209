//! TCP connections, each opened for one sample.
//!
//! A measured connection was opened under the program that it is measured with, and is in another
//! place of every table than the one before. The listener stays.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};
use socket2::SockRef;

use super::twin::{End, Twin};
use crate::wire::traffic::LOST;

/// Opens connections from any sender to the receiver.
pub(super) struct Connections {
    clients: Vec<File>,
    listener: TcpListener,
    target: SocketAddr,
}

impl Connections {
    pub(super) fn open(twin: &Twin, v6: bool, port: u16) -> Result<Self> {
        let receiver = &twin.receiver.workload;
        let target = SocketAddr::new(receiver.ip(v6), port);
        let client = |end: &End| File::open(end.workload.ns.path());
        let clients = twin.senders.iter().map(client);
        Ok(Self {
            clients: clients.collect::<Result<_, _>>()?,
            listener: receiver.ns.run(|| TcpListener::bind(target))??,
            target,
        })
    }

    /// Moves the calling thread to the namespace of a sender.
    pub(super) fn enter(&self, sender: usize) -> Result<()> {
        let client = self.clients.get(sender).context("a sender")?;
        setns(client, CloneFlags::CLONE_NEWNET).context("entering a sender's network namespace")
    }

    /// Opens a connection from the calling thread's namespace.
    pub(super) fn connect(&self) -> Result<Connection> {
        let client = TcpStream::connect_timeout(&self.target, LOST).context("connecting")?;
        // Fails if the kernel has connected only one end.
        let (server, _) = self.listener.accept()?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(LOST))?;
            SockRef::from(end).set_linger(Some(Duration::ZERO))?;
        }
        Ok(Connection {
            client,
            server,
            number: 0,
        })
    }
}

/// Both ends of a connection; they are reset when they are dropped.
pub(super) struct Connection {
    client: TcpStream,
    server: TcpStream,
    number: u8,
}

impl Connection {
    /// One byte in each direction.
    pub(super) fn round_trip(&mut self) -> Result<()> {
        self.number = self.number.wrapping_add(1);
        for (mut from, mut to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            from.write_all(&[self.number]).context("sending")?;
            let mut buffer = [0; 2];
            let length = to.read(&mut buffer).context("receiving")?;
            ensure!(
                (length, buffer.first()) == (1, Some(&self.number)),
                "another byte than was sent arrived"
            );
        }
        Ok(())
    }
}
