//! Sends the frames of a flooder at a given rate until it is stopped.

use std::io::{ErrorKind, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use socket2::Socket;

use super::frames::{Frames, From};
use crate::frame;
use crate::netns::NetNs;

/// Flows between two checks of the clock.
const BURST: usize = 32;

/// Sends frames from an interface.
pub(super) struct Sender {
    socket: Socket,
    /// Frames that a full queue returned and that were sent again.
    returned: u64,
}

impl Sender {
    pub(super) fn open(ns: &NetNs) -> Result<Self> {
        let socket = ns.run(|| frame::packet_socket("eth0", 0))?;
        Ok(Self {
            socket: socket.context("opening a socket to send frames")?,
            returned: 0,
        })
    }

    pub(super) fn send(&mut self, frame: &[u8]) -> Result<()> {
        loop {
            match self.socket.write(frame) {
                Ok(sent) => {
                    ensure!(sent == frame.len(), "{sent} of {} bytes sent", frame.len());
                    return Ok(());
                }
                // The queue is full and the frame was not accepted: veth reports this since Linux
                // 6.6.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.returned += 1;
                    thread::yield_now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) => return Err(error).context("sending a frame"),
            }
        }
    }
}

/// What a flooder has sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) frames: u64,
    /// Frames returned and sent again, of the flooder's interface and of the sink's.
    pub(super) returned: [u64; 2],
}

/// A thread that sends the frames of one flooder.
pub(super) struct Flooder {
    flows: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Sent>>>,
}

impl Flooder {
    /// Starts to send at no more than `rate` frames a second. The thread stays on one CPU, so that
    /// the frames of a flow keep their order.
    pub(super) fn start(
        mut frames: Frames,
        [mut own, mut sink]: [Sender; 2],
        (rate, cpu): (u32, usize),
    ) -> Self {
        let flows = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, ended) = (Arc::clone(&flows), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut set = CpuSet::new();
            set.set(cpu)?;
            sched_setaffinity(Pid::from_raw(0), &set).context("pinning a thread to one CPU")?;
            let (start, mut sent) = (Instant::now(), 0_u64);
            while !ended.load(Ordering::Acquire) {
                for _ in 0..BURST {
                    for frame in frames.next_flow()? {
                        let sender = match frame.from {
                            From::Flooder => &mut own,
                            From::Sink => &mut sink,
                        };
                        sender.send(&frame.bytes)?;
                        sent += 1;
                    }
                    count.fetch_add(1, Ordering::AcqRel);
                }
                let due = start + Duration::from_secs_f64(sent as f64 / f64::from(rate));
                // This sleep limits the rate; it does not wait for a condition.
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(Sent {
                frames: sent,
                returned: [own.returned, sink.returned],
            })
        });
        Self {
            flows,
            stop,
            thread: Some(thread),
        }
    }

    /// Flows sent so far.
    pub(super) fn flows(&self) -> u64 {
        self.flows.load(Ordering::Acquire)
    }

    /// Whether the thread has ended although it was not stopped.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub(super) fn stop(mut self) -> Result<Sent> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().context("stopped twice")?;
        thread
            .join()
            .map_err(|_| anyhow!("a flooder's thread panicked"))?
    }
}

impl Drop for Flooder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
