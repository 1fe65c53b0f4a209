//! Transport protocols as policies name them.
//!
//! `Icmp` stands for both ICMPv4 and ICMPv6. Policies do not distinguish the two; the datapath maps
//! them to protocol numbers.

use std::fmt;
use std::str::FromStr;

use super::quote::quote;

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMPv4 and ICMPv6.
    Icmp,
    /// Any other IP protocol, by number; never the number of a protocol named above.
    Number(u8),
}

/// An unknown protocol name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown protocol {}: expected tcp, udp, sctp or icmp", quote(.0))]
pub struct ProtocolError(String);

impl Protocol {
    /// True for the protocols whose packets carry ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp)
    }

    /// The protocol of an IP protocol number; 1 and 58 are both `Icmp`.
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        match number {
            6 => Self::Tcp,
            17 => Self::Udp,
            132 => Self::Sctp,
            1 | 58 => Self::Icmp,
            other => Self::Number(other),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => out.write_str("tcp"),
            Self::Udp => out.write_str("udp"),
            Self::Sctp => out.write_str("sctp"),
            Self::Icmp => out.write_str("icmp"),
            Self::Number(number) => write!(out, "protocol/{number}"),
        }
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            "icmp" => Ok(Self::Icmp),
            _ => Err(ProtocolError(text.to_owned())),
        }
    }
}
