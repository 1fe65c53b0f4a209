//! The transport protocol, port number and address family of a probe.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail, ensure};

/// A transport protocol of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// The name in ports: `tcp` or `udp`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of the grid, written e.g. `tcp/80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Port {
    pub(super) transport: Transport,
    pub(super) number: u16,
}

impl Port {
    /// The ports that every end serves in every case.
    pub(super) const DEFAULT: [Self; 4] = [
        Self::new(Transport::Tcp, 80),
        Self::new(Transport::Tcp, 81),
        Self::new(Transport::Udp, 80),
        Self::new(Transport::Udp, 81),
    ];

    const fn new(transport: Transport, number: u16) -> Self {
        Self { transport, number }
    }

    /// The name of the named port that every workload declares for it, e.g. `serve-80-tcp`.
    pub(super) fn served_name(self) -> String {
        format!("serve-{}-{}", self.number, self.transport.name())
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transport.name(), self.number)
    }
}

impl FromStr for Port {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (transport, number) = text.split_once('/').context("expected e.g. tcp/80")?;
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            other => bail!("port {text:?}: {other:?} cannot be probed, only tcp and udp"),
        };
        let number = number
            .parse()
            .with_context(|| format!("port {text:?}: expected a number from 1 to 65535"))?;
        ensure!(number != 0, "port {text:?}: nothing can listen on port 0");
        Ok(Self { transport, number })
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families.
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// `4` or `6`, as written in expectations.
    pub(super) const fn digit(self) -> &'static str {
        match self {
            Self::V4 => "4",
            Self::V6 => "6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_ports_are_refused() {
        let port: Port = "udp/81".parse().unwrap();
        assert_eq!(port.to_string(), "udp/81");
        assert_eq!(port.served_name(), "serve-81-udp");
        for bad in [
            "80",
            "tcp",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "sctp/1",
            "TCP/80",
        ] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
    }
}
