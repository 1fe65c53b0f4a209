//! Port lists for display.
//!
//! Invariant: the text covers exactly the given ranges; both versions of ICMP are one.

use std::collections::BTreeMap;

use crate::model::Protocol;

/// Port ranges by protocol; `None` is every protocol that is in no other range.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortList {
    named: BTreeMap<Protocol, Vec<(u16, u16)>>,
    elsewhere: bool,
    /// Protocols with an excluded range.
    partial: Vec<Protocol>,
}

impl PortList {
    /// Adds a range that is included or excluded.
    pub(crate) fn add(&mut self, protocol: Option<u8>, (first, last): (u16, u16), meant: bool) {
        let Some(protocol) = protocol.map(Protocol::from_number) else {
            self.elsewhere |= meant;
            return;
        };
        let stretches = self.named.entry(protocol).or_default();
        if !meant {
            self.partial.push(protocol);
            return;
        }
        if stretches.contains(&(first, last)) {
            return;
        }
        match stretches.last_mut() {
            Some((_, end)) if protocol.has_ports() && end.checked_add(1) == Some(first) => {
                *end = last;
            }
            _ => stretches.push((first, last)),
        }
    }

    /// True if no port is included.
    pub(crate) fn is_empty(&self) -> bool {
        !self.elsewhere && self.named.values().all(Vec::is_empty)
    }

    /// True if every port of every protocol is included.
    pub(crate) fn is_everything(&self) -> bool {
        let whole = |(protocol, stretches): (&Protocol, &Vec<(u16, u16)>)| {
            !stretches.is_empty() && !self.partial.contains(protocol)
        };
        self.elsewhere && self.named.iter().all(whole)
    }

    /// True if this port of a protocol is included.
    pub(crate) fn contains(&self, protocol: Protocol, port: u16) -> bool {
        match self.named.get(&protocol) {
            Some(stretches) => stretches
                .iter()
                .any(|(first, last)| !protocol.has_ports() || (*first..=*last).contains(&port)),
            None => self.elsewhere,
        }
    }
}

impl std::fmt::Display for PortList {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_everything() {
            return out.write_str("every port");
        }
        let mut words = Vec::new();
        for (protocol, stretches) in &self.named {
            for (first, last) in stretches {
                words.push(match (*first, *last) {
                    (0, u16::MAX) => protocol.to_string(),
                    _ if !protocol.has_ports() => protocol.to_string(),
                    (one, other) if one == other => format!("{protocol}/{one}"),
                    (one, other) => format!("{protocol}/{}-{other}", one.max(1)),
                });
            }
        }
        if self.elsewhere {
            words.push("every other protocol".to_owned());
        }
        out.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(stretches: &[(Option<u8>, u16, u16, bool)]) -> PortList {
        let mut list = PortList::default();
        for (protocol, first, last, meant) in stretches {
            list.add(*protocol, (*first, *last), *meant);
        }
        list
    }

    #[test]
    fn neighbours_join_and_wholes_are_named() {
        let ports = list(&[
            (Some(1), 0, u16::MAX, true),
            (Some(6), 0, 79, false),
            (Some(6), 80, 80, true),
            (Some(6), 81, 90, true),
            (Some(6), 91, u16::MAX, false),
            (Some(17), 0, u16::MAX, true),
            (Some(58), 0, u16::MAX, true),
            (None, 0, u16::MAX, false),
        ]);
        assert_eq!(ports.to_string(), "tcp/80-90, udp, icmp");
        assert!(ports.contains(Protocol::Tcp, 85) && !ports.contains(Protocol::Tcp, 91));
        assert!(ports.contains(Protocol::Icmp, 0) && !ports.contains(Protocol::Sctp, 1));
    }

    #[test]
    fn everything_and_nothing() {
        let all = list(&[(Some(6), 0, u16::MAX, true), (None, 0, u16::MAX, true)]);
        assert_eq!(all.to_string(), "every port");
        let but = list(&[
            (Some(6), 0, 21, true),
            (Some(6), 22, 22, false),
            (Some(6), 23, u16::MAX, true),
            (None, 0, u16::MAX, true),
        ]);
        assert_eq!(
            but.to_string(),
            "tcp/1-21, tcp/23-65535, every other protocol"
        );
        assert!(list(&[(None, 0, u16::MAX, false)]).is_empty());
    }
}
