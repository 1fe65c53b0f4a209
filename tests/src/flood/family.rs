//! The kinds of floods. In all but the first, policy allows every frame.

/// A kind of flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Datagrams and segments with random ports to the sink, to a workload that the flooders must
    /// not reach and to unassigned addresses.
    Random,
    /// Datagrams between two ports of the flooder's own addresses, in both directions, so that the
    /// entries of both become assured.
    OwnAddress,
    /// SYNs and datagrams to the sink, which never answers.
    Unanswered,
    /// SYNs to the sink, which answers; the handshake is never completed.
    HalfOpen,
    /// Datagrams to the sink, each from a port of its own.
    OneWay,
    /// Datagrams to the sink and answers, so that the entries of both ends become assured.
    Assured,
}

impl Family {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Random,
        Self::OwnAddress,
        Self::Unanswered,
        Self::HalfOpen,
        Self::OneWay,
        Self::Assured,
    ];

    /// The name in reports and for `--family`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::OwnAddress => "own-address",
            Self::Unanswered => "unanswered",
            Self::HalfOpen => "half-open",
            Self::OneWay => "one-way",
            Self::Assured => "assured",
        }
    }

    /// Whether policy allows every frame.
    #[must_use]
    pub const fn is_permitted(self) -> bool {
        !matches!(self, Self::Random)
    }
}
