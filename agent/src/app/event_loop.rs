//! The event loop: the one task that owns the sources and the reconciler.
//!
//! Invariants: every change of the desired state ends in one reconcile pass, unless a source knows neither
//! all of its objects nor what an earlier agent knew: then the kernel stays as it is; a failed pass is retried after a second; changes that only time brings (rules that begin or end, rows to retire)
//! have a timer; telemetry is drained in batches, never per record.

mod api;
mod commands;
mod source_files;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{self, MissedTickBehavior},
};
use tracing::{error, info, warn};

pub(super) use source_files::Sources;

use super::{
    AppError, Loaded,
    conntrack_sweep::{INTERVAL, Sweeper},
    flow_names::FlowNames,
    last_good_store,
    last_good_writer::LastGoodWriter,
    modes::Modes,
    number_freeing::{self, NumberFreeing},
    object_store::Unstored,
    policies_in_force::newly_without_room,
    serving::Listeners,
    shared_state::{Applied, SharedState, node_name},
    surroundings::Surroundings,
    verifying::{self, Verifying},
};
use crate::{
    config::Config,
    datapath::{Datapath as _, FlowEvents, KernelDatapath, KernelLog},
    model::{Inventory, WallTime},
    observe::{self, Decoder, FlowLog},
    reconcile::{Desired, Published, Reconciler},
    server::{Command, HealthServer},
    source::{Interfaces, Known, ObjectSources},
};

/// The interval between drains of telemetry.
const DRAIN_INTERVAL: Duration = Duration::from_millis(25);
/// The most records of one drain, so that a flood does not starve the rest of the loop.
const MAX_DRAIN: usize = 16_384;
/// The delay between a failed pass and the next one.
const RETRY_DELAY: Duration = Duration::from_secs(1);

struct Agent {
    shared: Arc<SharedState>,
    sources: ObjectSources,
    reconciler: Reconciler<KernelDatapath>,
    interfaces: Interfaces,
    surroundings: Surroundings,
    names: FlowNames,
    events: FlowEvents,
    decoder: Decoder,
    /// Records that the decoder refused.
    unknown_events: u64,
    log: Option<FlowLog>,
    kernel_log: Option<KernelLog>,
    sweeper: Sweeper,
    number_freeing: NumberFreeing,
    verifying: Verifying,
    last_good: LastGoodWriter,
    unstored_objects: Unstored,
    /// How much the sources knew at the last pass.
    known: Known,
    /// When to make the next pass if nothing else causes one before.
    next_pass: Option<Instant>,
    /// When to reread the sources if nothing else causes that before.
    next_reload: Option<Instant>,
}

/// Runs until SIGTERM or SIGINT.
pub(super) async fn run(
    config: Config,
    mut sources: Sources,
    loaded: Loaded,
    health: Option<HealthServer>,
) -> Result<(), AppError> {
    let Loaded {
        mut reconciler,
        telemetry,
        log: kernel_log,
        conntrack,
    } = loaded;
    let interfaces = Interfaces::watch(config.allow_uplink)
        .await
        .map_err(AppError::io("watch interfaces"))?;
    let listeners = Listeners::open(&config, health)?;

    sources.set_aside();
    let unstored_objects = sources.unstored_objects();
    let watched = sources.watch();
    let (sources, first) = watched.map_err(AppError::io("watch the source files"))?;
    let store = last_good_store::directory(&config.state_dir);
    let last_good = LastGoodWriter::start(store).map_err(AppError::io(
        "start the thread that stores last good content",
    ))?;
    // Even without changes: the store is complete then.
    last_good.write(first.changes);

    let mut surroundings = Surroundings::new(&config, &first.inventory);
    let links = interfaces.links();
    let applied = Applied {
        inventory: surroundings.around(first.inventory, &links),
        policies: first.policies,
        locked: first.locked,
        interfaces: links,
        modes: Modes::load(&config).map_err(AppError::io("read the modes set earlier"))?,
        published: None,
        presences: BTreeMap::new(),
        repairs: BTreeMap::new(),
        revision: 0,
        errors: first.errors,
        warnings: first.warnings,
        unstored: Vec::new(),
        restored: None,
        failure: None,
        wall_minus_ticks: 0,
    };
    let node = node_name(&config, &applied.inventory);
    let attach = reconciler.datapath().attach_kind();
    let log = config.flows.log.clone();
    let (limit, kept) = (config.flows.log_max_bytes, config.flows.log_files);
    let mut shared = SharedState::new(
        config,
        node.as_str().into(),
        attach,
        telemetry.readings,
        applied,
    );
    shared.metrics_listen = Some(listeners.health_address());
    let mut agent = Agent {
        names: FlowNames::new(&shared.node),
        shared: Arc::new(shared),
        sources,
        reconciler,
        interfaces,
        surroundings,
        events: telemetry.events,
        decoder: Decoder::default(),
        unknown_events: 0,
        log: log.map(|path| FlowLog::new(&path, limit, kept)),
        kernel_log,
        sweeper: Sweeper::new(conntrack),
        number_freeing: NumberFreeing::default(),
        verifying: Verifying::default(),
        last_good,
        unstored_objects,
        known: Known::NotYet,
        next_pass: None,
        next_reload: None,
    };
    // Files may have changed between the first read and the start of the watch.
    agent.deliver(true);
    agent.publish();

    let (commands, mut requests) = mpsc::channel(16);
    let serving = listeners.serve(&agent.shared, commands)?;
    let outcome = agent.run_until_stopped(&mut requests).await;
    // Commands that wait for an answer get none.
    drop(requests);
    serving.stop();
    agent.drain();
    outcome
}

pub(super) fn listen_for(kind: SignalKind) -> Result<Signal, AppError> {
    signal(kind).map_err(AppError::io("listen for signals"))
}

/// Ends at that time.
async fn reached(time: Option<Instant>) {
    time::sleep_until(time.map_or_else(time::Instant::now, time::Instant::from_std)).await;
}

fn wall_now() -> WallTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallTime(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

impl Agent {
    async fn run_until_stopped(
        &mut self,
        requests: &mut mpsc::Receiver<Command>,
    ) -> Result<(), AppError> {
        let (mut term, mut int, mut hup) = (
            listen_for(SignalKind::terminate())?,
            listen_for(SignalKind::interrupt())?,
            listen_for(SignalKind::hangup())?,
        );
        let mut drain = time::interval(DRAIN_INTERVAL);
        drain.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = time::interval(INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut free = time::interval(number_freeing::INTERVAL);
        free.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut verify = time::interval(verifying::INTERVAL);
        verify.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (next_pass, next_reload) = (self.next_pass, self.next_reload);
            // In random order: interfaces, or sources, that change without end keep nothing else waiting.
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                changed = self.interfaces.changed() => {
                    changed.map_err(AppError::io("watch interfaces"))?;
                    self.take_links();
                    self.publish();
                }
                Some(command) = requests.recv() => self.handle_command(command),
                _ = hup.recv() => {
                    info!("SIGHUP: rereading all sources");
                    self.deliver(true);
                    self.publish();
                }
                () = reached(next_pass), if next_pass.is_some() => self.publish(),
                () = reached(next_reload), if next_reload.is_some() => self.deliver_and_publish(),
                found = self.verifying.found(), if self.verifying.is_looking() => {
                    if let Some(found) = found {
                        self.verifying.finish_look(found, &mut self.reconciler, &self.shared);
                    }
                }
                _ = verify.tick() => self.verifying.step(&mut self.reconciler, &self.shared),
                _ = drain.tick() => { self.drain(); }
                _ = sweep.tick() => {
                    self.sweep();
                    self.store_modes();
                    let unstored = [self.last_good.failure(), self.unstored_objects.text()];
                    self.shared.applied().unstored = unstored.into_iter().flatten().collect();
                    self.shared.show();
                }
                _ = free.tick() => self.free_numbers(),
                changed = self.sources.changed() => {
                    changed.map_err(AppError::io("watch the sources"))?;
                    self.deliver_and_publish();
                }
            }
        }
        self.store_modes();
        info!("stopping; enforcement continues");
        Ok(())
    }

    /// Makes one pass, and schedules the next if one will be needed.
    fn publish(&mut self) {
        let known = self.sources.known();
        if known == Known::NotYet {
            self.next_pass = None;
            self.shared.show();
            return;
        }
        self.known = known;
        let started = Instant::now();
        match self.reconciler.retire() {
            Ok(0) => {}
            Ok(count) => tracing::debug!("retired {count} policy rows"),
            Err(error) => warn!("cannot retire policy rows: {error}"),
        }
        let (inventory, policies, locked, interfaces, modes) = {
            let applied = self.shared.applied();
            let modes = applied.modes.for_policy();
            (
                Arc::clone(&applied.inventory),
                Arc::clone(&applied.policies),
                Arc::clone(&applied.locked),
                Arc::clone(&applied.interfaces),
                modes,
            )
        };
        let now = wall_now();
        let desired = Desired {
            inventory: &inventory,
            policies: &policies,
            interfaces: &interfaces,
            modes: &modes,
            locked: &locked,
            is_complete: known == Known::All,
            now,
        };
        match self.reconciler.publish(&desired) {
            Ok(published) => self.published(published, now, started),
            Err(error) => self.failed(&error.to_string()),
        }
        self.verifying
            .show(Vec::new(), &self.reconciler, &self.shared);
        self.shared.show();
    }

    fn published(&mut self, published: Published, now: WallTime, started: Instant) {
        let until = |time: u64| Duration::from_nanos(time.saturating_sub(published.clocks.boot));
        // From now, which is after the clock was read: the timer must not fire before rows are due.
        let retire = published
            .retire_due
            .map(|time| Instant::now() + until(time));
        let change = published.compiled.next_change;
        let change = change.map(|time| started + until(time));
        self.next_pass = [retire, change].into_iter().flatten().min();
        let mut applied = self.shared.applied();
        if applied.failure.take().is_some() {
            info!("the desired state is in force again");
        }
        applied.wall_minus_ticks = i128::from(now.0) - i128::from(published.clocks.ticks);
        if published.writes > 0 || applied.published.is_none() {
            applied.revision += 1;
            self.shared.metrics.observe_publish(started.elapsed());
            info!(
                "revision {}: {} writes, {} endpoints fenced, {:?}",
                applied.revision,
                published.writes,
                published.fenced.len(),
                started.elapsed()
            );
        }
        for problem in newly_without_room(applied.published.as_deref(), &published) {
            error!("{problem}");
        }
        let inventory = Arc::clone(&applied.inventory);
        let published = Arc::new(published);
        applied.published = Some(Arc::clone(&published));
        drop(applied);
        self.update_names(&inventory, &published);
    }

    /// Updates the names that telemetry shows to a published state.
    fn update_names(&mut self, inventory: &Arc<Inventory>, published: &Published) {
        let gone = self.names.update(inventory, &published.compiled);
        self.shared.metrics.remove_workloads(gone);
        self.shared.set_directory(self.names.directory().clone());
    }

    fn failed(&mut self, reason: &str) {
        let mut applied = self.shared.applied();
        if applied.failure.as_deref() != Some(reason) {
            error!("{reason}; the previous state stays in force");
        }
        applied.failure = Some(reason.to_owned());
        self.next_pass = Some(Instant::now() + RETRY_DELAY);
    }

    /// Starts a sweep of the conntrack maps.
    fn sweep(&mut self) {
        let datapath = self.reconciler.datapath();
        match datapath.clocks() {
            Ok(now) => {
                let endpoints = datapath.endpoint_numbers();
                self.sweeper
                    .start(now.ticks, endpoints, Arc::clone(&self.shared));
            }
            Err(error) => warn!("conntrack sweep: {error}"),
        }
    }

    fn free_numbers(&mut self) {
        // Before all sources have been asked, what adopted state uses is not known.
        if self.drain() && self.sources.known() == Known::All {
            let history = &self.shared.history;
            self.number_freeing.step(&mut self.reconciler, history);
        }
    }

    /// Takes flow records off the ring: counts them, stores them and writes them to the flow log.
    /// Returns whether the ring was empty then.
    fn drain(&mut self) -> bool {
        if let Some(log) = &mut self.kernel_log {
            log.flush();
        }
        let directory = self.shared.directory();
        let wall_minus_ticks = self.shared.applied().wall_minus_ticks;
        let mut records = Vec::new();
        let mut unknown = 0;
        let decoder = &self.decoder;
        let taken = self.events.drain(MAX_DRAIN, |event| {
            match decoder.decode(event, &directory, wall_minus_ticks) {
                Some(record) => records.push(Arc::new(record)),
                None => unknown += 1,
            }
        });
        if taken == 0 {
            return true;
        }
        self.shared.metrics.count_flows(&records);
        self.shared.history.push(&records);
        if let Some(log) = &mut self.log {
            log.append(&records);
            self.shared
                .metrics
                .set_lost(observe::LossStage::Log, log.lost());
        }
        self.unknown_events += unknown;
        let malformed = self.events.malformed() + self.unknown_events;
        self.shared
            .metrics
            .set_lost(observe::LossStage::Decode, malformed);
        taken < MAX_DRAIN
    }
}
