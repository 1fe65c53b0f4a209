//! Frees numbers that nothing uses any more, with walks of conntrack on a thread of their own.

use std::{
    sync::mpsc::{self, Receiver, TryRecvError},
    time::Duration,
};

use tracing::{debug, warn};

use crate::{
    datapath::{Datapath, DatapathError, HeldNumbers},
    observe::History,
    reconcile::{ReconcileError, Reconciler},
};

/// The interval at which such numbers are looked for.
pub(super) const INTERVAL: Duration = Duration::from_secs(3);

type Outcome = Result<HeldNumbers, DatapathError>;

/// One walk at a time.
#[derive(Default)]
pub(super) struct NumberFreeing {
    walk: Option<(u64, Receiver<Outcome>)>,
}

impl NumberFreeing {
    /// Makes the next step. The ring of flow events must have been drained right before: its events
    /// are then decoded with the names that their numbers had.
    pub(super) fn step<D: Datapath>(&mut self, reconciler: &mut Reconciler<D>, history: &History) {
        match self.make_step(reconciler, history) {
            Ok(0) => {}
            Ok(count) => debug!("{count} numbers are free again"),
            Err(error) => warn!("cannot free numbers: {error}"),
        }
    }

    fn make_step<D: Datapath>(
        &mut self,
        reconciler: &mut Reconciler<D>,
        history: &History,
    ) -> Result<usize, ReconcileError> {
        let Some((started, outcome)) = self.walk.take() else {
            self.walk = reconciler.start_freeing()?.map(|walk| {
                let (send, outcome) = mpsc::channel();
                // Fails only if the agent is about to end.
                tokio::task::spawn_blocking(move || _ = send.send((walk.run)()));
                (walk.started, outcome)
            });
            return Ok(0);
        };
        match outcome.try_recv() {
            Ok(held) => reconciler.finish_freeing(started, &held?, &history.identities()),
            Err(TryRecvError::Empty) => {
                self.walk = Some((started, outcome));
                Ok(0)
            }
            Err(TryRecvError::Disconnected) => Ok(0),
        }
    }
}
