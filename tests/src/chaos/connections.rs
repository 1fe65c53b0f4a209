//! TCP connections that are open throughout, and what must still pass on them.
//!
//! Each of its two ends is held here. Policy allows what the client sends and only as a reply what the
//! server sends, so a connection of which the server sends first shows whether the fence remembers it.
//! TCP sends again what was lost: a gap in the answers is as long as what kept them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::hosts::KEPT_PORT;
use super::network::SOON;
use crate::stream::{Delivery, End, Stream};
use crate::topology::Workload;

/// Between two messages of a connection in use.
const INTERVAL: Duration = Duration::from_millis(20);
/// Between two messages of a half-closed connection: its conntrack entry lives for 240 s.
const HALF_CLOSED_INTERVAL: Duration = Duration::from_secs(30);
/// How long a message is waited for at the end of the run.
const AT_LAST: Duration = Duration::from_secs(10);
const MESSAGE: usize = 16;

/// How a connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// One end sends all the time, and the other one answers.
    Busy(End),
    /// Nothing is sent until the end of the run; then this end sends first.
    Idle(End),
    /// The client has closed its direction; the server sends rarely.
    HalfClosed,
}

/// Of each ten connections, five are idle.
const USES: [Use; 10] = [
    Use::Busy(End::Client),
    Use::Idle(End::Client),
    Use::Busy(End::Server),
    Use::Idle(End::Server),
    Use::Busy(End::Client),
    Use::Idle(End::Client),
    Use::Busy(End::Server),
    Use::Idle(End::Server),
    Use::Busy(End::Client),
    Use::HalfClosed,
];

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    usage: Use,
    stream: Stream,
    /// Why it is lost.
    lost: Option<String>,
    message: u64,
    /// Bytes of the answer to the last message.
    answer: Vec<u8>,
    is_waiting: bool,
    sent: Instant,
    answered: Instant,
}

/// Opens this many, alternately over IPv4 and IPv6, and uses each once in both directions.
pub(super) fn open(client: &Workload, server: &Workload, count: usize) -> Result<Vec<Connection>> {
    let uses = USES.into_iter().cycle().take(count).enumerate();
    uses.map(|(number, usage)| {
        // Each use has both IP versions.
        let ip = server.ip(number / USES.len() % 2 == 1);
        let connection = Connection::open(client, server, ip, usage);
        connection.with_context(|| format!("connection {number}, {usage:?}"))
    })
    .collect()
}

impl Connection {
    fn open(
        client: &Workload,
        server: &Workload,
        ip: std::net::IpAddr,
        usage: Use,
    ) -> Result<Self> {
        let mut stream = Stream::open(&client.ns, &server.ns, ip, KEPT_PORT, SOON)?;
        for end in [End::Client, End::Server] {
            stream.expect_delivered(end, SOON)?;
        }
        if usage == Use::HalfClosed {
            stream.socket(End::Client).shutdown(Shutdown::Write)?;
        }
        let now = Instant::now();
        Ok(Self {
            usage,
            stream,
            lost: None,
            message: 0,
            answer: Vec::new(),
            is_waiting: false,
            sent: now,
            answered: now,
        })
    }

    /// Sends and receives what is due. Returns the time between two answers of a connection in use,
    /// when there is an answer.
    pub(super) fn advance(&mut self, now: Instant) -> Option<Duration> {
        if self.lost.is_some() {
            return None;
        }
        let outcome = match self.usage {
            Use::Busy(first) => self.exchange(first, now),
            Use::HalfClosed => self.send_rarely(now),
            Use::Idle(_) => Ok(None),
        };
        outcome.unwrap_or_else(|error| {
            self.lost = Some(format!("{:?}: {error:#}", self.usage));
            None
        })
    }

    /// How long a connection in use has been without an answer.
    pub(super) fn waiting(&self, now: Instant) -> Duration {
        match self.usage {
            Use::Busy(_) if self.lost.is_none() => now.saturating_duration_since(self.answered),
            _ => Duration::ZERO,
        }
    }

    fn exchange(&mut self, first: End, now: Instant) -> Result<Option<Duration>> {
        let second = match first {
            End::Client => End::Server,
            End::Server => End::Client,
        };
        if !self.is_waiting && now.saturating_duration_since(self.sent) >= INTERVAL {
            self.message += 1;
            self.answer.clear();
            let message = u128::from(self.message).to_be_bytes();
            self.stream.socket(first).write_all(&message)?;
            (self.is_waiting, self.sent) = (true, now);
        }
        let mut part = [0; MESSAGE];
        let length = received(self.stream.socket(second), &mut part)?;
        let part = part.get(..length).unwrap_or_default();
        self.stream.socket(second).write_all(part)?;
        let mut part = [0; MESSAGE];
        let length = received(self.stream.socket(first), &mut part)?;
        self.answer
            .extend_from_slice(part.get(..length).unwrap_or_default());
        if !self.is_waiting || self.answer.len() < MESSAGE {
            return Ok(None);
        }
        let expected = u128::from(self.message).to_be_bytes();
        ensure!(self.answer == expected, "another answer: {:?}", self.answer);
        self.is_waiting = false;
        let gap = now.saturating_duration_since(self.answered);
        self.answered = now;
        Ok(Some(gap))
    }

    fn send_rarely(&mut self, now: Instant) -> Result<Option<Duration>> {
        let server = self.stream.socket(End::Server);
        if now.saturating_duration_since(self.sent) < HALF_CLOSED_INTERVAL {
            return Ok(None);
        }
        let mut server = server;
        server.write_all(&[0; MESSAGE])?;
        self.sent = now;
        received(self.stream.socket(End::Client), &mut [0; 4 * MESSAGE])?;
        Ok(None)
    }

    /// Uses an idle connection at last, or checks that one in use has a further answer. Returns why
    /// it is lost, if it is.
    pub(super) fn conclude(mut self) -> Option<String> {
        if self.lost.is_none()
            && let Err(error) = self.use_at_last()
        {
            self.lost = Some(format!("{:?}, at last: {error:#}", self.usage));
        }
        self.lost
    }

    fn use_at_last(&mut self) -> Result<()> {
        match self.usage {
            Use::Busy(first) => {
                let before = self.message;
                crate::wait::eventually(AT_LAST, "a further answer", || {
                    self.exchange(first, Instant::now())?;
                    let done = self.message > before + 1 && !self.is_waiting;
                    Ok(done.then_some(()))
                })
            }
            Use::Idle(first) => {
                let second = match first {
                    End::Client => End::Server,
                    End::Server => End::Client,
                };
                self.stream.expect_delivered(first, AT_LAST)?;
                self.stream.expect_delivered(second, AT_LAST)
            }
            Use::HalfClosed => {
                received(self.stream.socket(End::Client), &mut [0; 4 * MESSAGE])?;
                let delivery = self.stream.deliver(End::Server, AT_LAST)?;
                ensure!(delivery == Delivery::Delivered, "{delivery:?}");
                Ok(())
            }
        }
    }
}

/// What has arrived; an error if the connection is closed.
fn received(mut socket: &TcpStream, into: &mut [u8]) -> Result<usize> {
    match socket.read(into) {
        Ok(0) => anyhow::bail!("closed by the other end"),
        Ok(length) => Ok(length),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error.into()),
    }
}
