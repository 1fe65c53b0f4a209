//! Compares the kernel with what was attached and written, and puts right what differs.
//!
//! What to do is decided in `verification` and `entries`. Invariants: nothing of it fails a pass, and a
//! difference at one interface or entry keeps no other from being put right.

use std::{collections::BTreeMap, time::Instant};

use super::{
    ReconcileError, Reconciler,
    entries::{described, put_right, records, removal, step_size},
    verification::Fault,
};
use crate::{
    datapath::{Datapath, DatapathError, Look, Standing},
    plan::Action,
    source::interfaces::Links,
};

/// What was put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RepairKind {
    /// A fence that was not attached.
    FenceMissing,
    /// A fence that was not first.
    FenceNotFirst,
    /// An endpoint's record.
    Endpoint,
    /// A namespace's mode.
    Mode,
    /// Another entry of a control map.
    Entry,
}

impl RepairKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::FenceMissing,
        Self::FenceNotFirst,
        Self::Endpoint,
        Self::Mode,
        Self::Entry,
    ];

    /// The label value of the metric.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FenceMissing => "fence-missing",
            Self::FenceNotFirst => "fence-not-first",
            Self::Endpoint => "endpoint",
            Self::Mode => "mode",
            Self::Entry => "entry",
        }
    }
}

/// Something that was put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// What kind of thing.
    pub kind: RepairKind,
    /// What was wrong, and with what.
    pub text: String,
}

impl<D: Datapath> Reconciler<D> {
    /// Begins a look at every fence, to be made on any thread; returns its number.
    ///
    /// # Errors
    /// When the programs cannot be inspected.
    pub fn begin_look(&mut self) -> Result<(u64, Look), DatapathError> {
        let look = self.datapath.look()?;
        Ok((self.verification.begin_look(), look))
    }

    /// Attaches the fences again that a look found missing or behind other programs. Of looks that were
    /// begun, the last one counts.
    pub fn finish_look(
        &mut self,
        look: u64,
        found: BTreeMap<u32, Standing>,
        interfaces: &Links,
        now: Instant,
    ) -> Vec<Repair> {
        let mut repairs = Vec::new();
        for (ifindex, fault) in self.verification.finish_look(look, found, now) {
            let Some(link) = interfaces.get(ifindex) else {
                continue;
            };
            if !self.attach_again(ifindex, &link.name) {
                continue;
            }
            let at = format!("interface {} (index {ifindex})", link.name);
            repairs.push(match fault {
                Fault::Absent(hook) => Repair {
                    kind: RepairKind::FenceMissing,
                    text: format!("{at}: {hook} was not attached any more; it is attached again"),
                },
                Fault::Behind(hook, program) => Repair {
                    kind: RepairKind::FenceNotFirst,
                    text: format!(
                        "{at}: program {program} ran before {hook}, which was moved to the front"
                    ),
                },
            });
        }
        repairs
    }

    /// Tries again to attach the fences that could not be attached. Returns whether one is attached now.
    pub fn retry_failed(&mut self, interfaces: &Links) -> bool {
        let failed = self.verification.failures().keys();
        let failed: Vec<u32> = failed.copied().collect();
        let mut any = false;
        for ifindex in failed {
            match interfaces.get(ifindex) {
                Some(link) if self.actual.endpoints.contains_key(&ifindex) => {
                    any |= self.attach_again(ifindex, &link.name);
                }
                _ => self.verification.forget(ifindex),
            }
        }
        any
    }

    /// Compares every endpoint's record, every mode and some of the other entries with what was written.
    ///
    /// # Errors
    /// When the kernel refuses a read or a write; the next call continues.
    pub fn verify_entries(&mut self) -> Result<Vec<Repair>, ReconcileError> {
        let most = step_size(&self.actual);
        let mut expected = records(&self.actual);
        expected.extend(self.entry_round.next(&self.actual, most));
        let mut repairs = Vec::new();
        for write in expected {
            if !self.datapath.holds(&write)? {
                self.write(&put_right(write))?;
                repairs.push(repaired(&write, "was not as written; it is written again"));
            }
        }
        for found in self.datapath.next_entries(most) {
            if let Some(removal) = removal(&self.actual, &found) {
                self.write(&removal)?;
                repairs.push(repaired(
                    &found,
                    "was not written by this agent; it is removed",
                ));
            }
        }
        Ok(repairs)
    }
}

fn repaired(entry: &Action, what: &str) -> Repair {
    let kind = match entry {
        Action::PutEndpoint(..) => RepairKind::Endpoint,
        Action::SetMode(..) => RepairKind::Mode,
        _ => RepairKind::Entry,
    };
    Repair {
        kind,
        text: format!("{} {what}", described(entry)),
    }
}
