//! Sends batches of frames on one interface and records which of them arrive at another.
//!
//! A frame is identified by its *mark* ([`Marking`]). Across a bridge it is in four bytes of the destination
//! hardware address: the fence ignores them, a bridge does not change them, and even a frame without a
//! whole IP header has them. A router replaces that address; there it is the flow label. A batch ends with a sentinel that policy allows. Frames keep their order, because the
//! sending thread stays on one CPU and so does the kernel's queue; once the sentinel has arrived,
//! frames that have not arrived never will. A full queue or receive buffer can lose any frame, also
//! the sentinel, which is then sent again; the kernel counts such losses (`crate::kernel_drops`).

use std::cell::Cell;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::unistd::Pid;
use socket2::Socket;

use super::case::Offload;
use super::craft;
use super::fixture::protocol;
use super::network::routed::ROUTER;
use super::rejection::Received;
use crate::frame::{buffer_drops, offload_socket, packet_socket};
use crate::netns::NetNs;

/// The prefix of a marked address, and of a marked group address.
const PREFIX: [u8; 2] = [0x06, 0xa7];
const GROUP: [u8; 2] = [0x07, 0xa7];
/// Receive buffer size, enough for a batch of large frames with the kernel's overhead.
pub const ROOM: usize = 64 << 20;
/// A sentinel that has not arrived after this time is sent again.
const AGAIN: u8 = 100;
/// Bytes of a frame that are read: more than a reject packet has.
const HEAD: usize = 256;
const DEADLINE: Duration = Duration::from_secs(20);

/// Marks a frame that has a whole Ethernet header. A group address remains a group address.
pub fn mark(frame: &mut [u8], number: u32) {
    let to_group = frame.first().is_some_and(|first| first & 1 != 0);
    let prefix = if to_group { GROUP } else { PREFIX };
    craft::write(frame, 0, &prefix);
    craft::write(frame, prefix.len(), &number.to_be_bytes());
}

/// Where frames have their marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marking {
    /// In the destination hardware address.
    Address,
    /// In the flow label of IPv6, under the hardware address of the router.
    FlowLabel,
}

impl Marking {
    /// The largest mark.
    #[must_use]
    pub const fn largest(self) -> u32 {
        match self {
            Self::Address => u32::MAX,
            Self::FlowLabel => 0xf_ffff,
        }
    }

    /// Marks a frame with a number up to the largest, which is not zero.
    pub fn mark(self, frame: &mut [u8], number: u32) {
        if self == Self::Address {
            return mark(frame, number);
        }
        let [_, high, middle, low] = number.to_be_bytes();
        craft::write(frame, 0, &ROUTER);
        craft::write(frame, craft::IP + 1, &[high & 0xf, middle, low]);
    }

    fn read(self, frame: &[u8]) -> Option<u32> {
        if self == Self::Address {
            return marked(frame);
        }
        match *frame.get(12..18)? {
            [0x86, 0xdd, _, high, middle, low] => {
                let number = u32::from_be_bytes([0, high & 0xf, middle, low]);
                (number != 0).then_some(number)
            }
            _ => None,
        }
    }

    /// The mark of the frame about which this one is a reject packet, if it has that: it goes back to the
    /// marked address, and an error quotes the flow label.
    #[must_use]
    pub fn of_rejected(self, frame: &[u8]) -> Option<u32> {
        if self == Self::Address {
            return marked(frame.get(6..)?);
        }
        let quote = craft::AFTER_IP6 + 8;
        let is_error = frame.get(craft::IP + 6) == Some(&protocol::ICMPV6);
        is_error.then(|| self.read(&[frame.get(..craft::IP)?, frame.get(quote..)?].concat()))?
    }

    /// Whether a frame without a mark is a reject packet.
    #[must_use]
    pub fn is_reject_packet(self, frame: &[u8]) -> bool {
        match self {
            Self::Address => self.of_rejected(frame).is_some(),
            Self::FlowLabel => {
                let is_tcp = frame.get(craft::IP + 6) == Some(&protocol::TCP);
                frame.get(12..14) == Some(&[0x86, 0xdd])
                    && (is_tcp || self.of_rejected(frame).is_some())
            }
        }
    }
}

fn marked(frame: &[u8]) -> Option<u32> {
    let number = frame
        .strip_prefix(&PREFIX)
        .or_else(|| frame.strip_prefix(&GROUP));
    Some(u32::from_be_bytes(*number?.first_chunk()?))
}

/// Pins the calling thread, and with it the frames that it sends, to one CPU.
pub fn stay_on_one_cpu() -> Result<()> {
    let current = nix::sched::sched_getcpu().context("getting the current CPU")?;
    let mut set = CpuSet::new();
    set.set(current)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("pinning the thread to one CPU")
}

/// One raw interface.
#[derive(Debug)]
pub struct RawInterface {
    plain: Socket,
    offload: Socket,
    tap: Socket,
    marking: Marking,
    returned: Cell<u64>,
    buffer_drops: Cell<u64>,
}

impl RawInterface {
    /// Opens an interface of `ns`.
    pub fn open(ns: &NetNs, interface: &str, marking: Marking) -> Result<Self> {
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
        let this = Self {
            plain,
            offload,
            tap,
            marking,
            returned: Cell::new(0),
            buffer_drops: Cell::new(0),
        };
        this.set_receive_buffer(ROOM)?;
        Ok(this)
    }

    /// Sets the size of the receive buffer in bytes; the kernel doubles it.
    pub fn set_receive_buffer(&self, size: usize) -> Result<()> {
        setsockopt(&self.tap, sockopt::RcvBufForce, &size).context("setting the receive buffer")
    }

    /// Frames so far that a full queue returned and that were sent again.
    #[must_use]
    pub const fn returned(&self) -> u64 {
        self.returned.get()
    }

    /// Frames so far that did not fit into the receive buffer.
    pub fn buffer_drops(&self) -> Result<u64> {
        let more = buffer_drops(&self.tap).context("reading the statistics of a tap")?;
        self.buffer_drops.set(self.buffer_drops.get() + more);
        Ok(self.buffer_drops.get())
    }

    /// Sends one frame. A frame that the kernel refuses to segment or complete is not sent.
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
                Err(error) if is_busy(&error) && Instant::now() < end => {
                    if error.raw_os_error() == Some(libc::ENOBUFS) {
                        self.returned.set(self.returned.get() + 1);
                    }
                    std::thread::yield_now();
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("sending {} bytes", frame.len()));
                }
            }
        }
    }

    /// Calls `seen` with the mark of every frame that arrives, until the sentinel arrives.
    pub fn receive_until(&self, sentinel: u32, seen: impl FnMut(u32)) -> Result<()> {
        self.receive_until_or(sentinel, || Ok(()), seen, |_| ())
    }

    /// The same; calls `again`, which sends the sentinel again, whenever none has arrived for a
    /// while, and `unmarked` for every frame without a mark.
    pub fn receive_until_or(
        &self,
        sentinel: u32,
        mut again: impl FnMut() -> Result<()>,
        mut seen: impl FnMut(u32),
        mut unmarked: impl FnMut(&Received<'_>),
    ) -> Result<()> {
        let end = Instant::now() + DEADLINE;
        loop {
            let sentinel_seen = self.read(|mark, frame| {
                match mark {
                    Some(number) if number == sentinel => return true,
                    Some(number) => seen(number),
                    None => unmarked(frame),
                }
                false
            })?;
            match sentinel_seen {
                Some(true) => return Ok(()),
                Some(false) => {}
                None => {
                    ensure!(Instant::now() < end, "the sentinel did not arrive");
                    if !self.wait(AGAIN)? {
                        again()?;
                    }
                }
            }
        }
    }

    /// Calls `seen` with every frame that has arrived until now, and its mark; waits a few milliseconds
    /// if there is none.
    pub fn receive_now(&self, mut seen: impl FnMut(Option<u32>, &Received<'_>)) -> Result<()> {
        self.wait(5)?;
        while self.read(|mark, frame| seen(mark, frame))?.is_some() {}
        Ok(())
    }

    /// Whether a frame arrives within this many milliseconds.
    fn wait(&self, milliseconds: u8) -> Result<bool> {
        let fd = PollFd::new(self.tap.as_fd(), PollFlags::POLLIN);
        let ready = poll(&mut [fd], PollTimeout::from(milliseconds));
        Ok(ready.context("polling a tap")? > 0)
    }

    /// Reads one frame, if there is one.
    fn read<T>(&self, seen: impl FnOnce(Option<u32>, &Received<'_>) -> T) -> Result<Option<T>> {
        let mut head = [0; HEAD];
        // The length of the whole frame is returned, even if it is more than the buffer holds.
        match recv(self.tap.as_raw_fd(), &mut head, MsgFlags::MSG_TRUNC) {
            Ok(length) => {
                let head = head.get(..length.min(HEAD)).unwrap_or_default();
                let mark = self.marking.read(head);
                Ok(Some(seen(mark, &Received { head, length })))
            }
            Err(Errno::EAGAIN) => Ok(None),
            Err(error) => bail!("reading a tap: {error}"),
        }
    }
}

/// Whether the kernel refuses to segment this frame.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOMEM))
}

fn is_busy(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}
