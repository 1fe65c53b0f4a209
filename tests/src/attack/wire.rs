//! Putting frames on a station's interface in numbers, and learning which arrived at another.
//!
//! A frame is known by its *mark*, four bytes of its destination hardware address: no fence judges
//! that, no bridge changes it, and even a frame without a whole IP header has one.
//! A batch ends with a sentinel that policy allows. Frames keep their order on their way, because
//! the sending thread stays on one CPU and so does the kernel's queue; when the sentinel has come,
//! whatever has not come will not.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use socket2::Socket;

use super::case::Offload;
use super::craft;
use crate::frame::{offload_socket, packet_socket};
use crate::netns::NetNs;

/// What a marked address begins with, and what it begins with if it is a group's.
const PREFIX: [u8; 2] = [0x06, 0xa7];
const GROUP: [u8; 2] = [0x07, 0xa7];
/// A batch of large frames, and what the kernel charges for each, fits.
const ROOM: usize = 64 << 20;
const DEADLINE: Duration = Duration::from_secs(20);

/// Marks a frame that has a whole Ethernet header. One to a group stays one.
pub fn mark(frame: &mut [u8], number: u32) {
    let to_group = frame.first().is_some_and(|first| first & 1 != 0);
    let prefix = if to_group { GROUP } else { PREFIX };
    craft::write(frame, 0, &prefix);
    craft::write(frame, prefix.len(), &number.to_be_bytes());
}

fn marked(frame: &[u8]) -> Option<u32> {
    let number = frame
        .strip_prefix(&PREFIX)
        .or_else(|| frame.strip_prefix(&GROUP));
    Some(u32::from_be_bytes(*number?.first_chunk()?))
}

/// Keeps the calling thread, and with it the frames that it sends, on one CPU.
pub fn stay_on_one_cpu() -> Result<()> {
    let current = nix::sched::sched_getcpu().context("asking for the CPU")?;
    let mut set = CpuSet::new();
    set.set(current)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("staying on one CPU")
}

/// One interface at the end of a wire.
#[derive(Debug)]
pub struct RawInterface {
    plain: Socket,
    offload: Socket,
    tap: Socket,
}

impl RawInterface {
    /// Takes hold of an interface of `ns`.
    pub fn open(ns: &NetNs, interface: &str) -> Result<Self> {
        let every = u16::try_from(libc::ETH_P_ALL)?;
        let sockets = ns.run(|| -> io::Result<_> {
            let tap = packet_socket(interface, every)?;
            Ok((
                packet_socket(interface, 0)?,
                offload_socket(interface)?,
                tap,
            ))
        })?;
        let (plain, offload, tap) = sockets.with_context(|| format!("opening {interface}"))?;
        setsockopt(&tap, sockopt::RcvBufForce, &ROOM).context("making room for frames")?;
        Ok(Self {
            plain,
            offload,
            tap,
        })
    }

    /// Sends one frame. One that the kernel will not cut or finish as asked is not sent.
    pub fn send(&self, frame: &[u8], offload: Option<&Offload>) -> Result<()> {
        let end = Instant::now() + DEADLINE;
        loop {
            let sent = match offload {
                None => (&self.plain).write(frame),
                Some(offload) => {
                    (&self.offload).write(&[offload.header().as_slice(), frame].concat())
                }
            };
            match sent {
                Ok(_) => return Ok(()),
                Err(error) if offload.is_some() && is_refused(&error) => return Ok(()),
                Err(error) if is_busy(&error) && Instant::now() < end => std::thread::yield_now(),
                Err(error) => {
                    return Err(error).with_context(|| format!("sending {} bytes", frame.len()));
                }
            }
        }
    }

    /// Calls `seen` with the mark of every frame that arrives, until `sentinel` has come.
    pub fn receive_until(&self, sentinel: u32, mut seen: impl FnMut(u32)) -> Result<()> {
        let end = Instant::now() + DEADLINE;
        let mut head = [0; 32];
        loop {
            match (&self.tap).read(&mut head) {
                Ok(length) => match head.get(..length).and_then(marked) {
                    Some(number) if number == sentinel => return Ok(()),
                    Some(number) => seen(number),
                    None => {}
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ensure!(Instant::now() < end, "the sentinel did not arrive");
                    let fd = PollFd::new(self.tap.as_fd(), PollFlags::POLLIN);
                    poll(&mut [fd], PollTimeout::from(100_u8)).context("polling a tap")?;
                }
                Err(error) => bail!("packet a tap: {error}"),
            }
        }
    }
}

/// What the kernel says of a frame that it cannot cut up.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOMEM))
}

fn is_busy(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}
