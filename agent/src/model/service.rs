//! Services: addresses behind which a node puts backends, one for each connection.
//!
//! Invariant: a backend has the family of the address through which it is reached. Which of the backends a
//! connection gets is the choice of the node's proxy and unknown here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name::{NamespaceName, ServiceName};

/// A Service's full name, shown as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name within the namespace.
    pub name: ServiceName,
}

impl fmt::Display for ServiceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// A port of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// The IP protocol number.
    pub protocol: u8,
    /// The port, in host byte order.
    pub port: u16,
}

/// What a connection to a port of a Service may be translated to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its port, in host byte order.
    pub port: u16,
}

impl Backend {
    /// One that is there, and of which nothing else is known. No rule allows it.
    #[must_use]
    pub const fn unknown(is_ipv4: bool) -> Self {
        let address = if is_ipv4 {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        Self { address, port: 0 }
    }

    /// Whether nothing is known of it.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        self.address.is_unspecified()
    }
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub id: ServiceId,
    /// The addresses that the cluster gave it, each once.
    pub addresses: Vec<IpAddr>,
    /// Its ports, and what may be behind each, of every family. A port without backends is there.
    pub ports: BTreeMap<ServicePort, BTreeSet<Backend>>,
}

impl Service {
    /// The backends of every port through one of its addresses: those of its family.
    pub fn through(&self, address: IpAddr) -> impl Iterator<Item = (ServicePort, Vec<Backend>)> {
        let of_family = move |it: &&Backend| it.address.is_ipv4() == address.is_ipv4();
        self.ports.iter().map(move |(port, backends)| {
            let backends = backends.iter().filter(of_family).copied();
            (*port, backends.collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_have_the_family_of_the_address() {
        let backend = |address: &str| Backend {
            address: address.parse().unwrap(),
            port: 80,
        };
        let port = ServicePort {
            protocol: 6,
            port: 443,
        };
        let service = Service {
            id: ServiceId {
                namespace: NamespaceName::new("shop").unwrap(),
                name: ServiceName::new("db").unwrap(),
            },
            addresses: Vec::new(),
            ports: [(port, [backend("10.0.0.1"), backend("fd00::1")].into())].into(),
        };
        assert_eq!(service.id.to_string(), "shop/db");
        for (through, expected) in [("10.96.0.1", "10.0.0.1"), ("fd01::1", "fd00::1")] {
            let found: Vec<_> = service.through(through.parse().unwrap()).collect();
            assert_eq!(found, [(port, vec![backend(expected)])]);
        }
    }
}
