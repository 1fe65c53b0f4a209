//! Counts the frames of a flood that an interface receives.
//!
//! A filter on the socket passes only these frames, so its statistics also count only these: a
//! frame arrives, or it is among the drops of the receive buffer.

use std::io::{ErrorKind, Read as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockFilter, Socket};

use super::frames::MARK;
use crate::frame;
use crate::netns::NetNs;

/// Receive buffer size: about 80,000 small frames.
pub(super) const ROOM: usize = 64 << 20;
/// How long the thread waits for frames before it checks whether to end, in milliseconds.
const WAIT: u8 = 20;

/// A running count; dropping it ends its thread.
pub(super) struct Counter {
    socket: Arc<Socket>,
    seen: Arc<AtomicU64>,
    dropped: AtomicU64,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Counter {
    /// Counts at `eth0` of a workload, with a receive buffer of this size in bytes.
    pub(super) fn open(ns: &NetNs, receive_buffer: usize) -> Result<Self> {
        let every = u16::try_from(libc::ETH_P_ALL)?;
        let socket = ns.run(|| -> std::io::Result<_> {
            let socket = frame::packet_socket("eth0", every)?;
            socket.attach_filter(&filter())?;
            Ok(socket)
        })?;
        let socket = Arc::new(socket.context("opening a tap")?);
        setsockopt(&*socket, sockopt::RcvBufForce, &receive_buffer)
            .context("setting a receive buffer")?;
        let seen = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (tap, count, ended) = (Arc::clone(&socket), Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Acquire) {
                match (&*tap).read(&mut [0; 16]) {
                    Ok(_) => {
                        count.fetch_add(1, Ordering::AcqRel);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        let fd = PollFd::new(tap.as_fd(), PollFlags::POLLIN);
                        poll(&mut [fd], PollTimeout::from(WAIT)).context("polling a tap")?;
                    }
                    Err(error) => return Err(error).context("reading a tap"),
                }
            }
            Ok(())
        });
        Ok(Self {
            socket,
            seen,
            dropped: AtomicU64::new(0),
            stop,
            thread: Some(thread),
        })
    }

    /// Frames that have arrived.
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Frames that did not fit into the receive buffer.
    pub(super) fn dropped(&self) -> Result<u64> {
        let more = frame::buffer_drops(&self.socket).context("reading a tap's statistics")?;
        Ok(self.dropped.fetch_add(more, Ordering::AcqRel) + more)
    }

    /// Ends the count; an error if the thread could not read.
    pub(super) fn close(mut self) -> Result<()> {
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        match self.thread.take() {
            Some(thread) => thread
                .join()
                .map_err(|_| anyhow!("a tap's thread panicked"))?,
            None => Ok(()),
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

/// Classic BPF: accepts UDP and TCP over IPv4 and IPv6 (no options, no extension headers) whose
/// payload begins with [`MARK`].
fn filter() -> [SockFilter; 22] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_WORD_AT_X: u16 = 0x40;
    const SET_X: u16 = 0x01;
    const JUMP: u16 = 0x05;
    const RETURN: u16 = 0x06;
    let step = |code, k| SockFilter::new(code, 0, 0, k);
    // Jumps count the steps that they leave out.
    let equal = |k, jt, jf| SockFilter::new(0x15, jt, jf, k);
    let [a, b, c, d, e, f, g, h] = MARK;
    let words = [[a, b, c, d], [e, f, g, h]].map(u32::from_be_bytes);
    [
        step(LOAD_HALF, 12),
        equal(frame::IPV4.into(), 0, 3),
        step(LOAD_BYTE, 23),
        equal(17, 5, 0),
        equal(6, 6, 16),
        equal(frame::IPV6.into(), 0, 15),
        step(LOAD_BYTE, 20),
        equal(17, 5, 0),
        equal(6, 6, 12),
        step(SET_X, 14 + 20 + 8),
        step(JUMP, 5),
        step(SET_X, 14 + 20 + 20),
        step(JUMP, 3),
        step(SET_X, 14 + 40 + 8),
        step(JUMP, 1),
        step(SET_X, 14 + 40 + 20),
        step(LOAD_WORD_AT_X, 0),
        equal(words[0], 0, 3),
        step(LOAD_WORD_AT_X, 4),
        equal(words[1], 0, 1),
        step(RETURN, 1 << 18),
        step(RETURN, 0),
    ]
}
