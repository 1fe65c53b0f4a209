//! Datagrams that policy allows, with an answer each: what is lost is not sent again by the kernel.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::topology::Workload;

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(10);
/// A question without an answer by then is lost.
const LOST: Duration = Duration::from_millis(200);

/// A client and a server that answers.
#[derive(Debug)]
pub(super) struct Datagrams {
    client: UdpSocket,
    server: UdpSocket,
    question: u64,
    is_waiting: bool,
    asked: Instant,
    answered: Instant,
    /// Questions without an answer.
    pub(super) lost: u64,
    /// Questions.
    pub(super) sent: u64,
}

impl Datagrams {
    pub(super) fn open(
        client: &Workload,
        server: &Workload,
        ip: IpAddr,
        port: u16,
    ) -> Result<Self> {
        let (client, server) = pair(client, server, ip, port)?;
        let now = Instant::now();
        Ok(Self {
            client,
            server,
            question: 0,
            is_waiting: false,
            asked: now,
            answered: now,
            lost: 0,
            sent: 0,
        })
    }

    /// Sends and receives what is due. Returns the time between two answers, when there is one.
    pub(super) fn advance(&mut self, now: Instant) -> Result<Option<Duration>> {
        let since = now.saturating_duration_since(self.asked);
        if self.is_waiting && since > LOST {
            self.lost += 1;
            self.is_waiting = false;
        }
        if !self.is_waiting && since >= INTERVAL {
            self.question += 1;
            // A full queue loses it.
            let _ = self.client.send(&self.question.to_be_bytes());
            self.sent += 1;
            (self.is_waiting, self.asked) = (true, now);
        }
        let mut message = [0; 64];
        while let Some((length, from)) = taken(self.server.recv_from(&mut message))? {
            let question = message.get(..length).unwrap_or_default();
            let _ = self.server.send_to(question, from);
        }
        while let Some(length) = taken(self.client.recv(&mut message))? {
            let answer = message.get(..length).unwrap_or_default();
            if self.is_waiting && answer == self.question.to_be_bytes() {
                self.is_waiting = false;
                let gap = now.saturating_duration_since(self.answered);
                self.answered = now;
                return Ok(Some(gap));
            }
        }
        Ok(None)
    }

    /// How long there has been no answer.
    pub(super) fn waiting(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.answered)
    }
}

/// A client connected to a server that listens on this port.
pub(super) fn pair(
    client: &Workload,
    server: &Workload,
    ip: IpAddr,
    port: u16,
) -> Result<(UdpSocket, UdpSocket)> {
    let at = SocketAddr::new(ip, port);
    let server = server.ns.run(|| UdpSocket::bind(at))?;
    let server = server.with_context(|| format!("serving udp {at}"))?;
    let any = if at.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let client = client.ns.run(|| UdpSocket::bind(any))??;
    client.connect(at)?;
    for socket in [&client, &server] {
        socket.set_nonblocking(true)?;
    }
    Ok((client, server))
}

/// What a socket has; `None` if that is nothing.
pub(super) fn taken<T>(outcome: io::Result<T>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
