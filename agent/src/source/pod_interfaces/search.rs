//! The interfaces that were looked for, and those that were found.
//!
//! Invariants: an interface that was found stays that of its address until its link is gone or a route of the
//! address leads to another one, because bridges forget where addresses are and routes go before links; a port
//! of a bridge takes no address from another one that is there, because any pod may announce any address
//! before it has a fence; an error changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::FoundInterfaces;
use super::lookup::{Found, Kernel, Way, find_link, look_up, solicit};
use super::message::Notice;

/// How often a neighbour is asked for its hardware address at most.
const SOLICITED_EVERY: Duration = Duration::from_secs(1);

/// A search.
#[derive(Debug, Default)]
pub(super) struct Search {
    pub(super) wanted: BTreeSet<IpAddr>,
    found: BTreeMap<IpAddr, Found>,
    /// The addresses to look up next.
    due: BTreeSet<IpAddr>,
    /// Those of which it is known whether they have an interface.
    settled: BTreeSet<IpAddr>,
    solicited: BTreeMap<IpAddr, Instant>,
}

impl Search {
    /// Looks for these addresses from now on.
    pub(super) fn look_for(&mut self, wanted: BTreeSet<IpAddr>) {
        self.found.retain(|address, _| wanted.contains(address));
        self.solicited.retain(|address, _| wanted.contains(address));
        self.due.retain(|address| wanted.contains(address));
        self.settled.retain(|address| wanted.contains(address));
        self.due.extend(wanted.difference(&self.wanted));
        self.wanted = wanted;
    }

    /// Takes over a notice.
    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Address(address) => _ = self.due.insert(address),
            // It may be the interface of any of them, or of none any more.
            Notice::Link => self.due.extend(&self.wanted),
            Notice::Bridge => {
                let found = &self.found;
                let missing = self.wanted.iter().filter(|it| !found.contains_key(*it));
                self.due.extend(missing);
            }
        }
    }

    /// Has everything looked up again.
    pub(super) fn look_again(&mut self) {
        self.due.extend(&self.wanted);
    }

    /// Whether there is something to look up.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Looks up what is due. Returns whether something changed, and the last error.
    pub(super) fn pass(
        &mut self,
        kernel: &mut impl Kernel,
        now: Instant,
    ) -> (bool, Option<io::Error>) {
        let (mut has_changed, mut failure) = (false, None);
        for address in std::mem::take(&mut self.due) {
            match self.step(kernel, address, now) {
                Ok(changed) => has_changed |= changed,
                Err(error) => failure = Some(error),
            }
        }
        (has_changed, failure)
    }

    fn step(
        &mut self,
        kernel: &mut impl Kernel,
        address: IpAddr,
        now: Instant,
    ) -> io::Result<bool> {
        let way = look_up(kernel, address)?;
        let mut is_settled = true;
        if let Way::OnBridge(bridge) = way {
            let last = self.solicited.get(&address);
            let is_due =
                last.is_none_or(|last| now.saturating_duration_since(*last) >= SOLICITED_EVERY);
            // There was time for an answer to the last one.
            is_settled = is_due && last.is_some();
            if is_due {
                self.solicited.insert(address, now);
                solicit(kernel, address, bridge)?;
            }
        }
        let has_settled = is_settled && self.settled.insert(address);
        let before = self.found.get(&address);
        let next = match (way, before) {
            (Way::To(found), _) | (Way::AtPort(found), None) => Some(found),
            (Way::OnBridge(_) | Way::None, None) => None,
            (way, Some(before)) => {
                let link = find_link(kernel, before.index)?;
                let before = link.map(|(index, link)| Found {
                    index,
                    name: link.name,
                });
                match way {
                    Way::AtPort(found) => before.or(Some(found)),
                    _ => before,
                }
            }
        };
        if next.as_ref() == before {
            return Ok(has_settled);
        }
        match next {
            Some(found) => _ = self.found.insert(address, found),
            None => _ = self.found.remove(&address),
        }
        Ok(true)
    }

    /// What was found.
    pub(super) fn found(&self) -> FoundInterfaces {
        let found = self.found.iter();
        FoundInterfaces {
            names: found
                .map(|(address, found)| (*address, found.name.clone()))
                .collect(),
            settled: self.settled.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
