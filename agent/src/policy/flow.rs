//! Resolves a query to a flow: two addresses with their owners, a protocol and a port.
//!
//! Invariants: both addresses are of one family; an address that a workload owns stands for that
//! workload. No verdicts are made here.

use std::{net::IpAddr, sync::Arc};

use ringfence_common::packet::protocol;

use super::evaluate::{End, Query, QueryError};
use crate::model::{Inventory, PortMatch, Protocol, Workload, WorkloadId};

/// One end of a flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Party<'a> {
    pub(crate) address: IpAddr,
    pub(crate) workload: Option<&'a Arc<Workload>>,
}

/// A flow as packets would show it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow<'a> {
    pub(crate) from: Party<'a>,
    pub(crate) to: Party<'a>,
    /// The IP protocol number.
    pub(crate) protocol: u8,
    /// The destination port, 0 for protocols without ports.
    pub(crate) port: u16,
}

/// Where workloads are looked up.
pub(crate) trait Register {
    /// The workload with a name.
    fn named(&self, id: &WorkloadId) -> Option<&Arc<Workload>>;
    /// The workload that owns an address.
    fn owner(&self, address: IpAddr) -> Option<&Arc<Workload>>;
}

impl Register for Inventory {
    fn named(&self, id: &WorkloadId) -> Option<&Arc<Workload>> {
        self.workload(id)
    }

    fn owner(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.owners.get(&address)?.workload()
    }
}

impl<'a> Flow<'a> {
    /// Resolves a query.
    ///
    /// # Errors
    /// If the query names something that does not exist.
    pub(crate) fn of(query: &Query, register: &'a impl Register) -> Result<Self, QueryError> {
        if let Some(family) = query.family
            && !matches!(family, 4 | 6)
        {
            return Err(QueryError::BadFamily(family));
        }
        let (from, to) = ends(query, register)?;
        let (protocol, port) = port(query, &to)?;
        Ok(Self {
            from,
            to,
            protocol,
            port,
        })
    }

    /// True for traffic of a workload, or an address, to itself.
    pub(crate) fn is_to_itself(&self) -> bool {
        let id = |party: &Party<'a>| party.workload.map(|workload| &workload.id);
        self.from.address == self.to.address
            || (self.from.workload.is_some() && id(&self.from) == id(&self.to))
    }
}

fn ends<'a>(
    query: &Query,
    register: &'a impl Register,
) -> Result<(Party<'a>, Party<'a>), QueryError> {
    let from = candidates(&query.from, register)?;
    let to = candidates(&query.to, register)?;
    let families = match query.family {
        Some(family) => vec![family == 6],
        None => vec![false, true],
    };
    for v6 in families {
        let pick = |all: &[Party<'a>]| {
            all.iter()
                .find(|party| party.address.is_ipv6() == v6)
                .copied()
        };
        if let (Some(from), Some(to)) = (pick(&from), pick(&to)) {
            return Ok((from, to));
        }
    }
    Err(QueryError::NoCommonFamily {
        from: query.from.to_string(),
        to: query.to.to_string(),
        family: query.family,
    })
}

fn candidates<'a>(end: &End, register: &'a impl Register) -> Result<Vec<Party<'a>>, QueryError> {
    match end {
        End::Address(address) => Ok(vec![Party {
            address: *address,
            workload: register.owner(*address),
        }]),
        End::Workload(id) => match register.named(id) {
            Some(workload) => Ok(workload
                .addresses
                .iter()
                .map(|address| Party {
                    address: *address,
                    workload: Some(workload),
                })
                .collect()),
            None => Err(QueryError::UnknownWorkload(id.to_string())),
        },
    }
}

fn port(query: &Query, to: &Party<'_>) -> Result<(u8, u16), QueryError> {
    match &query.port {
        PortMatch::Range {
            protocol,
            first,
            last,
        } if first == last => Ok((number_of(*protocol, to.address), *first)),
        PortMatch::Protocol(protocol) if !protocol.has_ports() => {
            Ok((number_of(*protocol, to.address), 0))
        }
        PortMatch::Named { protocol, name } => {
            to.workload
                .and_then(|workload| {
                    workload.ports.iter().find(|port| {
                        port.name == *name && protocol.is_none_or(|p| p == port.protocol)
                    })
                })
                .map(|port| (number_of(port.protocol, to.address), port.port))
                .ok_or_else(|| QueryError::UndeclaredPort {
                    to: query.to.to_string(),
                    name: name.to_string(),
                })
        }
        other => Err(QueryError::NotOnePort(other.to_string())),
    }
}

fn number_of(protocol: Protocol, to: IpAddr) -> u8 {
    match protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
        Protocol::Sctp => protocol::SCTP,
        Protocol::Icmp if to.is_ipv6() => protocol::ICMPV6,
        Protocol::Icmp => protocol::ICMP,
        Protocol::Number(number) => number,
    }
}
