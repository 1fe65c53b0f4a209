//! Compiled rows as a longest-prefix map on the host, for the same lookup as the kernel's.
//!
//! Invariant: finds what the kernel's map would find. Only prefix lengths in use are tried, which
//! makes a lookup fast.

use std::{collections::HashMap, sync::Arc};

use ringfence_common::{
    ids::{ClassId, TableId},
    net::Port,
    policy::{PolicyKey, PolicyRow, PolicyTable},
};

use crate::plan::{State, TableRows};

/// The fields that every row found by a lookup has in full, except in rows of every protocol.
type Group = (TableId, ClassId, u8, u8);

/// The rows of every table of a state.
pub(crate) struct HostTable {
    tables: HashMap<TableId, Arc<TableRows>>,
    /// A bit for each number of free port bits in use.
    widths: HashMap<Group, u32>,
}

fn group(key: &PolicyKey) -> Group {
    (key.table, key.class, key.direction, key.protocol)
}

impl HostTable {
    pub(crate) fn of(state: &State) -> Self {
        let mut widths: HashMap<Group, u32> = HashMap::new();
        for (bits, key) in state.tables.values().flat_map(|rows| rows.keys()) {
            if *bits >= PolicyKey::PROTOCOL_BITS {
                *widths.entry(group(key)).or_default() |= 1 << (PolicyKey::FULL_BITS - bits);
            }
        }
        let tables = state
            .tables
            .iter()
            .map(|(table, rows)| (*table, Arc::clone(rows)))
            .collect();
        Self { tables, widths }
    }
}

impl PolicyTable for HostTable {
    fn row(&self, key: &PolicyKey) -> Option<PolicyRow> {
        let rows = self.tables.get(&key.table)?;
        let mut widths = self.widths.get(&group(key)).copied().unwrap_or(0);
        while widths != 0 {
            let free = widths.trailing_zeros();
            widths &= !(1 << free);
            let masked = (u32::from(key.port.number()) >> free) << free;
            let narrowed = PolicyKey {
                port: Port::new(u16::try_from(masked).unwrap_or(0)),
                ..*key
            };
            if let Some(row) = rows.get(&(PolicyKey::FULL_BITS - free, narrowed)) {
                return Some(*row);
            }
        }
        let any = PolicyKey {
            protocol: 0,
            port: Port::NONE,
            ..*key
        };
        rows.get(&(PolicyKey::ANY_PROTOCOL_BITS, any)).copied()
    }
}
