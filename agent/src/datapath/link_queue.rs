//! Attaches the links of bridged fences, on a thread of its own.
//!
//! Each link waits for an RCU grace period under the kernel's lock over all network devices. Invariants: the
//! thread attaches one link at a time and only while nothing else is done to fences, so that what
//! others do waits for one grace period at most; it leaves a pause after a bridge was built, so
//! that many of them are not built a grace period apart; a bridge goes when both links are attached, and
//! what fails is tried again, with the bridge in force until then. A process that stops attaches what is left.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya::programs::SchedClassifier;
use tracing::warn;

use super::{
    DatapathError,
    attach::{AttachPoint, HOOKS, interface_name},
    bridge,
    error::chain,
    pins::Pins,
    standing::Links,
    tcx,
};

/// How long no bridge was built before a link is attached.
const PAUSE: Duration = Duration::from_millis(2);
/// The time between two attempts.
const RETRY: Duration = Duration::from_secs(1);
/// How often the thread looks whether others still want to do something.
const COURTESY: Duration = Duration::from_micros(100);

/// The fences that this process attached.
pub(super) struct Fences {
    pins: Pins,
    held: Mutex<Held>,
    changed: Condvar,
    /// How many threads wait for `held`, other than the one that attaches links.
    waiting: AtomicUsize,
}

/// Fences by interface. While this is held, no link is attached.
#[derive(Default)]
pub(super) struct Held {
    /// Those of links, or of filters where the kernel has no tcx.
    links: BTreeMap<u32, Links>,
    /// Those with a bridge.
    bridged: BTreeMap<u32, Bridged>,
    pause_until: Option<Instant>,
    is_ending: bool,
}

/// A fence with a bridge.
#[derive(Default)]
struct Bridged {
    /// The links attached so far; 0 for a hook without one.
    links: Links,
    retry_at: Option<Instant>,
}

/// What the thread does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Attach(u32),
    WaitUntil(Instant),
    Wait,
    End,
}

impl Held {
    /// Records a fence that is attached.
    pub(super) fn attached(&mut self, ifindex: u32, links: Links) {
        self.bridged.remove(&ifindex);
        self.links.insert(ifindex, links);
    }

    /// Records a fence that has a bridge and these links; 0 for a hook without one.
    pub(super) fn bridged(&mut self, ifindex: u32, links: Links, now: Instant) {
        self.links.remove(&ifindex);
        let bridged = Bridged {
            links,
            retry_at: None,
        };
        self.bridged.insert(ifindex, bridged);
        self.pause_until = Some(now + PAUSE);
    }

    /// Leaves a fence alone from now on.
    pub(super) fn forget(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
        self.bridged.remove(&ifindex);
    }

    fn next(&self, now: Instant) -> Next {
        let pause = self.pause_until.filter(|until| *until > now);
        let due = |bridged: &Bridged| bridged.retry_at.is_none_or(|at| at <= now);
        let first = self.bridged.iter().find(|(_, bridged)| due(bridged));
        match (first, pause) {
            (Some(_), Some(until)) if !self.is_ending => Next::WaitUntil(until),
            (Some((ifindex, _)), _) => Next::Attach(*ifindex),
            (None, _) if self.is_ending => Next::End,
            (None, _) => {
                let retries = self.bridged.values().filter_map(|it| it.retry_at);
                retries.min().map_or(Next::Wait, Next::WaitUntil)
            }
        }
    }
}

impl Fences {
    /// Holds the fences: waits for a grace period at most.
    pub(super) fn hold(&self) -> MutexGuard<'_, Held> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let held = self.lock();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        held
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The interfaces with a fence.
    pub(super) fn interfaces(&self) -> Vec<u32> {
        let held = self.hold();
        held.links
            .keys()
            .chain(held.bridged.keys())
            .copied()
            .collect()
    }

    /// Looks at an interface's fence, of which no link is attached meanwhile; `None` if it has none.
    pub(super) fn while_unchanged<T>(
        &self,
        ifindex: u32,
        look: impl FnOnce(Links) -> T,
    ) -> Option<T> {
        let held = self.hold();
        if let Some(bridged) = held.bridged.get(&ifindex) {
            return Some(look(bridged.links));
        }
        let links = held.links.get(&ifindex).copied()?;
        // Only the reconciler changes such a fence, and ignores what was looked at before.
        drop(held);
        Some(look(links))
    }

    fn run(&self, mut programs: [SchedClassifier; HOOKS.len()]) {
        loop {
            // A lock that is given up and taken again at once would keep the others out.
            while self.waiting.load(Ordering::SeqCst) > 0 {
                thread::sleep(COURTESY);
            }
            let mut held = self.lock();
            let now = Instant::now();
            match held.next(now) {
                Next::Attach(ifindex) => self.attach_one(&mut held, ifindex, &mut programs),
                Next::WaitUntil(until) => {
                    let time = until.saturating_duration_since(now);
                    drop(self.changed.wait_timeout(held, time));
                }
                Next::Wait => drop(self.changed.wait(held)),
                Next::End => return,
            }
        }
    }

    /// Attaches one link of a bridged fence, or removes its bridge.
    fn attach_one(
        &self,
        held: &mut Held,
        ifindex: u32,
        programs: &mut [SchedClassifier; HOOKS.len()],
    ) {
        let Some(bridged) = held.bridged.get_mut(&ifindex) else {
            return;
        };
        match self.step(bridged, ifindex, programs) {
            Ok(false) => {}
            Ok(true) => {
                let links = bridged.links;
                held.attached(ifindex, links);
            }
            // A notice follows, and the fence is detached.
            Err(_) if interface_name(ifindex).is_none() => held.forget(ifindex),
            Err(error) => {
                if bridged.retry_at.is_none() {
                    warn!("{error}; a clsact filter is the fence meanwhile, and it is tried again");
                }
                bridged.retry_at = Some(Instant::now() + RETRY);
                if held.is_ending {
                    held.forget(ifindex);
                }
            }
        }
    }

    /// Returns whether it was the last step.
    fn step(
        &self,
        bridged: &mut Bridged,
        ifindex: u32,
        programs: &mut [SchedClassifier; HOOKS.len()],
    ) -> Result<bool, DatapathError> {
        let links = HOOKS.into_iter().zip(programs).zip(&mut bridged.links);
        for (((name, hook), program), link) in links {
            if *link == 0 {
                let interface = interface_name(ifindex).unwrap_or_default();
                let point = AttachPoint {
                    ifindex,
                    interface: &interface,
                    name,
                    hook,
                };
                *link = tcx::attach_new(program, &point, &self.pins)?;
                return Ok(false);
            }
        }
        bridge::remove(ifindex, &self.pins)?;
        Ok(true)
    }
}

/// The fences, and the thread that attaches links, once there is something to do.
pub(super) struct LinkQueue {
    fences: Arc<Fences>,
    thread: Option<JoinHandle<()>>,
}

impl LinkQueue {
    pub(super) fn new(pins: Pins) -> Self {
        let fences = Fences {
            pins,
            held: Mutex::default(),
            changed: Condvar::new(),
            waiting: AtomicUsize::new(0),
        };
        Self {
            fences: Arc::new(fences),
            thread: None,
        }
    }

    pub(super) fn fences(&self) -> Arc<Fences> {
        Arc::clone(&self.fences)
    }

    /// Starts the thread, unless it runs. Not at the start of the process: it has the privileges of the
    /// thread that starts it, which are dropped later.
    ///
    /// # Errors
    /// When the pinned programs cannot be opened, or the system refuses a thread.
    pub(super) fn start(&mut self) -> io::Result<()> {
        if self.thread.is_some() {
            return Ok(());
        }
        let open = |name| {
            let program = SchedClassifier::from_pin(self.fences.pins.program(name));
            program.map_err(|error| io::Error::other(chain(&error)))
        };
        let [(from, _), (to, _)] = HOOKS;
        let programs = [open(from)?, open(to)?];
        let fences = self.fences();
        let thread = thread::Builder::new().name("links".to_owned());
        self.thread = Some(thread.spawn(move || fences.run(programs))?);
        Ok(())
    }

    /// Tells the thread that a bridge was built.
    pub(super) fn notify(&self) {
        self.fences.changed.notify_one();
    }
}

impl Drop for LinkQueue {
    fn drop(&mut self) {
        self.fences.hold().is_ending = true;
        self.notify();
        if let Some(thread) = self.thread.take() {
            // Fails if it panicked, which the log has.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_wait_for_a_pause_between_bridges_and_for_retries() {
        let (mut held, start) = (Held::default(), Instant::now());
        assert_eq!(held.next(start), Next::Wait);
        held.bridged(7, [0, 0], start);
        held.bridged(8, [0, 0], start + PAUSE / 2);
        let paused = start + PAUSE / 2 + PAUSE;
        assert_eq!(held.next(start + PAUSE), Next::WaitUntil(paused));
        assert_eq!(held.next(paused), Next::Attach(7));
        let retry = paused + RETRY;
        held.bridged.get_mut(&7).unwrap().retry_at = Some(retry);
        assert_eq!(held.next(paused), Next::Attach(8));
        held.attached(8, [1, 2]);
        assert_eq!(held.next(paused), Next::WaitUntil(retry));
        assert_eq!(held.next(retry), Next::Attach(7));
        held.is_ending = true;
        assert_eq!(held.next(paused), Next::End);
        assert_eq!(held.next(retry), Next::Attach(7), "what is left");
        held.forget(7);
        assert_eq!(held.next(retry), Next::End);
    }

    #[test]
    fn a_fence_has_a_bridge_or_is_attached() {
        let (mut held, now) = (Held::default(), Instant::now());
        held.bridged(7, [0, 0], now);
        held.attached(7, [1, 2]);
        assert_eq!((held.links.len(), held.bridged.len()), (1, 0));
        held.bridged(7, [1, 2], now);
        assert_eq!((held.links.len(), held.bridged.len()), (0, 1));
    }
}
