//! Traffic between two workloads, one operation at a time, by one thread.
//!
//! Both ends' sockets belong to the measuring thread. With both ends on one CPU, a packet has
//! reached the other end when the call that sent it returns. So each operation checks that its own
//! packet arrived. Packets that must not arrive are looked for at the end of a sample.

mod raw;
mod tcp;
mod udp;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ringfence_testbed::{NetNs, Workload};

use super::metric::{Kind, Metric};
use super::world::{FORBIDDEN, PORTS};

/// How many established flows are cycled through.
pub(crate) const FLOWS: u32 = 4096;
/// A packet is lost after this time, even on a busy machine.
pub(crate) const LOST: Duration = Duration::from_secs(20);

/// One end.
#[derive(Clone)]
pub(crate) struct End {
    pub(crate) ns: NetNs,
    pub(crate) ip: IpAddr,
}

impl End {
    pub(crate) fn of(workload: &Workload, v6: bool) -> Self {
        Self {
            ns: workload.ns.clone(),
            ip: workload.ip(v6),
        }
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }
}

/// One type of traffic.
pub(crate) trait Traffic: Send {
    /// Opens the established flows under the current programs. Packets must pass.
    fn establish(&mut self) -> Result<()> {
        Ok(())
    }

    /// Before a sample, outside its time.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Before a sample with a fence, outside its time: every flow sends a packet.
    fn refresh(&mut self) -> Result<()> {
        Ok(())
    }

    /// One operation.
    fn once(&mut self) -> Result<()>;

    /// After a sample, outside its time.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Opens traffic of one type from one end to the other.
pub(crate) fn open(metric: Metric, from: &Workload, to: &Workload) -> Result<Box<dyn Traffic>> {
    let (from, to) = (End::of(from, metric.v6), End::of(to, metric.v6));
    let port = PORTS.0;
    let opened: Result<Box<dyn Traffic>> = match metric.kind {
        Kind::Established => udp::Stream::open(&from, &to, port, 8).map(boxed),
        Kind::Fragmented => udp::Stream::open(&from, &to, port + 1, 4000).map(boxed),
        Kind::Denied => raw::Denied::open(&from, &to, FORBIDDEN).map(boxed),
        Kind::Flows => raw::Flows::open(&from, &to, port + 2).map(boxed),
        Kind::New => raw::Fresh::open(&from, &to, port + 3).map(boxed),
        Kind::TcpRoundTrip => tcp::RoundTrip::open(&from, &to, port).map(boxed),
        Kind::TcpConnectReset => tcp::ConnectReset::open(&from, &to, port + 1).map(boxed),
    };
    opened.with_context(|| format!("opening {metric}"))
}

fn boxed<T: Traffic + 'static>(traffic: T) -> Box<dyn Traffic> {
    Box::new(traffic)
}

/// Receives a packet that must have arrived; waits if the kernel has deferred its delivery.
fn taken(
    socket: &impl AsFd,
    buffer: &mut [u8],
    mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> Result<usize> {
    let mut end = None;
    loop {
        match receive(buffer) {
            Ok(length) => return Ok(length),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("receiving"),
        }
        let end = *end.get_or_insert_with(|| Instant::now() + LOST);
        ensure!(Instant::now() < end, "a packet did not arrive");
        let fd = PollFd::new(socket.as_fd(), PollFlags::POLLIN);
        poll(&mut [fd], PollTimeout::try_from(LOST)?).context("polling")?;
    }
}
