//! How much to measure.

/// How much of a group of figures is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What the goals ask, in seconds.
    Default,
    /// Everything, with enough samples for its tails.
    Full,
}

impl Extent {
    /// One number or the other.
    pub(crate) fn of<T>(self, default: T, full: T) -> T {
        match self {
            Self::Default => default,
            Self::Full => full,
        }
    }
}
