//! Verdict, mode, and the action that results from them.
//!
//! Invariants: the verdict never depends on the mode. In `observe` nothing is ever dropped. A zero
//! mode byte reads as `enforce`, so that a missing map entry fails closed.

/// The result of policy for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Verdict {
    /// The flow may pass.
    Allow = 1,
    /// The flow may not pass.
    Deny = 2,
}

impl Verdict {
    /// From a map byte; everything except an explicit allow is a deny.
    #[must_use]
    #[inline(always)]
    pub const fn from_raw(raw: u8) -> Self {
        if raw == Self::Allow as u8 {
            Self::Allow
        } else {
            Self::Deny
        }
    }

    /// `allow` or `deny`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What a namespace does with verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mode {
    /// Evaluate and report, never drop.
    Observe = 1,
    /// Drop what policy denies, and fail closed.
    Enforce = 2,
    /// Drop everything.
    Lockdown = 3,
}

impl Mode {
    /// From a map byte; unknown bytes read as `enforce`.
    #[must_use]
    #[inline(always)]
    pub const fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Observe,
            3 => Self::Lockdown,
            _ => Self::Enforce,
        }
    }

    /// The endpoint's override if it has one (non-zero), otherwise its namespace's mode.
    #[must_use]
    #[inline(always)]
    pub const fn effective(endpoint_override: u8, namespace: u8) -> Self {
        Self::from_raw(if endpoint_override == 0 {
            namespace
        } else {
            endpoint_override
        })
    }

    /// Whether reject packets are sent: only in `enforce`. `observe` drops nothing, and `lockdown`
    /// drops silently.
    #[must_use]
    #[inline(always)]
    pub const fn sends_rejects(self) -> bool {
        matches!(self, Self::Enforce)
    }

    /// `observe`, `enforce` or `lockdown`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Enforce => "enforce",
            Self::Lockdown => "lockdown",
        }
    }
}

/// What happens to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Action {
    /// It passes.
    Pass = 1,
    /// It is dropped.
    Drop = 2,
}

impl Action {
    /// The action for a verdict in this mode.
    #[must_use]
    #[inline(always)]
    pub const fn of(verdict: Verdict, mode: Mode) -> Self {
        match (mode, verdict) {
            (Mode::Observe, _) | (Mode::Enforce, Verdict::Allow) => Self::Pass,
            (Mode::Enforce, Verdict::Deny) | (Mode::Lockdown, _) => Self::Drop,
        }
    }
}

/// A direction as seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// To the workload.
    Ingress = 1,
    /// From the workload.
    Egress = 2,
}

impl Direction {
    /// `ingress` or `egress`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// From a map byte.
    #[must_use]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::Ingress),
            2 => Some(Self::Egress),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_enforce_lets_the_verdict_decide() {
        use {Action::*, Mode::*, Verdict::*};
        let table = [
            (Allow, Observe, Pass),
            (Deny, Observe, Pass),
            (Allow, Enforce, Pass),
            (Deny, Enforce, Drop),
            (Allow, Lockdown, Drop),
            (Deny, Lockdown, Drop),
        ];
        for (verdict, mode, action) in table {
            assert_eq!(Action::of(verdict, mode), action, "{verdict:?} in {mode:?}");
        }
    }

    #[test]
    fn a_zero_byte_fails_closed() {
        assert_eq!(Mode::effective(0, 0), Mode::Enforce);
        assert_eq!(Mode::from_raw(77), Mode::Enforce);
        assert_eq!(Verdict::from_raw(0), Verdict::Deny);
        assert_eq!(Mode::effective(3, 1), Mode::Lockdown);
    }
}
