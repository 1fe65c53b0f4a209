//! Sends frames at a given rate and counts those that arrive.

use std::io::{ErrorKind, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use socket2::Socket;

use super::frames::MARK;
use crate::frame::{self, Tap};
use crate::netns::NetNs;

/// Frames sent between two checks of the clock.
const BURST: usize = 64;

/// Sends frames from an interface.
pub(super) struct Sender(Socket);

impl Sender {
    pub(super) fn open(ns: &NetNs, interface: &str) -> Result<Self> {
        let socket = ns.run(|| frame::packet_socket(interface, 0))?;
        Ok(Self(
            socket.with_context(|| format!("sending on {interface}"))?,
        ))
    }

    pub(super) fn send(&self, frame: &[u8]) -> Result<()> {
        loop {
            match (&self.0).write(frame) {
                Ok(sent) => {
                    ensure!(sent == frame.len(), "{sent} of {} bytes sent", frame.len());
                    return Ok(());
                }
                // The queue is full and the frame was not accepted: veth reports this since Linux
                // 6.6.
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock
                        || error.raw_os_error() == Some(libc::ENOBUFS) =>
                {
                    thread::yield_now();
                }
                Err(error) => return Err(error).context("sending a frame"),
            }
        }
    }

    /// Sends frames for `duration` at no more than `rate` per second. Returns how many were sent.
    pub(super) fn flood(
        &self,
        rate: u32,
        duration: Duration,
        mut next: impl FnMut() -> Result<Vec<u8>>,
    ) -> Result<u64> {
        let start = Instant::now();
        let mut sent = 0_u64;
        while start.elapsed() < duration {
            for _ in 0..BURST {
                self.send(&next()?)?;
                sent += 1;
            }
            let due = start + Duration::from_secs_f64(sent as f64 / f64::from(rate));
            while Instant::now() < due.min(start + duration) {
                thread::yield_now();
            }
        }
        Ok(sent)
    }
}

/// Counts the frames of a flood that an interface receives, until the counter is closed.
pub(super) struct Counter {
    seen: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Counter {
    pub(super) fn open(ns: &NetNs, interface: &str) -> Result<Self> {
        let tap = Tap::open(ns, interface)?;
        let seen = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, ended) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            loop {
                let finish = ended.load(Ordering::Acquire);
                while let Some(frame) = tap.next(Duration::from_millis(50))? {
                    if frame.windows(MARK.len()).any(|window| window == MARK) {
                        count.fetch_add(1, Ordering::AcqRel);
                    }
                }
                if finish {
                    return Ok(());
                }
            }
        });
        Ok(Self {
            seen,
            stop,
            thread: Some(thread),
        })
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// The number of frames that have arrived, including those still queued.
    pub(super) fn close(mut self) -> Result<u64> {
        self.join()?;
        Ok(self.seen())
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
