//! Compile: from inventory, policies and local endpoints to the desired state of the maps.
//!
//! Invariants: inputs and result are whole states, but the cost follows what changed since the last
//! call. The result equals that of a new compiler, except for numbers and carried tables: the
//! tables of the previous result keep their rows, for the new classes too, until the next call,
//! because endpoints are flipped to new tables only after addresses have new identities. Another
//! call with the same inputs therefore removes what is no longer needed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ringfence_common::{
    endpoint::{Endpoint, MAX_IP4, MAX_IP6},
    ids::{IdentityId, NamespaceSlot, TableId},
    mode::Mode,
    net::{Ip4, Ip6},
};

use super::{
    cidr::{Prefixes, prefixes_in_peer, prefixes_in_policy},
    classes::Classes,
    compiled_tables::CompiledTables,
    desired::{Clock, Compiled, EndpointInfo, Inputs, Modes},
    digest::{Digest, digest_of},
    layouts::Layouts,
    lockdown::mode_override,
    named_properties::{NamedProperties, named_in_peer, named_in_policy},
    numbers::{Exhausted, Numbers, Space},
    resolve::Resolver,
    rulebook::{PolicyChange, Rulebook},
    table::TableSpec,
    workload_kinds::KindNumber,
};
use crate::{
    model::{EndpointId, Inventory, Namespace, NamespaceName, Peer, Workload},
    ordmap::Map,
    plan::State,
};

/// The wall clock may drift by this much before rows are written again, in nanoseconds.
const CLOCK_SLACK: u64 = 50_000_000;

type Tables = BTreeMap<TableId, Arc<TableSpec>>;

/// The compiler and the state it keeps between calls.
#[derive(Default)]
pub struct Compiler {
    /// All numbers in use.
    pub numbers: Numbers,
    /// Tables that endpoints in the kernel may refer to.
    pub(super) in_force: Tables,
    /// The same without those of the last result, if that can still be withdrawn.
    before_latest: Option<Tables>,
    /// Tables of the last result.
    pub(super) latest: Tables,
    clock: Option<Clock>,
    /// The slots of the namespaces in the inventory.
    pub(super) slots: HashMap<NamespaceName, NamespaceSlot>,
    pub(super) last: LastResult,
}

/// State of the last result; each field depends on those before it.
#[derive(Default)]
pub(super) struct LastResult {
    pub(super) rulebook: Rulebook,
    prefixes: Prefixes,
    named: NamedProperties,
    /// The tables whose prefixes and named properties are included.
    carried: Tables,
    pub(super) resolver: Resolver,
    pub(super) layouts: Layouts,
    compiled: CompiledTables,
    pub(super) classes: Classes,
    modes: Option<(Namespaces, Modes, Map<NamespaceSlot, Mode>)>,
}

type Namespaces = Map<NamespaceName, Namespace>;

impl Compiler {
    /// Compiles a new desired state.
    ///
    /// # Errors
    /// If the node has no numbers left for so many identities, rules or namespaces. The caller's
    /// state is unchanged.
    pub fn compile(&mut self, inputs: &Inputs<'_>) -> Result<Compiled, Exhausted> {
        let clock = self.with_stable_offset(inputs.clock);
        let compiled = self.advance(inputs, &clock);
        if compiled.is_err() {
            // A half-finished update cannot be continued, so start from empty.
            self.last = LastResult::default();
        }
        compiled
    }

    fn advance(&mut self, inputs: &Inputs<'_>, clock: &Clock) -> Result<Compiled, Exhausted> {
        let LastResult {
            rulebook,
            prefixes,
            named,
            carried,
            resolver,
            layouts,
            compiled,
            classes,
            ..
        } = &mut self.last;
        let numbers = &mut self.numbers;
        let changes = rulebook.update(inputs.policies, numbers)?;
        let mut distinguished = Distinguished { prefixes, named };
        distinguished.change(&changes);
        distinguished.keep_those_in_force(carried, &self.in_force);
        let renamed = named.take_changed();
        let resolved = resolver.update(inputs.inventory, (prefixes, &renamed), numbers)?;
        layouts.pass_time(clock);
        layouts.set_tunnels(&inputs.inventory.network.tunnel_ports);
        layouts.change(&changes);
        if std::mem::take(&mut resolver.kinds.declares_others) {
            layouts.clear();
        }
        let (endpoints, kinds) = lay_out(inputs, resolver, (layouts, rulebook), clock, numbers)?;
        let latest: Tables = endpoints
            .values()
            .map(|info| (info.table, Arc::clone(&info.spec)))
            .collect();
        let mut standing = self.in_force.clone();
        standing.extend(latest.iter().map(|(id, spec)| (*id, Arc::clone(spec))));
        layouts.retain(&kinds, &standing);
        let [came, gone] = if compiled.are(&standing) {
            [Vec::new(), Vec::new()]
        } else {
            compiled.turn(&standing)
        };
        let turn = classes.turn(&came, &gone);
        let others = classes.update(&turn, &resolver.identities.all, &resolved, numbers)?;
        if others || !came.is_empty() {
            compiled.update(classes);
        }
        let state = State {
            tables: compiled.rows(),
            classes: classes.of.clone(),
            prefixes: resolver.prefixes.clone(),
            addresses: resolver.services.addresses.clone(),
            owners: resolver.services.owners.clone(),
            pickups: BTreeMap::new(),
            modes: self.modes(inputs)?,
            endpoints: self.endpoints(inputs, &endpoints)?,
        };
        self.before_latest = Some(self.in_force.clone());
        self.in_force
            .extend(latest.iter().map(|(id, spec)| (*id, Arc::clone(spec))));
        self.latest = latest;
        let edges = endpoints.values().filter_map(|info| info.spec.edge);
        Ok(Compiled {
            state,
            identities: self.last.resolver.identities.all.clone(),
            rules: self.last.rulebook.rules.clone(),
            classes: self.last.classes.len(),
            next_change: edges.map(|edge| edge.boot).min(),
            endpoints,
        })
    }

    /// Call this once every endpoint has the table of the last result. Until then the tables of the
    /// result before are kept as well.
    pub fn in_force(&mut self) {
        self.in_force.clone_from(&self.latest);
        self.before_latest = None;
    }

    /// Call this if nothing of the last result was written: the next one has no room for its tables.
    pub fn withdraw(&mut self) {
        if let Some(before) = self.before_latest.take() {
            self.latest.clone_from(&before);
            self.in_force = before;
        }
    }

    /// The same offset between the clocks as before unless one of them was stepped, so that tables
    /// do not change with every reading.
    fn with_stable_offset(&mut self, read: Clock) -> Clock {
        let with_stable_offset = self
            .clock
            .filter(|before| before.boot(read.now).abs_diff(read.boot) < CLOCK_SLACK)
            .map(|before| Clock {
                now: read.now,
                boot: before.boot(read.now),
            });
        let clock = with_stable_offset.unwrap_or(read);
        self.clock = Some(clock);
        clock
    }

    pub(super) fn namespace(&mut self, name: &NamespaceName) -> Result<NamespaceSlot, Exhausted> {
        if let Some(slot) = self.slots.get(name) {
            return Ok(*slot);
        }
        let slot = self
            .numbers
            .number(Space::Namespace, namespace_digest(name))
            .map(NamespaceSlot)?;
        self.slots.insert(name.clone(), slot);
        Ok(slot)
    }

    /// The slot of a namespace, if it has one that is written down.
    #[must_use]
    pub fn written_slot(&self, name: &NamespaceName) -> Option<NamespaceSlot> {
        let digest = namespace_digest(name);
        let number = self.numbers.written_number(Space::Namespace, digest);
        number.map(NamespaceSlot)
    }

    fn modes(&mut self, inputs: &Inputs<'_>) -> Result<Map<NamespaceSlot, Mode>, Exhausted> {
        let now = &inputs.inventory.namespaces;
        let last = self.last.modes.take();
        let last = last.filter(|(_, by, _)| by == inputs.modes);
        let (before, by, mut modes) = last.unwrap_or_else(|| {
            let default = [(NamespaceSlot::NODE_DEFAULT, inputs.modes.default)];
            (Map::new(), inputs.modes.clone(), default.into())
        });
        // One that comes back asks for its number again.
        if before.is_empty() {
            self.slots.retain(|name, _| now.contains_key(name));
        }
        let (mut gone, mut came) = (Vec::new(), Vec::new());
        now.since(&before, |change| match (change.old, change.new) {
            (None, _) => came.push(change.key),
            (_, None) => gone.push(change.key),
            _ => {}
        });
        for name in gone {
            if let Some(slot) = self.slots.remove(name) {
                modes.remove(&slot);
            }
        }
        for name in came {
            modes.insert(self.namespace(name)?, inputs.modes.of(name));
        }
        self.last.modes = Some((now.clone(), by, modes.clone()));
        Ok(modes)
    }

    fn endpoints(
        &mut self,
        inputs: &Inputs<'_>,
        infos: &BTreeMap<EndpointId, EndpointInfo>,
    ) -> Result<BTreeMap<u32, Endpoint>, Exhausted> {
        let mut endpoints = BTreeMap::new();
        for info in infos.values() {
            let (ip4, ip6) = own_addresses(inputs.inventory, &info.workload);
            let endpoint = Endpoint {
                ifindex: 0,
                ip6,
                ip4,
                identity: info.identity,
                table: info.table,
                namespace: slot_of(self.namespace(&info.workload.id.namespace)?),
                pickup_until: 0,
                mode_override: mode_override(
                    inputs.locked,
                    inputs.inventory,
                    &info.workload,
                    inputs.modes.of(&info.workload.id.namespace),
                ),
                reserved: 0,
            };
            for attachment in &info.attachments {
                let record = Endpoint {
                    ifindex: attachment.ifindex,
                    pickup_until: attachment.pickup_until,
                    ..endpoint
                };
                endpoints.insert(attachment.ifindex, record);
            }
        }
        Ok(endpoints)
    }
}

fn namespace_digest(name: &NamespaceName) -> Digest {
    digest_of(&("namespace", name.as_str()))
}

/// What tells identities apart.
struct Distinguished<'a> {
    prefixes: &'a mut Prefixes,
    named: &'a mut NamedProperties,
}

impl Distinguished<'_> {
    fn change(&mut self, changes: &[PolicyChange]) {
        let new = changes.iter().filter_map(|change| change.new.as_deref());
        for policy in new {
            prefixes_in_policy(policy).for_each(|net| self.prefixes.add(net));
            named_in_policy(policy).for_each(|named| self.named.add(named));
        }
        let old = changes.iter().filter_map(|change| change.old.as_deref());
        for policy in old {
            prefixes_in_policy(policy).for_each(|net| self.prefixes.remove(net));
            named_in_policy(policy).for_each(|named| self.named.remove(named));
        }
    }

    /// Tables in force keep the prefixes and properties that they were compiled with: without one of
    /// them, an identity would be a different peer to the table.
    fn keep_those_in_force(&mut self, carried: &mut Tables, in_force: &Tables) {
        if carried.keys().eq(in_force.keys()) {
            return;
        }
        for (_, spec) in in_force.iter().filter(|(id, _)| !carried.contains_key(id)) {
            for peer in peers_of(spec) {
                prefixes_in_peer(peer).for_each(|net| self.prefixes.add(net));
                named_in_peer(peer).for_each(|named| self.named.add(named));
            }
        }
        for (_, spec) in carried.iter().filter(|(id, _)| !in_force.contains_key(id)) {
            for peer in peers_of(spec) {
                prefixes_in_peer(peer).for_each(|net| self.prefixes.remove(net));
                named_in_peer(peer).for_each(|named| self.named.remove(named));
            }
        }
        carried.clone_from(in_force);
    }
}

fn peers_of(spec: &TableSpec) -> impl Iterator<Item = &Peer> {
    spec.selectors().filter_map(|s| s.requirement.peer.as_ref())
}

/// Every endpoint's table, and the workload kinds among the endpoints.
fn lay_out(
    inputs: &Inputs<'_>,
    resolver: &Resolver,
    (layouts, rulebook): (&mut Layouts, &Rulebook),
    clock: &Clock,
    numbers: &mut Numbers,
) -> Result<(BTreeMap<EndpointId, EndpointInfo>, BTreeSet<KindNumber>), Exhausted> {
    let (mut endpoints, mut kinds) = (BTreeMap::new(), BTreeSet::new());
    for local in inputs.endpoints {
        let Some(workload) = inputs.inventory.workload(local.id.workload()) else {
            continue;
        };
        let Some(kind) = resolver.kinds.of(workload) else {
            continue;
        };
        kinds.insert(kind.0);
        let asked = (rulebook, &resolver.kinds.declared);
        let laid_out = layouts.of(kind, asked, clock, numbers)?;
        let mut owned = workload.addresses.iter();
        let first = owned.find(|address| inputs.inventory.is_owner(&workload.id, **address));
        let identity = first.and_then(|address| resolver.addresses.get(address));
        endpoints.insert(
            local.id.clone(),
            EndpointInfo {
                workload: Arc::clone(workload),
                attachments: local.attachments.clone(),
                identity: identity.copied().unwrap_or(IdentityId::UNKNOWN),
                table: laid_out.table,
                spec: laid_out.spec,
                policies: laid_out.policies,
            },
        );
    }
    Ok((endpoints, kinds))
}

/// A namespace's slot in an endpoint record: slots are below [`ringfence_common::maps::NAMESPACES`].
pub(super) fn slot_of(slot: NamespaceSlot) -> u16 {
    u16::try_from(slot.0).unwrap_or_default()
}

/// The own addresses for the endpoint record; the inventory refuses more than fit.
///
/// As the source of a packet, an address of another would be taken for the other. One without an owner is
/// left to a workload that has no other of its family, so that it is not locked down: all others know it as
/// unknown. A workload that has another does without: what its policy says of unknown addresses then
/// holds for this one, too.
pub(crate) fn own_addresses(
    inventory: &Inventory,
    workload: &Workload,
) -> ([Ip4; MAX_IP4], [Ip6; MAX_IP6]) {
    let listed = &workload.addresses;
    let is_own = |address: &IpAddr| inventory.is_owner(&workload.id, *address);
    let has_own = |ip4: bool| listed.iter().any(|it| it.is_ipv4() == ip4 && is_own(it));
    let has_own = [false, true].map(has_own);
    let is_last = |address: &IpAddr| {
        let [ip6, ip4] = has_own;
        let has_other = if address.is_ipv4() { ip4 } else { ip6 };
        inventory.is_unknown(*address) && !has_other
    };
    let usable = listed.iter().filter(|it| is_own(it) || is_last(it));
    address_record(usable)
}

fn address_record<'a>(
    addresses: impl Iterator<Item = &'a IpAddr>,
) -> ([Ip4; MAX_IP4], [Ip6; MAX_IP6]) {
    let (mut ip4, mut ip6) = ([Ip4::default(); MAX_IP4], [Ip6::default(); MAX_IP6]);
    let (mut free4, mut free6) = (ip4.iter_mut(), ip6.iter_mut());
    for address in addresses {
        match address {
            IpAddr::V4(address) => {
                if let Some(slot) = free4.next() {
                    *slot = Ip4::from_wire(address.octets());
                }
            }
            IpAddr::V6(address) => {
                if let Some(slot) = free6.next() {
                    *slot = Ip6::from_wire(address.octets());
                }
            }
        }
    }
    (ip4, ip6)
}
