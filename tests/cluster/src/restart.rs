//! Killing components and starting them again, for tests of what depends on them.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::time::Duration;

use crate::Cluster;
use crate::cgroup::Cgroup;
use crate::component::{CONTROL_PLANE, HOLDER, Site};
use crate::ledger::{Entry, Ledger};
use crate::wait::eventually;

impl Cluster {
    /// The components that were started, each with its last process.
    pub fn components(&self) -> Result<Vec<Entry>> {
        Ledger::at(self.folder().ledger()).latest()
    }

    /// Kills a component with SIGKILL and returns when it has ended. `place` is `cp` or a node.
    pub fn kill(&self, component: &str, place: &str) -> Result<()> {
        let process = self.component(component, place)?.process;
        ensure!(process.lives(), "{component} of {place} does not run");
        let pid = Pid::from_raw(process.pid);
        kill(pid, Signal::SIGKILL).context("killing a component")?;
        let (deadline, pause) = (Duration::from_secs(10), Duration::from_millis(1));
        eventually(deadline, pause, "the end of a component", || {
            Ok((!process.lives()).then_some(()))
        })?;
        // If it was started by this process.
        let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        Ok(())
    }

    /// Starts a component again as it was started before. It need not be ready on return.
    pub fn start_again(&self, component: &str, place: &str) -> Result<()> {
        // A `down` meanwhile would meet a thread of this process in the cgroup.
        let _lock = self.folder().lock()?;
        let entry = self.component(component, place)?;
        ensure!(!entry.process.lives(), "{component} of {place} runs");
        ensure!(
            component != HOLDER,
            "namespaces that have ended do not come back"
        );
        let cgroup = Cgroup::named(&self.folder().cgroup())?;
        let site = Site {
            folder: self.folder(),
            description: self.description(),
            cgroup: &cgroup,
        };
        let namespaces = if place == CONTROL_PLANE {
            self.control_plane()?
        } else {
            self.node(place)?
        };
        namespaces.run(|| site.start_again(component, place, entry.command.clone()))?;
        Ok(())
    }

    fn component(&self, component: &str, place: &str) -> Result<Entry> {
        let entries = self.components()?;
        let mut same = entries.into_iter().filter(|e| e.component == component);
        same.find(|entry| entry.place == place)
            .with_context(|| format!("{component} of {place} was never started"))
    }
}
