//! How much of a group to measure.

/// How much of a group of figures is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What the goals need; takes seconds.
    Default,
    /// Everything, with enough samples for percentiles.
    Full,
}

impl Extent {
    /// The value for this extent.
    pub(crate) fn of<T>(self, default: T, full: T) -> T {
        match self {
            Self::Default => default,
            Self::Full => full,
        }
    }
}
