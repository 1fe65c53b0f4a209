//! Typed handles of the control maps, and the translation of actions into map writes.
//!
//! Invariants: every write is one map operation, atomic by itself, even when one system call makes
//! many; removing a missing entry is no error, because a plan may be retried after a failure.

use std::{collections::BTreeMap, io, net::IpAddr, sync::Arc};

use aya::{
    Pod,
    maps::{Array, HashMap, IterableMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ringfence_common::{
    endpoint::Endpoint,
    ids::{ClassId, EndpointNumber, IdentityId, NamespaceSlot, TableId},
    ipcache::IpcacheEntry,
    maps as names,
    mode::Mode,
    net::{Ip4, Ip6},
    policy::{PolicyKey, PolicyRow},
};

use super::{
    DatapathError, Refused, batch, endpoints::Endpoints, epochs::Epochs, error::chain,
    held::InForce, pins::Pins,
};
use crate::{
    ordmap::Map as Ordered,
    plan::{Action, Capacities, State, TableRows},
};

/// Handles of the control maps.
pub(super) struct ControlMaps {
    endpoints: Endpoints,
    modes: Array<MapData, u32>,
    pub(super) ipcache4: HashMap<MapData, Ip4, IpcacheEntry>,
    pub(super) ipcache6: HashMap<MapData, Ip6, IpcacheEntry>,
    pub(super) cidr4: LpmTrie<MapData, Ip4, IdentityId>,
    pub(super) cidr6: LpmTrie<MapData, Ip6, IdentityId>,
    classes: Array<MapData, ClassId>,
    pub(super) policy: LpmTrie<MapData, PolicyKey, PolicyRow>,
    epochs: Epochs,
    pickups: HashMap<MapData, u32, u32>,
    capacities: Capacities,
}

/// Opens a pinned map, with its expected type.
pub(super) fn open<T: TryFrom<Map, Error = MapError>>(
    pins: &Pins,
    name: &'static str,
) -> Result<T, DatapathError> {
    let map = MapData::from_pin(pins.map(name)).and_then(Map::from_map_data);
    map.and_then(T::try_from).map_err(failed(name, "open"))
}

pub(super) fn failed<E: std::error::Error>(
    map: &'static str,
    operation: &'static str,
) -> impl FnOnce(E) -> DatapathError {
    move |error| DatapathError::Map {
        map,
        operation,
        reason: chain(&error),
    }
}

/// Treats the removal of a missing entry as success.
pub(super) fn ignore_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

impl ControlMaps {
    pub(super) fn open(pins: &Pins, conntrack_capacity: u32) -> Result<Self, DatapathError> {
        let endpoints = Endpoints::open(pins, conntrack_capacity)?;
        let ipcache4: HashMap<_, Ip4, IpcacheEntry> = open(pins, names::IPCACHE4)?;
        let cidr4: LpmTrie<_, Ip4, IdentityId> = open(pins, names::CIDR4)?;
        let policy: LpmTrie<_, PolicyKey, PolicyRow> = open(pins, names::POLICY)?;
        let capacities = Capacities {
            endpoints: endpoints.capacity(),
            ipcache: size_of(ipcache4.map(), names::IPCACHE4)?,
            cidr: size_of(cidr4.map(), names::CIDR4)?,
            policy: size_of(policy.map(), names::POLICY)?,
        };
        Ok(Self {
            endpoints,
            modes: open(pins, names::NAMESPACE_MODE)?,
            ipcache4,
            ipcache6: open(pins, names::IPCACHE6)?,
            cidr4,
            cidr6: open(pins, names::CIDR6)?,
            classes: open(pins, names::CLASSES)?,
            policy,
            epochs: Epochs::open(pins)?,
            pickups: open(pins, names::PICKUP)?,
            capacities,
        })
    }

    /// Records, unless there is a record already, that no interface has a pick-up window: every one had
    /// it under another ABI version.
    pub(super) fn close_pickup(&mut self) -> Result<(), DatapathError> {
        if self.pickups.get(&0, 0).is_ok() {
            return Ok(());
        }
        self.pickups
            .insert(0, 1, 0)
            .map_err(failed(names::PICKUP, "record a window"))
    }

    /// The tables and epochs in force, with the tick clock's time.
    pub(super) fn in_force(&self, now: u64) -> Result<InForce, DatapathError> {
        let endpoints = self.endpoints.read()?;
        Ok(InForce {
            now,
            tables: endpoints
                .into_iter()
                .map(|(ifindex, endpoint)| (ifindex, endpoint.table))
                .collect(),
            epochs: self.epochs.current().to_vec(),
        })
    }

    /// The number of each endpoint, by interface.
    pub(super) fn endpoint_numbers(&self) -> BTreeMap<u32, EndpointNumber> {
        self.endpoints.numbers()
    }

    pub(super) const fn capacities(&self) -> Capacities {
        self.capacities
    }

    pub(super) fn write(&mut self, action: &Action) -> Result<(), DatapathError> {
        match action {
            Action::PutRow(row) => self
                .policy
                .insert(&Key::new(row.bits, row.key), row.row, 0)
                .map_err(failed(names::POLICY, "write a row")),
            Action::DeleteRow(row) => {
                ignore_missing(self.policy.remove(&Key::new(row.bits, row.key)))
                    .map_err(failed(names::POLICY, "remove a row"))
            }
            Action::SetMode(slot, mode) => self
                .modes
                .set(slot.0, u32::from(*mode as u8), 0)
                .map_err(failed(names::NAMESPACE_MODE, "set a mode")),
            Action::SetClass(identity, class) => self
                .classes
                .set(identity.0, *class, 0)
                .map_err(failed(names::CLASSES, "set a class")),
            Action::PutPrefix(net, identity) => self.put_prefix(*net, *identity),
            Action::DeletePrefix(net) => self.delete_prefix(*net),
            Action::PutAddress(address, identity) => self.put_address(*address, *identity),
            Action::DeleteAddress(address) => self.delete_address(*address),
            Action::BumpEpoch(address) => self.epochs.bump(*address),
            Action::BumpAllEpochs => self.epochs.bump_all(),
            Action::NewOwner(address) => self.epochs.new_owner(*address),
            Action::SetPickup(ifindex, deadline) => self
                .pickups
                .insert(ifindex, deadline, 0)
                .map_err(failed(names::PICKUP, "record a window")),
            Action::PutEndpoint(ifindex, endpoint) => {
                if self.endpoints.is_former(*ifindex) {
                    self.epochs.bump_all()?;
                }
                self.endpoints.put(*ifindex, endpoint)
            }
            Action::DeleteEndpoint(ifindex) => self.endpoints.remove(*ifindex),
        }
    }

    /// Whether the maps hold what a write would write. A prefix or a row that a shorter one gives the same
    /// meaning counts as held; so does what is not written to a key of its own.
    pub(super) fn holds(&self, write: &Action) -> Result<bool, DatapathError> {
        match write {
            Action::PutRow(row) => {
                let found = self.policy.get(&Key::new(row.bits, row.key), 0);
                is(found, &row.row, names::POLICY)
            }
            Action::SetMode(slot, mode) => {
                let found = self.modes.get(&slot.0, 0);
                is(found, &u32::from(*mode as u8), names::NAMESPACE_MODE)
            }
            Action::SetClass(identity, class) => {
                is(self.classes.get(&identity.0, 0), class, names::CLASSES)
            }
            Action::PutPrefix(IpNet::V4(net), identity) => {
                is(self.cidr4.get(&key4(*net), 0), identity, names::CIDR4)
            }
            Action::PutPrefix(IpNet::V6(net), identity) => {
                is(self.cidr6.get(&key6(*net), 0), identity, names::CIDR6)
            }
            Action::PutAddress(IpAddr::V4(address), identity) => {
                let address = Ip4::from_wire(address.octets());
                let entry = IpcacheEntry::new(address, *identity);
                is(self.ipcache4.get(&address, 0), &entry, names::IPCACHE4)
            }
            Action::PutAddress(IpAddr::V6(address), identity) => {
                let address = Ip6::from_wire(address.octets());
                let entry = IpcacheEntry::new(address, *identity);
                is(self.ipcache6.get(&address, 0), &entry, names::IPCACHE6)
            }
            Action::BumpEpoch(address) => self.epochs.holds(*address),
            Action::SetPickup(ifindex, deadline) => {
                is(self.pickups.get(ifindex, 0), deadline, names::PICKUP)
            }
            Action::PutEndpoint(ifindex, endpoint) => self.endpoints.holds(*ifindex, endpoint),
            Action::DeleteRow(_)
            | Action::DeletePrefix(_)
            | Action::DeleteAddress(_)
            | Action::DeleteEndpoint(_)
            | Action::BumpAllEpochs
            | Action::NewOwner(_) => Ok(true),
        }
    }

    /// Makes writes in order; consecutive writes to the same map take one system call.
    pub(super) fn write_all(&mut self, actions: &[Action]) -> Result<(), Refused> {
        let mut made = 0;
        for run in actions.chunk_by(same_batch) {
            let in_batch = self.write_run(run);
            made += in_batch;
            for action in run.iter().skip(in_batch) {
                self.write(action)
                    .map_err(|error| Refused { made, error })?;
                made += 1;
            }
        }
        Ok(())
    }

    /// Writes a run of actions on one map as a batch; returns how many were made.
    fn write_run(&self, run: &[Action]) -> usize {
        match run {
            [_] => 0,
            [Action::PutRow(_), ..] => batch::update(&self.policy, &entries_of(run, row)),
            [Action::SetClass(..), ..] => batch::update(&self.classes, &entries_of(run, class)),
            [Action::PutAddress(IpAddr::V4(_), _), ..] => {
                batch::update(&self.ipcache4, &entries_of(run, address4))
            }
            [Action::PutAddress(IpAddr::V6(_), _), ..] => {
                batch::update(&self.ipcache6, &entries_of(run, address6))
            }
            _ => 0,
        }
    }

    fn put_prefix(&mut self, net: IpNet, identity: IdentityId) -> Result<(), DatapathError> {
        match net {
            IpNet::V4(net) => self
                .cidr4
                .insert(&key4(net), identity, 0)
                .map_err(failed(names::CIDR4, "write a prefix")),
            IpNet::V6(net) => self
                .cidr6
                .insert(&key6(net), identity, 0)
                .map_err(failed(names::CIDR6, "write a prefix")),
        }
    }

    fn delete_prefix(&mut self, net: IpNet) -> Result<(), DatapathError> {
        match net {
            IpNet::V4(net) => ignore_missing(self.cidr4.remove(&key4(net)))
                .map_err(failed(names::CIDR4, "remove a prefix")),
            IpNet::V6(net) => ignore_missing(self.cidr6.remove(&key6(net)))
                .map_err(failed(names::CIDR6, "remove a prefix")),
        }
    }

    fn put_address(&mut self, address: IpAddr, identity: IdentityId) -> Result<(), DatapathError> {
        match address {
            IpAddr::V4(a) => {
                let address = Ip4::from_wire(a.octets());
                let entry = IpcacheEntry::new(address, identity);
                let written = self.ipcache4.insert(address, entry, 0);
                written.map_err(failed(names::IPCACHE4, "write an address"))
            }
            IpAddr::V6(a) => {
                let address = Ip6::from_wire(a.octets());
                let entry = IpcacheEntry::new(address, identity);
                let written = self.ipcache6.insert(address, entry, 0);
                written.map_err(failed(names::IPCACHE6, "write an address"))
            }
        }
    }

    fn delete_address(&mut self, address: IpAddr) -> Result<(), DatapathError> {
        match address {
            IpAddr::V4(a) => ignore_missing(self.ipcache4.remove(&Ip4::from_wire(a.octets())))
                .map_err(failed(names::IPCACHE4, "remove an address")),
            IpAddr::V6(a) => ignore_missing(self.ipcache6.remove(&Ip6::from_wire(a.octets())))
                .map_err(failed(names::IPCACHE6, "remove an address")),
        }
    }

    /// Reads back every control map.
    pub(super) fn read(&self) -> Result<State, DatapathError> {
        let mut addresses: Vec<(IpAddr, IdentityId)> = Vec::new();
        for (ip, entry) in entries(&self.ipcache4, names::IPCACHE4)? {
            addresses.push((IpAddr::from(ip.to_wire()), entry.identity()));
        }
        for (ip, entry) in entries(&self.ipcache6, names::IPCACHE6)? {
            addresses.push((IpAddr::from(ip.to_wire()), entry.identity()));
        }
        let identities = addresses.iter().map(|(_, identity)| *identity);
        let prefixes = self.read_prefixes()?;
        let mut classes = BTreeMap::new();
        for identity in identities.chain(prefixes.values().copied()) {
            let class = self
                .classes
                .get(&identity.0, 0)
                .map_err(failed(names::CLASSES, "read a class"))?;
            classes.insert(identity, class);
        }
        let endpoints = self.endpoints.read()?;
        Ok(State {
            tables: self.read_tables()?,
            modes: self.read_modes(&endpoints)?.into_iter().collect(),
            classes: classes.into_iter().collect(),
            prefixes: prefixes.into_iter().collect(),
            addresses: addresses.into_iter().collect(),
            owners: Ordered::default(),
            pickups: entries(&self.pickups, names::PICKUP)?.into_iter().collect(),
            endpoints,
        })
    }

    fn read_prefixes(&self) -> Result<BTreeMap<IpNet, IdentityId>, DatapathError> {
        let mut prefixes = BTreeMap::new();
        for entry in &self.cidr4 {
            let (key, identity) = entry.map_err(failed(names::CIDR4, "list"))?;
            let address = IpAddr::from(key.data().to_wire());
            insert_net(&mut prefixes, address, key.prefix_len(), identity);
        }
        for entry in &self.cidr6 {
            let (key, identity) = entry.map_err(failed(names::CIDR6, "list"))?;
            let address = IpAddr::from(key.data().to_wire());
            insert_net(&mut prefixes, address, key.prefix_len(), identity);
        }
        Ok(prefixes)
    }

    fn read_tables(&self) -> Result<BTreeMap<TableId, Arc<TableRows>>, DatapathError> {
        let mut tables: BTreeMap<TableId, TableRows> = BTreeMap::new();
        for entry in &self.policy {
            let (key, row) = entry.map_err(failed(names::POLICY, "list"))?;
            let data = key.data();
            tables
                .entry(data.table)
                .or_default()
                .insert((key.prefix_len(), data), row);
        }
        Ok(tables
            .into_iter()
            .map(|(table, rows)| (table, Arc::new(rows)))
            .collect())
    }

    fn read_modes(
        &self,
        endpoints: &BTreeMap<u32, Endpoint>,
    ) -> Result<BTreeMap<NamespaceSlot, Mode>, DatapathError> {
        let mut modes = BTreeMap::new();
        for slot in endpoints
            .values()
            .map(Endpoint::namespace)
            .chain([NamespaceSlot::NODE_DEFAULT])
        {
            let raw = self
                .modes
                .get(&slot.0, 0)
                .map_err(failed(names::NAMESPACE_MODE, "read a mode"))?;
            // 0 means "never written": leaving it out makes the first plan write it.
            if let Ok(raw @ 1..) = u8::try_from(raw) {
                modes.insert(slot, Mode::from_raw(raw));
            }
        }
        Ok(modes)
    }
}

/// Whether two writes can be in one batch.
fn same_batch(one: &Action, next: &Action) -> bool {
    match (one, next) {
        (Action::PutRow(_), Action::PutRow(_)) | (Action::SetClass(..), Action::SetClass(..)) => {
            true
        }
        (Action::PutAddress(one, _), Action::PutAddress(next, _)) => {
            one.is_ipv6() == next.is_ipv6()
        }
        _ => false,
    }
}

fn entries_of<T>(run: &[Action], entry: impl Fn(&Action) -> Option<T>) -> Vec<T> {
    run.iter().map_while(entry).collect()
}

fn row(action: &Action) -> Option<(Key<PolicyKey>, PolicyRow)> {
    match action {
        Action::PutRow(row) => Some((Key::new(row.bits, row.key), row.row)),
        _ => None,
    }
}

fn class(action: &Action) -> Option<(u32, ClassId)> {
    match action {
        Action::SetClass(identity, class) => Some((identity.0, *class)),
        _ => None,
    }
}

fn address4(action: &Action) -> Option<(Ip4, IpcacheEntry)> {
    let Action::PutAddress(IpAddr::V4(a), id) = action else {
        return None;
    };
    let address = Ip4::from_wire(a.octets());
    Some((address, IpcacheEntry::new(address, *id)))
}

fn address6(action: &Action) -> Option<(Ip6, IpcacheEntry)> {
    let Action::PutAddress(IpAddr::V6(a), id) = action else {
        return None;
    };
    let address = Ip6::from_wire(a.octets());
    Some((address, IpcacheEntry::new(address, *id)))
}

fn entries<K: Pod, V: Pod>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<Vec<(K, V)>, DatapathError> {
    map.iter()
        .collect::<Result<_, _>>()
        .map_err(failed(name, "list"))
}

/// Whether a value that was looked up is this one.
fn is<V: PartialEq>(
    found: Result<V, MapError>,
    wanted: &V,
    map: &'static str,
) -> Result<bool, DatapathError> {
    match found {
        Ok(found) => Ok(found == *wanted),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(false),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(false)
        }
        Err(error) => Err(failed(map, "look an entry up")(error)),
    }
}

fn insert_net(
    prefixes: &mut BTreeMap<IpNet, IdentityId>,
    address: IpAddr,
    length: u32,
    identity: IdentityId,
) {
    if let Some(net) = u8::try_from(length)
        .ok()
        .and_then(|len| IpNet::new(address, len).ok())
    {
        prefixes.insert(net, identity);
    }
}

fn key4(net: Ipv4Net) -> Key<Ip4> {
    Key::new(
        u32::from(net.prefix_len()),
        Ip4::from_wire(net.network().octets()),
    )
}

fn key6(net: Ipv6Net) -> Key<Ip6> {
    Key::new(
        u32::from(net.prefix_len()),
        Ip6::from_wire(net.network().octets()),
    )
}

fn size_of(map: &MapData, name: &'static str) -> Result<usize, DatapathError> {
    let info = map.info().map_err(failed(name, "inspect"))?;
    Ok(info.max_entries() as usize)
}
