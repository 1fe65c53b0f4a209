//! A slow walk over the entries that the control maps have, for those that should not be there.
//!
//! Invariants: an entry that exists throughout a round is seen in it; maps that the kernel cannot list in
//! parts (tries before Linux 5.13) are passed over. Arrays have no entries but their own.

use std::net::IpAddr;

use aya::maps::lpm_trie::Key;
use ipnet::IpNet;
use ringfence_common::{
    ids::IdentityId,
    net::{Ip4, Ip6},
};

use super::{
    batch::{self, Place},
    maps::ControlMaps,
};
use crate::plan::{Action, Row};

/// The maps, in the order of the walk.
#[derive(Debug, Clone, Copy, Default)]
enum At {
    #[default]
    Ipcache4,
    Ipcache6,
    Cidr4,
    Cidr6,
    Policy,
}

impl At {
    const fn next(self) -> Self {
        match self {
            Self::Ipcache4 => Self::Ipcache6,
            Self::Ipcache6 => Self::Cidr4,
            Self::Cidr4 => Self::Cidr6,
            Self::Cidr6 => Self::Policy,
            Self::Policy => Self::Ipcache4,
        }
    }
}

/// Where the walk is.
#[derive(Debug, Default)]
pub(super) struct EntryWalk {
    at: At,
    place: Place,
}

impl EntryWalk {
    /// The next entries, about this many or the last ones of a map, as the writes that would make them.
    pub(super) fn next(&mut self, maps: &ControlMaps, most: usize) -> Vec<Action> {
        let mut found = Vec::new();
        let place = &mut self.place;
        let more = match self.at {
            At::Ipcache4 => batch::lookup_some(&maps.ipcache4, place, most, &mut |ip, entry| {
                let address = IpAddr::from(ip.to_wire());
                found.push(Action::PutAddress(address, entry.identity()));
            }),
            At::Ipcache6 => batch::lookup_some(&maps.ipcache6, place, most, &mut |ip, entry| {
                let address = IpAddr::from(ip.to_wire());
                found.push(Action::PutAddress(address, entry.identity()));
            }),
            At::Cidr4 => batch::lookup_some(&maps.cidr4, place, most, &mut |key: &Key<Ip4>, id| {
                found.extend(prefix(key.data().to_wire().into(), key.prefix_len(), *id));
            }),
            At::Cidr6 => batch::lookup_some(&maps.cidr6, place, most, &mut |key: &Key<Ip6>, id| {
                found.extend(prefix(key.data().to_wire().into(), key.prefix_len(), *id));
            }),
            At::Policy => batch::lookup_some(&maps.policy, place, most, &mut |key, row| {
                found.push(Action::PutRow(Row {
                    bits: key.prefix_len(),
                    key: key.data(),
                    row: *row,
                }));
            }),
        };
        if !matches!(more, Ok(true)) {
            self.place = Place::default();
            self.at = self.at.next();
        }
        found
    }
}

fn prefix(address: IpAddr, length: u32, identity: IdentityId) -> Option<Action> {
    let length = u8::try_from(length).ok()?;
    let net = IpNet::new(address, length).ok()?;
    Some(Action::PutPrefix(net, identity))
}
