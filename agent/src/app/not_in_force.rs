//! What this node was asked for and what is not in force: the reasons for which it is not ready.
//!
//! Invariants: `status`, its exit code and readiness use the same list; a source file that is refused is
//! no reason, because its last good content is in force; liveness depends on none of it. Pure.

use jiff::{SignedDuration, Timestamp};

use super::shared_state::Applied;
use crate::{
    reconcile::{Presence, Presences},
    server::view::NotInForceView,
};

/// One thing that is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotInForce {
    /// Nothing has been published yet.
    Starting,
    /// The last pass failed.
    Failed(String),
    /// What is in force is what an earlier agent knew.
    Restored(String),
    /// The kernel does not list this node's interfaces and addresses.
    Unwatched(String),
    /// A workload of this node has no fence.
    Unfenced(String),
    /// The fence of a workload of this node may not do what was asked for.
    Degraded(String),
}

impl NotInForce {
    /// The kind and the text that users see.
    pub(super) fn view(&self) -> NotInForceView {
        let (kind, text) = match self {
            Self::Starting => ("starting", "no policy applied yet"),
            Self::Failed(reason) => ("failed", reason.as_str()),
            Self::Restored(text) => ("restored", text.as_str()),
            Self::Unwatched(text) => ("unwatched", text.as_str()),
            Self::Unfenced(text) => ("unfenced", text.as_str()),
            Self::Degraded(text) => ("degraded", text.as_str()),
        };
        NotInForceView {
            kind: kind.into(),
            text: text.into(),
        }
    }
}

/// Why a state is not known to be what is asked for that was stored at this time, in seconds since 1970.
fn restored(at: i64, now: i64) -> NotInForce {
    let time = Timestamp::from_second(at).unwrap_or_default();
    let age = SignedDuration::from_secs(now.saturating_sub(at).max(0));
    NotInForce::Restored(format!(
        "the API server has not named all of its objects since this start (see the errors): in force is what an \
         earlier run stored {age:#} ago, at {time}"
    ))
}

/// Everything that is not in force, given whether anything was published, why the last pass failed, why
/// interfaces and addresses are not listed, and the workloads that name an interface of this node.
pub(super) fn not_in_force(
    is_published: bool,
    failure: Option<&str>,
    unlisted: Option<&str>,
    presences: &Presences,
) -> Vec<NotInForce> {
    let mut reasons = Vec::new();
    match failure {
        Some(failure) => reasons.push(NotInForce::Failed(failure.to_owned())),
        None if !is_published => reasons.push(NotInForce::Starting),
        None => {}
    }
    // Its own addresses decide what is `host`, and its interfaces which workload gets a fence.
    reasons.extend(unlisted.map(|error| {
        let text = format!(
            "netlink lists no interfaces and addresses ({error}): those of the last list are in use"
        );
        NotInForce::Unwatched(text)
    }));
    let texts = |why: fn(&Presence) -> Option<String>| {
        presences.iter().filter_map(move |(workload, presence)| {
            let why = why(presence)?;
            let interface = &presence.interface;
            Some(format!("{workload}: interface {interface}: {why}"))
        })
    };
    reasons.extend(texts(Presence::why_unfenced).map(NotInForce::Unfenced));
    reasons.extend(texts(Presence::why_degraded).map(NotInForce::Degraded));
    reasons
}

/// Ready, or the first reason and how many there are.
pub(super) fn readiness(reasons: &[NotInForce]) -> Result<(), String> {
    let Some(first) = reasons.first() else {
        return Ok(());
    };
    let NotInForceView { kind, text } = first.view();
    Err(match reasons.len() {
        1 => format!("{kind}: {text}"),
        all => format!("{kind}: {text} (and {} more not in force)", all - 1),
    })
}

impl Applied {
    /// What of this state is not in force.
    pub(super) fn not_in_force(&self) -> Vec<NotInForce> {
        let mut reasons = not_in_force(
            self.published.is_some(),
            self.failure.as_deref(),
            self.interfaces.failure(),
            &self.presences,
        );
        let now = Timestamp::now().as_second();
        reasons.extend(self.restored.map(|at| restored(at, now)));
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{NamespaceName, WorkloadId, WorkloadName},
        reconcile::{Degraded, Unfenced},
    };

    fn presences(unfenced: &[Option<Unfenced>]) -> Presences {
        let presence = |(index, unfenced): (usize, &Option<Unfenced>)| {
            let id = WorkloadId {
                namespace: NamespaceName::new("shop").unwrap(),
                name: WorkloadName::new(&format!("w{index}")).unwrap(),
            };
            let presence = Presence {
                interface: "rf-a".into(),
                unfenced: *unfenced,
                ..Presence::default()
            };
            (id, presence)
        };
        unfenced.iter().enumerate().map(presence).collect()
    }

    #[test]
    fn every_reason_is_listed() {
        let missing = Some(Unfenced::Missing);
        let all_fenced = presences(&[None, None]);
        assert_eq!(not_in_force(true, None, None, &all_fenced), []);
        assert_eq!(
            not_in_force(false, None, None, &all_fenced),
            [NotInForce::Starting]
        );
        for published in [false, true] {
            let failed = [NotInForce::Failed("full".into())];
            assert_eq!(
                not_in_force(published, Some("full"), None, &all_fenced),
                failed
            );
        }
        let unwatched = not_in_force(true, None, Some("no buffer space"), &all_fenced);
        let [NotInForce::Unwatched(text)] = unwatched.as_slice() else {
            panic!("{unwatched:?}");
        };
        assert!(text.contains("(no buffer space)"), "{text}");
        let all = not_in_force(
            true,
            Some("full"),
            None,
            &presences(&[missing, None, missing]),
        );
        let kinds: Vec<String> = all.iter().map(|reason| reason.view().kind).collect();
        assert_eq!(kinds, ["failed", "unfenced", "unfenced"]);
        assert!(all[1].view().text.starts_with("shop/w0: interface rf-a: "));
        // One that cannot be attached says why, and comes before those that are degraded.
        let mut some = presences(&[None, missing]);
        let degraded = Degraded::Unverified("no answer".into());
        let text = format!("shop/w0: interface rf-a: {degraded}");
        for (id, presence) in &mut some {
            match presence.unfenced {
                Some(_) => presence.error = Some("busy".into()),
                None if id.name.as_str() == "w0" => presence.degraded = Some(degraded.clone()),
                None => {}
            }
        }
        let all = not_in_force(true, None, None, &some);
        assert!(matches!(&all[0], NotInForce::Unfenced(text) if text.ends_with(": busy")));
        assert_eq!(all[1], NotInForce::Degraded(text));
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn a_restored_state_says_how_old_it_is() {
        let (at, now) = (1_796_032_805, 1_796_032_805 + 3_661);
        let reasons = [restored(at, now)];
        let text = readiness(&reasons).unwrap_err();
        assert!(text.starts_with("restored: the API server"), "{text}");
        let age = "stored 1h 1m 1s ago, at 2026-11-30T10:00:05Z";
        assert!(text.ends_with(age), "{text}");
        // A clock that was put back.
        let NotInForce::Restored(text) = restored(now, at) else {
            panic!("{reasons:?}");
        };
        assert!(text.contains("stored 0s ago"), "{text}");
    }

    #[test]
    fn readiness_gives_the_first_reason_and_the_number() {
        assert_eq!(readiness(&[]), Ok(()));
        let starting = "starting: no policy applied yet";
        assert_eq!(readiness(&[NotInForce::Starting]), Err(starting.into()));
        let two = [
            NotInForce::Failed("full".into()),
            NotInForce::Unfenced("w".into()),
        ];
        let text = readiness(&two).unwrap_err();
        assert_eq!(text, "failed: full (and 1 more not in force)");
    }
}
