//! Clients that send requests continuously; every request is counted once.
//!
//! For every relation there are clients over IPv4 and IPv6, with a persistent connection and with a
//! new one for each request. An error or a late or wrong response is a failure. [`Clients::stop`]
//! returns after the requests in progress have ended, so that the counts are final.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use ringfence_testbed::http::HttpClient;
use ringfence_testbed::{Workload, eventually, interrupt};

use crate::shop::Member;

/// A response later than this is a failure.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// Interval between the starts of two requests of a client, with a persistent and with new
/// connections.
const KEPT: Duration = Duration::from_millis(20);
const FRESH: Duration = Duration::from_millis(50);

/// Running clients; dropping this stops them.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

/// The clients' request counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) first_failure: Option<String>,
}

impl Clients {
    /// Adds the four clients of one relation.
    pub(crate) fn add(&mut self, from: &Workload, to: &Member) -> Result<()> {
        for ip in to.workload.ips() {
            let target = SocketAddr::new(ip, to.port()?);
            for keep in [true, false] {
                let shared = Arc::clone(&self.shared);
                let name = to.workload.name.clone();
                let run = move || shared.run(target, &name, keep);
                self.threads.push(from.ns.spawn(run)?);
            }
        }
        Ok(())
    }

    /// Number of clients.
    pub(crate) fn len(&self) -> usize {
        self.threads.len()
    }

    /// The counts so far.
    pub(crate) fn totals(&self) -> Requests {
        let first = self.shared.first_failure.lock();
        Requests {
            answered: self.shared.answered.load(Ordering::Acquire),
            failed: self.shared.failed.load(Ordering::Acquire),
            first_failure: first.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Waits until `count` more requests have been answered.
    pub(crate) fn wait_for_responses(&self, count: u64) -> Result<Requests> {
        let target = self.totals().answered + count;
        let what = format!("{count} more responses to legitimate requests");
        eventually(Duration::from_secs(15), &what, || {
            interrupt::check()?;
            let totals = self.totals();
            Ok((totals.answered >= target).then_some(totals))
        })
    }

    /// Stops the clients and returns the final counts.
    pub(crate) fn stop(mut self) -> Result<Requests> {
        self.join()?;
        Ok(self.totals())
    }

    fn join(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

impl Shared {
    fn run(&self, target: SocketAddr, name: &str, keep: bool) {
        let client = HttpClient::new(target, TIMEOUT);
        let (mut client, interval) = if keep {
            (client.keep_alive(), KEPT)
        } else {
            (client, FRESH)
        };
        let mut number = 0_u64;
        while !self.stop.load(Ordering::Acquire) {
            let next = Instant::now() + interval;
            number += 1;
            match request(&mut client, name, number) {
                Ok(()) => {
                    self.answered.fetch_add(1, Ordering::AcqRel);
                }
                Err(error) => {
                    let failure = || format!("request {number} to {target}: {error:#}");
                    let first = self.first_failure.lock();
                    first
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert_with(failure);
                    self.failed.fetch_add(1, Ordering::AcqRel);
                }
            }
            // Keeps the rate; it does not wait for any event.
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}

fn request(client: &mut HttpClient, name: &str, number: u64) -> Result<()> {
    let path = format!("/{number}");
    let since = Instant::now();
    let body = client.get(&path)?;
    ensure!(
        body == format!("{name} answers {path}\n"),
        "a wrong response"
    );
    ensure!(since.elapsed() < TIMEOUT, "answered after {TIMEOUT:?}");
    Ok(())
}
