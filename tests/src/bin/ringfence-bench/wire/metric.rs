//! The metrics on the wire: types of traffic, each over IPv4 and IPv6.

use std::fmt;

/// A type of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A packet of one established UDP flow.
    Established,
    /// A packet of one of [`super::traffic::FLOWS`] established UDP flows, in turn.
    Flows,
    /// A UDP packet that opens a flow.
    New,
    /// A UDP packet that policy denies.
    Denied,
    /// A UDP datagram in fragments.
    Fragmented,
    /// One byte in each direction on an established TCP connection.
    TcpRoundTrip,
    /// A TCP connection opened and reset.
    TcpConnectReset,
}

/// A type of traffic over one of the two families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Metric {
    pub(crate) kind: Kind,
    pub(crate) v6: bool,
}

const KINDS: [Kind; 7] = [
    Kind::Established,
    Kind::Flows,
    Kind::New,
    Kind::Denied,
    Kind::Fragmented,
    Kind::TcpRoundTrip,
    Kind::TcpConnectReset,
];

impl Kind {
    /// Whether every operation opens a flow.
    pub(crate) const fn opens_flows(self) -> bool {
        matches!(self, Self::New | Self::TcpConnectReset)
    }
}

impl Metric {
    /// Every metric.
    pub(crate) fn all() -> Vec<Self> {
        let both = |kind| [false, true].map(|v6| Self { kind, v6 });
        KINDS.into_iter().flat_map(both).collect()
    }

    /// The unit of its operations.
    pub(crate) const fn operation(self) -> &'static str {
        match self.kind {
            Kind::Established => "a packet of one established UDP flow",
            Kind::Flows => "a packet of one of 4,096 established UDP flows",
            Kind::New => "a UDP packet that opens a flow",
            Kind::Denied => "a UDP packet that is denied",
            Kind::Fragmented => "a UDP datagram in three fragments",
            Kind::TcpRoundTrip => "a byte to and fro on a TCP connection",
            Kind::TcpConnectReset => "a TCP connection opened and reset",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::Established => "established-udp",
            Kind::Flows => "flows-udp",
            Kind::New => "new-udp",
            Kind::Denied => "denied-udp",
            Kind::Fragmented => "fragmented-udp",
            Kind::TcpRoundTrip => "tcp-round-trip",
            Kind::TcpConnectReset => "tcp-connect-reset",
        };
        write!(f, "{name}{}", if self.v6 { 6 } else { 4 })
    }
}
