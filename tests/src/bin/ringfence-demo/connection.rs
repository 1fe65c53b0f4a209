//! Established connections with both ends in the demo, made by an HTTP upgrade.
//!
//! A message either arrives at the other end before the deadline or is lost. TCP retransmits lost
//! data, so messages are numbered and only the one just sent counts.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ringfence_testbed::http::HttpClient;
use ringfence_testbed::{End, Workload};

use crate::shop::Member;

/// How long to wait for a message.
const TIMEOUT: Duration = Duration::from_millis(400);
const CONNECT: Duration = Duration::from_secs(2);

/// One established connection.
#[derive(Debug)]
pub(crate) struct Connection {
    client: TcpStream,
    server: TcpStream,
    sent: u64,
}

impl Connection {
    /// Opens one connection over each family.
    pub(crate) fn open(from: &Workload, to: &Member) -> Result<Vec<Self>> {
        let open = |ip| {
            let target = SocketAddr::new(ip, to.port()?);
            let upgrade = || -> Result<_> {
                let client = HttpClient::new(target, CONNECT).upgrade("/channel")?;
                let address = client.local_addr()?;
                Ok((client, address))
            };
            let (client, address) = from.ns.run(upgrade)?.context("opening a connection")?;
            let server = to.http()?.upgraded(address);
            Ok(Self {
                client,
                server: server.context("the server has no such connection")?,
                sent: 0,
            })
        };
        to.workload.ips().into_iter().map(open).collect()
    }

    /// Sends one message from an end; returns whether it arrived at the other.
    pub(crate) fn delivers(&mut self, from: End) -> Result<bool> {
        self.sent += 1;
        let message = self.sent.to_be_bytes();
        let (mut sender, mut receiver) = match from {
            End::Client => (&self.client, &self.server),
            End::Server => (&self.server, &self.client),
        };
        sender.write_all(&message).context("sending a message")?;
        let end = Instant::now() + TIMEOUT;
        let mut arrived = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            receiver.set_read_timeout(Some(left))?;
            let mut buffer = [0; 64];
            match receiver.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => arrived.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error).context("waiting for a message"),
            }
            if arrived.ends_with(&message) {
                return Ok(true);
            }
        }
    }
}
