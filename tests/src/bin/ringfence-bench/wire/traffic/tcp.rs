//! TCP: one byte in each direction, and connections opened and reset.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use socket2::SockRef;

use super::{End, LOST, Traffic, taken};

/// One established connection.
pub(super) struct RoundTrip {
    client: TcpStream,
    server: TcpStream,
    number: u8,
}

impl RoundTrip {
    pub(super) fn open(from: &End, to: &End, port: u16) -> Result<Self> {
        let listener = to.ns.run(|| TcpListener::bind(to.at(port)))??;
        let connect = || TcpStream::connect_timeout(&to.at(port), LOST);
        let client = from.ns.run(connect)??;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
            end.set_nonblocking(true)?;
        }
        Ok(Self {
            client,
            server,
            number: 0,
        })
    }
}

impl Traffic for RoundTrip {
    fn establish(&mut self) -> Result<()> {
        // The first may count as part of the handshake, the second makes the connection assured.
        self.once()?;
        self.once()
    }

    fn once(&mut self) -> Result<()> {
        self.number = self.number.wrapping_add(1);
        for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            let (mut sender, mut receiver) = (from, to);
            sender.write_all(&[self.number]).context("sending")?;
            let mut buffer = [0; 2];
            let length = taken(to, &mut buffer, |buffer| receiver.read(buffer))?;
            ensure!(
                (length, buffer.first()) == (1, Some(&self.number)),
                "another byte than was sent arrived"
            );
        }
        Ok(())
    }
}

/// Connections, each opened, accepted and reset.
pub(super) struct ConnectReset {
    client: File,
    target: SocketAddr,
    listener: TcpListener,
}

impl ConnectReset {
    pub(super) fn open(from: &End, to: &End, port: u16) -> Result<Self> {
        Ok(Self {
            client: File::open(from.ns.path())?,
            target: to.at(port),
            listener: to.ns.run(|| TcpListener::bind(to.at(port)))??,
        })
    }
}

impl Traffic for ConnectReset {
    fn establish(&mut self) -> Result<()> {
        self.prepare()?;
        self.once()
    }

    /// The measuring thread creates the sockets, so it enters the client's network namespace.
    fn prepare(&mut self) -> Result<()> {
        setns(&self.client, CloneFlags::CLONE_NEWNET).context("entering the client's namespace")
    }

    fn once(&mut self) -> Result<()> {
        let client = TcpStream::connect_timeout(&self.target, LOST).context("connecting")?;
        // Fails if the kernel has connected only one end.
        let (mut server, _) = self.listener.accept()?;
        SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
        drop(client);
        match server.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error).context("waiting for the reset"),
            Ok(_) => bail!("closed without a reset"),
        }
    }
}
