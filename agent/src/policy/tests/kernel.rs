//! The kernel's side of a lookup, over a `State`: identity, class, rows.
//!
//! Written after the kernel programs, not after `evaluate`, so that rows are checked by the
//! kernel's interpretation.

use std::{collections::HashMap, net::IpAddr};

use ringfence_common::{
    ids::{ClassId, IdentityId, TableId},
    mode::Direction,
    net::Port,
    policy::{self, Decision, PolicyKey, PolicyRow, PolicyTable},
};
use zerocopy::IntoBytes;

use crate::plan::State;

type Entries = Vec<(u32, u128, PolicyRow)>;

/// `POLICY`, grouped by the fields that every lookup has in full.
#[derive(Default)]
pub(super) struct Rows(HashMap<(TableId, ClassId, u8), Entries>);

fn image(key: &PolicyKey) -> u128 {
    let mut bytes = [0u8; 16];
    bytes[..12].copy_from_slice(key.as_bytes());
    u128::from_be_bytes(bytes)
}

pub(super) fn query(
    table: TableId,
    class: ClassId,
    direction: Direction,
    (protocol, port): (u8, u16),
) -> policy::Query {
    policy::Query {
        table,
        class,
        direction,
        protocol,
        port: Port::new(port),
    }
}

impl Rows {
    pub(super) fn of(state: &State) -> Self {
        let mut rows = Self::default();
        for table in state.tables.values() {
            for ((bits, key), row) in table.iter() {
                assert!(
                    (72..=96).contains(bits),
                    "{bits} would leave class or direction out"
                );
                assert_eq!(
                    image(key) << bits,
                    0,
                    "bits beyond the prefix must be zero: {key:?}"
                );
                let group = (key.table, key.class, key.direction);
                rows.0
                    .entry(group)
                    .or_default()
                    .push((*bits, image(key), *row));
            }
        }
        rows
    }

    pub(super) fn decide(
        &self,
        table: TableId,
        class: ClassId,
        direction: Direction,
        (protocol, port): (u8, u16),
        now: u64,
    ) -> Option<Decision> {
        let query = query(table, class, direction, (protocol, port));
        policy::decide(self, &query, now).ok()
    }
}

impl PolicyTable for Rows {
    fn row(&self, key: &PolicyKey) -> Option<PolicyRow> {
        let wanted = image(key);
        let entries = self.0.get(&(key.table, key.class, key.direction))?;
        let matching = entries
            .iter()
            .filter(|(bits, have, _)| (have ^ wanted) >> (128 - bits) == 0);
        matching
            .max_by_key(|(bits, ..)| *bits)
            .map(|(.., row)| *row)
    }
}

/// The exact map first, then the longest prefix.
pub(super) fn identity(state: &State, address: IpAddr) -> IdentityId {
    if let Some(identity) = state.addresses.get(&address) {
        return *identity;
    }
    let around = state
        .prefixes
        .iter()
        .filter(|(net, _)| net.contains(&address));
    around
        .max_by_key(|(net, _)| net.prefix_len())
        .map_or(IdentityId::UNKNOWN, |(_, id)| *id)
}

/// `CLASSES` is a zeroed array.
pub(super) fn class(state: &State, address: IpAddr) -> ClassId {
    state
        .classes
        .get(&identity(state, address))
        .copied()
        .unwrap_or(ClassId::ANY)
}
