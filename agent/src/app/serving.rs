//! The servers, each on a thread and a runtime of its own: neither delays the event loop or the other
//! one, however many clients it has.
//!
//! Invariant: both have stopped, and the control socket is gone, when [`Serving::stop`] returns.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
};
use tracing::{error, warn};

use super::{
    AppError,
    shared_state::{SharedState, socket_path},
};
use crate::{
    config::Config,
    server::{Command, Control, ControlListener, HealthServer},
};

/// More descriptors than an agent uses: two for each of the most endpoints, and some.
const ENOUGH_DESCRIPTORS: u64 = 1 << 18;

/// The opened listeners.
pub(super) struct Listeners {
    runtimes: [OwnRuntime; 2],
    control: ControlListener,
    health: HealthServer,
}

impl Listeners {
    /// Opens both, unless health is open already.
    pub(super) fn open(config: &Config, health: Option<HealthServer>) -> Result<Self, AppError> {
        let listen = config.metrics.listen;
        let health = health
            .map_or_else(|| HealthServer::bind(listen), Ok)
            .map_err(AppError::io(format!("listen on {listen}")))?;
        let runtimes = [OwnRuntime::new()?, OwnRuntime::new()?];
        let [of_control, _] = &runtimes;
        // The socket belongs to the runtime in whose context it is made.
        let context = of_control.0.as_ref().map(Runtime::enter);
        let control = ControlListener::bind(&socket_path(config))?;
        drop(context);
        Ok(Self {
            runtimes,
            control,
            health,
        })
    }

    /// Where metrics and health are.
    pub(super) fn health_address(&self) -> String {
        self.health.address().to_string()
    }

    /// Starts serving.
    pub(super) fn serve(
        self,
        shared: &Arc<SharedState>,
        commands: mpsc::Sender<Command>,
    ) -> Result<Serving, AppError> {
        let descriptors = raise_descriptors();
        let (stop, stopped) = watch::channel(());
        let control = Control {
            views: Arc::clone(shared) as _,
            commands,
            history: Arc::clone(&shared.history),
            node: Arc::clone(&shared.node),
        };
        let [of_control, of_health] = self.runtimes;
        let (listener, until) = (self.control, ended(stopped.clone()));
        let control = spawn("control-api", of_control, async move {
            control.serve(listener, descriptors, until).await;
        })?;
        let (health, views, until) = (self.health, Arc::clone(shared), ended(stopped));
        let health = spawn("health", of_health, async move {
            if let Err(error) = health.serve(views, descriptors, until).await {
                error!("health listener: {error}");
            }
        })?;
        Ok(Serving {
            stop,
            threads: [control, health],
        })
    }
}

/// The running servers.
pub(super) struct Serving {
    stop: watch::Sender<()>,
    threads: [JoinHandle<()>; 2],
}

impl Serving {
    /// Stops both and waits until they have stopped.
    pub(super) fn stop(self) {
        drop(self.stop);
        for thread in self.threads {
            if thread.join().is_err() {
                error!("a server has panicked");
            }
        }
    }
}

/// A runtime that may be dropped in the context of another one.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn new() -> Result<Self, AppError> {
        let mut builder = Builder::new_current_thread();
        let built = builder.enable_all().build();
        let runtime = built.map_err(AppError::io("start the servers' runtimes"))?;
        Ok(Self(Some(runtime)))
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn spawn(
    name: &str,
    runtime: OwnRuntime,
    server: impl Future<Output = ()> + Send + 'static,
) -> Result<JoinHandle<()>, AppError> {
    let serve = move || {
        if let Some(runtime) = &runtime.0 {
            runtime.block_on(server);
        }
    };
    let thread = thread::Builder::new().name(name.to_owned());
    thread
        .spawn(serve)
        .map_err(AppError::io("start a server's thread"))
}

async fn ended(mut stopped: watch::Receiver<()>) {
    // The only change is that its sender is gone.
    let _ = stopped.changed().await;
}

/// Lets this process have as many descriptors as it may, within reason. Returns how many it may have.
fn raise_descriptors() -> u64 {
    let Ok((now, most)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    let wanted = most.min(ENOUGH_DESCRIPTORS).max(now);
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, most) {
        Ok(()) => wanted,
        Err(error) => {
            warn!("cannot raise the number of descriptors above {now}: {error}");
            now
        }
    }
}
