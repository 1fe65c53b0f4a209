//! One agent at a time: locks the directories of pins and of state, and waits for them if asked to.
//!
//! Invariants: a waiting agent holds neither lock, loads nothing and writes nothing but the empty
//! directories; it serves health, so that a supervisor sees that it is alive, not ready, and which
//! process it waits for. No thread is started, because privileges are dropped later.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    signal::unix::SignalKind,
    task::JoinHandle,
    time::{self, MissedTickBehavior},
};
use tracing::{info, warn};

use super::{
    AppError,
    directory_lock::{DirectoryLock, Held, LockError},
    event_loop::listen_for,
};
use crate::{
    config::Config,
    datapath,
    server::{Health, HealthServer},
};

/// The interval between attempts to take the locks over.
const RETRY: Duration = Duration::from_millis(50);

/// How many descriptors to assume: the waiting agent needs none itself.
const DESCRIPTORS: u64 = 256;

/// Both locks of an agent.
#[derive(Debug)]
pub(super) struct Locks {
    _bpffs: DirectoryLock,
    _state: DirectoryLock,
}

impl Locks {
    /// Creates what is missing and locks it, without waiting. The pins come first, in every agent.
    fn acquire(config: &Config) -> Result<Self, AppError> {
        datapath::create_pin_directory(&config.bpffs)?;
        let dir = &config.state_dir;
        let what = format!("create the directory {}", dir.display());
        fs::create_dir_all(dir).map_err(AppError::io(what))?;
        Ok(Self {
            _bpffs: DirectoryLock::acquire(&config.bpffs)?,
            _state: DirectoryLock::acquire(&config.state_dir)?,
        })
    }
}

/// Locks what exists of both directories, for removing it. If another process holds one and `wait` is set, waits
/// until it ends.
///
/// # Errors
/// When another process holds a lock and `wait` is not set, or the system refuses.
pub(super) fn lock_for_removal(
    config: &Config,
    wait: bool,
) -> Result<Vec<DirectoryLock>, AppError> {
    let mut said = false;
    loop {
        match lock_existing(config) {
            Ok(locks) => return Ok(locks),
            Err(LockError::Held(held)) if wait => {
                if !said {
                    info!("waiting: {held}");
                    said = true;
                }
                std::thread::sleep(RETRY);
            }
            Err(LockError::Held(held)) => return Err(AppError::CleanupInUse(held)),
            Err(error @ LockError::Io { .. }) => return Err(AppError::Lock(error)),
        }
    }
}

fn lock_existing(config: &Config) -> Result<Vec<DirectoryLock>, LockError> {
    let dirs = [&config.bpffs, &config.state_dir].into_iter();
    dirs.filter(|dir| is_there(dir))
        .map(|dir| DirectoryLock::acquire(dir))
        .collect()
}

fn is_there(dir: &Path) -> bool {
    fs::metadata(dir).is_ok()
}

/// What a start has when it may continue.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) locks: Locks,
    /// The listener that was opened while waiting.
    pub(super) health: Option<HealthServer>,
}

/// Locks both directories. If another process holds one and `wait` is set, waits until it ends;
/// `None` if a signal ended the wait.
///
/// # Errors
/// When another process holds a lock and `wait` is not set, or the system refuses.
pub(super) fn take_over(config: &Config, wait: bool) -> Result<Option<Taken>, AppError> {
    match Locks::acquire(config) {
        Ok(locks) => Ok(Some(Taken {
            locks,
            health: None,
        })),
        Err(AppError::InUse(held)) if wait => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(AppError::io("start the runtime"))?;
            runtime.block_on(wait_for(config, held))
        }
        Err(error) => Err(error),
    }
}

async fn wait_for(config: &Config, held: Held) -> Result<Option<Taken>, AppError> {
    info!("waiting: {held}");
    let waiting = Arc::new(Waiting(Mutex::new(held)));
    let mut health = WaitingHealth::default();
    let (mut term, mut int) = (
        listen_for(SignalKind::terminate())?,
        listen_for(SignalKind::interrupt())?,
    );
    let mut retry = time::interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        health.open(config, &waiting);
        tokio::select! {
            _ = retry.tick() => match Locks::acquire(config) {
                Ok(locks) => {
                    info!("the other agent has ended; taking over");
                    let health = health.close().await;
                    return Ok(Some(Taken { locks, health }));
                }
                Err(AppError::InUse(held)) => waiting.set(held),
                Err(error) => return Err(error),
            },
            _ = term.recv() => return Ok(None),
            _ = int.recv() => return Ok(None),
        }
    }
}

/// The health listener of a waiting agent, as soon as its address is free.
#[derive(Default)]
struct WaitingHealth {
    server: Option<(HealthServer, JoinHandle<()>)>,
    refused: bool,
}

impl WaitingHealth {
    /// Opens the listener, unless it is open. The agent that is waited for may use the address.
    fn open(&mut self, config: &Config, waiting: &Arc<Waiting>) {
        if self.server.is_some() {
            return;
        }
        let opened = HealthServer::bind(config.metrics.listen)
            .and_then(|server| Ok((server.try_clone()?, server)));
        match opened {
            Ok((served, server)) => {
                info!("readyz says so on {}", server.address());
                let views = Arc::clone(waiting);
                let task = tokio::spawn(async move {
                    if let Err(error) = served
                        .serve(views, DESCRIPTORS, std::future::pending())
                        .await
                    {
                        warn!("health listener: {error}");
                    }
                });
                self.server = Some((server, task));
            }
            Err(error) if !self.refused => {
                self.refused = true;
                let listen = config.metrics.listen;
                warn!("cannot say so on {listen} yet: {error}");
            }
            Err(_) => {}
        }
    }

    /// Stops serving. The listener stays open: later clients wait until it is served again.
    async fn close(self) -> Option<HealthServer> {
        let (server, task) = self.server?;
        task.abort();
        // An error says that it was aborted.
        let _ = task.await;
        Some(server)
    }
}

/// The health of a waiting agent.
#[derive(Debug)]
struct Waiting(Mutex<Held>);

impl Waiting {
    fn set(&self, held: Held) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }
}

impl Health for Waiting {
    fn metrics(&self) -> String {
        "# EOF\n".to_owned()
    }

    fn ready(&self) -> Result<(), String> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Err(format!("waiting to take over: {held}"))
    }
}
