//! Compile: from inventory, policies and local endpoints to the desired state of the maps.
//!
//! Invariants: what did not change is not computed again and keeps its `Arc`s, so that planning can
//! skip it; the tables of the previous result keep their rows, for the new classes too, until the
//! next call, because endpoints are flipped to new tables only after addresses have new identities.
//! Calling again with the same inputs therefore settles to what is needed alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ringfence_common::{
    endpoint::{Endpoint, MAX_IP4, MAX_IP6},
    ids::{ClassId, IdentityId, NamespaceSlot, RuleSlot, TableId},
    mode::{Direction, Mode},
    net::{Ip4, Ip6},
};

use super::{
    cidr::Prefixes,
    classes::{Answers, Classes},
    desired::{Clock, Compiled, EndpointInfo, Inputs, RuleInfo},
    identity::Identity,
    lockdown::mode_override,
    numbers::{Exhausted, Numbers, Space, digest_of},
    resolve::{Resolved, resolve},
    rows::rows,
    table::{Asked, Fence, Layout, TableSpec, number_rule},
};
use crate::{
    model::{Inventory, NamedPort, NamespaceName, Policy, PolicyId, PolicySet, WallTime, Workload},
    plan::{State, TableRows},
};

/// The wall clock may wander by this much before rows are written again, in nanoseconds.
const CLOCK_SLACK: u64 = 50_000_000;

/// The compiler with what it remembers from call to call.
#[derive(Default)]
pub struct Compiler {
    /// All numbers in use.
    pub numbers: Numbers,
    inventory: Option<Arc<Inventory>>,
    policies: Option<Arc<PolicySet>>,
    named: Prefixes,
    prefixes: Prefixes,
    resolved: Resolved,
    identities: Arc<Vec<(IdentityId, Identity)>>,
    declared: BTreeSet<NamedPort>,
    rules: Arc<BTreeMap<RuleSlot, RuleInfo>>,
    slots: HashMap<(PolicyId, Direction, usize), RuleSlot>,
    answers: Answers,
    tables: HashMap<Arc<TableSpec>, TableId>,
    /// Tables that endpoints in the kernel may refer to.
    in_force: BTreeMap<TableId, Arc<TableSpec>>,
    /// Tables of the last result.
    latest: BTreeMap<TableId, Arc<TableSpec>>,
    class_ids: BTreeSet<ClassId>,
    rows: BTreeMap<TableId, Arc<TableRows>>,
    clock: Option<Clock>,
}

impl Compiler {
    /// Compiles.
    ///
    /// # Errors
    /// When the node cannot number that many identities, rules or namespaces. Nothing the caller
    /// holds has changed then.
    pub fn compile(&mut self, inputs: &Inputs<'_>) -> Result<Compiled, Exhausted> {
        let clock = self.steady(inputs.clock);
        self.resolve(inputs)?;
        self.number_rules(inputs)?;
        let (endpoints, specs) = self.lay_out(inputs, &clock)?;
        let classes = self.classify(&specs)?;
        let tables = self.rows(&specs, &classes);
        let edges = endpoints.values().filter_map(|e| e.spec.edge);
        let next = edges.map(|edge| edge.boot).min();
        let state = State {
            modes: self.modes(inputs)?,
            classes: classes.of,
            prefixes: self.resolved.prefixes.clone(),
            addresses: Arc::clone(&self.resolved.addresses),
            endpoints: self.endpoints(inputs, &endpoints)?,
            tables,
        };
        self.latest = endpoints
            .values()
            .map(|e| (e.table, Arc::clone(&e.spec)))
            .collect();
        self.in_force
            .extend(self.latest.iter().map(|(id, spec)| (*id, Arc::clone(spec))));
        Ok(Compiled {
            state,
            identities: Arc::clone(&self.identities),
            rules: Arc::clone(&self.rules),
            endpoints,
            classes: self.class_ids.len(),
            next_change: next,
        })
    }

    /// To be called once every endpoint has the table of the last result: until then the tables
    /// before it stand as well.
    pub fn in_force(&mut self) {
        self.in_force.clone_from(&self.latest);
    }

    /// The same relation between the clocks as before unless one of them stepped, so that tables
    /// do not change with every reading.
    fn steady(&mut self, read: Clock) -> Clock {
        let steady = self
            .clock
            .filter(|before| before.boot(read.now).abs_diff(read.boot) < CLOCK_SLACK)
            .map(|before| Clock {
                now: read.now,
                boot: before.boot(read.now),
            });
        let clock = steady.unwrap_or(read);
        self.clock = Some(clock);
        clock
    }

    fn resolve(&mut self, inputs: &Inputs<'_>) -> Result<(), Exhausted> {
        let same_policies = self
            .policies
            .as_ref()
            .is_some_and(|p| Arc::ptr_eq(p, inputs.policies));
        let same_inventory = self
            .inventory
            .as_ref()
            .is_some_and(|i| Arc::ptr_eq(i, inputs.inventory));
        if !same_policies {
            self.named = Prefixes::of(inputs.policies);
        }
        // Tables still in force keep asking for the prefixes that they were laid out with: an
        // identity that forgot one would be another peer to them.
        let mut prefixes = self.named.clone();
        for selector in self.in_force.values().flat_map(|spec| spec.selectors()) {
            if let Some(peer) = &selector.question.peer {
                prefixes.add_peer(peer);
            }
        }
        if same_inventory && prefixes == self.prefixes {
            return Ok(());
        }
        self.resolved = resolve(inputs.inventory, &prefixes, &mut self.numbers)?;
        self.identities = Arc::new(std::mem::take(&mut self.resolved.identities));
        self.prefixes = prefixes;
        self.answers.clear();
        self.declared = inputs
            .inventory
            .workloads
            .values()
            .flat_map(|w| w.ports.iter().cloned())
            .collect();
        self.inventory = Some(Arc::clone(inputs.inventory));
        Ok(())
    }

    fn number_rules(&mut self, inputs: &Inputs<'_>) -> Result<(), Exhausted> {
        if self
            .policies
            .as_ref()
            .is_some_and(|p| Arc::ptr_eq(p, inputs.policies))
        {
            return Ok(());
        }
        let mut rules = BTreeMap::new();
        let mut slots = HashMap::new();
        for (id, policy) in &inputs.policies.policies {
            for direction in [Direction::Ingress, Direction::Egress] {
                for (index, rule) in policy
                    .rules(direction)
                    .unwrap_or_default()
                    .iter()
                    .enumerate()
                {
                    let slot = number_rule(&mut self.numbers, policy, direction, index, rule)?;
                    slots.insert((id.clone(), direction, index), slot);
                    let policy = Arc::clone(policy);
                    let (action, line) = (rule.action, rule.line);
                    rules.insert(
                        slot,
                        RuleInfo {
                            policy,
                            direction,
                            index,
                            action,
                            line,
                        },
                    );
                }
            }
        }
        self.rules = Arc::new(rules);
        self.slots = slots;
        self.policies = Some(Arc::clone(inputs.policies));
        Ok(())
    }

    /// Every endpoint's table, and every table whose rows must stand.
    #[allow(
        clippy::type_complexity,
        reason = "two maps that are used side by side, once"
    )]
    fn lay_out(
        &mut self,
        inputs: &Inputs<'_>,
        clock: &Clock,
    ) -> Result<
        (
            BTreeMap<u32, EndpointInfo>,
            BTreeMap<TableId, Arc<TableSpec>>,
        ),
        Exhausted,
    > {
        let mut specs = self.in_force.clone();
        let mut endpoints = BTreeMap::new();
        for local in inputs.endpoints {
            let Some(workload) = inputs.inventory.workload(&local.workload) else {
                continue;
            };
            let selecting: Vec<(&PolicyId, &Arc<Policy>)> = inputs
                .policies
                .policies
                .iter()
                .filter(|(_, policy)| inputs.inventory.is_subject(policy, workload))
                .collect();
            let fence = |direction| self.fence(direction, workload, &selecting, clock.now);
            let (ingress, egress) = (fence(Direction::Ingress), fence(Direction::Egress));
            let spec = TableSpec::new(ingress, egress, clock);
            let (spec, table) = self.table(spec)?;
            specs.insert(table, Arc::clone(&spec));
            let identity = workload
                .addresses
                .first()
                .and_then(|address| self.resolved.addresses.get(address))
                .copied()
                .unwrap_or(IdentityId::UNKNOWN);
            let policies = selecting.into_iter().map(|(id, _)| id.clone()).collect();
            let workload = Arc::clone(workload);
            endpoints.insert(
                local.ifindex,
                EndpointInfo {
                    workload,
                    identity,
                    table,
                    spec,
                    policies,
                },
            );
        }
        self.tables.retain(|_, table| specs.contains_key(table));
        Ok((endpoints, specs))
    }

    fn fence(
        &self,
        direction: Direction,
        subject: &Workload,
        selecting: &[(&PolicyId, &Arc<Policy>)],
        now: WallTime,
    ) -> Fence {
        let asked = selecting.iter().filter_map(|(id, policy)| {
            let rules = policy.rules(direction)?;
            let slot = |index| self.slots.get(&((*id).clone(), direction, index)).copied();
            let numbered = rules.iter().enumerate();
            Some(Asked {
                policy,
                rules: numbered
                    .filter_map(|(index, rule)| Some((rule, slot(index)?)))
                    .collect(),
            })
        });
        let layout = Layout {
            direction,
            subject,
            declared: &self.declared,
            now,
        };
        layout.fence(asked.collect())
    }

    fn table(&mut self, spec: TableSpec) -> Result<(Arc<TableSpec>, TableId), Exhausted> {
        if let Some((spec, table)) = self.tables.get_key_value(&spec) {
            return Ok((Arc::clone(spec), *table));
        }
        let table = TableId(self.numbers.number(Space::Table, digest_of(&spec))?);
        let spec = Arc::new(spec);
        self.tables.insert(Arc::clone(&spec), table);
        Ok((spec, table))
    }

    fn classify(
        &mut self,
        specs: &BTreeMap<TableId, Arc<TableSpec>>,
    ) -> Result<Classes, Exhausted> {
        let selectors: HashSet<_> = specs
            .values()
            .flat_map(|s| s.selectors().cloned())
            .collect();
        let classes = self
            .answers
            .classify(&self.identities, &selectors, &mut self.numbers)?;
        let ids: BTreeSet<ClassId> = classes.list.iter().map(|class| class.id).collect();
        if ids != self.class_ids {
            self.rows.clear();
            self.class_ids = ids;
        }
        Ok(classes)
    }

    fn rows(
        &mut self,
        specs: &BTreeMap<TableId, Arc<TableSpec>>,
        classes: &Classes,
    ) -> BTreeMap<TableId, Arc<TableRows>> {
        let mut tables = BTreeMap::new();
        for (table, spec) in specs {
            let rows = self
                .rows
                .get(table)
                .cloned()
                .unwrap_or_else(|| Arc::new(rows(*table, spec, &classes.list)));
            tables.insert(*table, rows);
        }
        self.rows.clone_from(&tables);
        tables
    }

    pub(super) fn namespace(&mut self, name: &NamespaceName) -> Result<NamespaceSlot, Exhausted> {
        let digest = digest_of(&("namespace", name.as_str()));
        self.numbers
            .number(Space::Namespace, digest)
            .map(NamespaceSlot)
    }

    fn modes(&mut self, inputs: &Inputs<'_>) -> Result<BTreeMap<NamespaceSlot, Mode>, Exhausted> {
        let mut modes = BTreeMap::from([(NamespaceSlot::NODE_DEFAULT, inputs.modes.default)]);
        for name in inputs.inventory.namespaces.keys() {
            modes.insert(self.namespace(name)?, inputs.modes.of(name));
        }
        Ok(modes)
    }

    fn endpoints(
        &mut self,
        inputs: &Inputs<'_>,
        infos: &BTreeMap<u32, EndpointInfo>,
    ) -> Result<BTreeMap<u32, Endpoint>, Exhausted> {
        let mut endpoints = BTreeMap::new();
        for local in inputs.endpoints {
            let Some(info) = infos.get(&local.ifindex) else {
                continue;
            };
            let (ip4, ip6) = own_addresses(&info.workload);
            let endpoint = Endpoint {
                ip6,
                ip4,
                identity: info.identity,
                table: info.table,
                namespace: self.namespace(&info.workload.id.namespace)?,
                pickup_until: local.pickup_until,
                mode_override: mode_override(
                    inputs.locked,
                    inputs.inventory,
                    &info.workload,
                    inputs.modes.of(&info.workload.id.namespace),
                ),
                reserved: [0; 3],
            };
            endpoints.insert(local.ifindex, endpoint);
        }
        Ok(endpoints)
    }
}

/// The addresses of the endpoint record; the inventory refuses more than fit.
pub(super) fn own_addresses(workload: &Workload) -> ([Ip4; MAX_IP4], [Ip6; MAX_IP6]) {
    let (mut ip4, mut ip6) = ([Ip4::default(); MAX_IP4], [Ip6::default(); MAX_IP6]);
    let v4 = workload
        .addresses
        .iter()
        .filter_map(|address| match address {
            IpAddr::V4(address) => Some(Ip4::from_wire(address.octets())),
            IpAddr::V6(_) => None,
        });
    let v6 = workload
        .addresses
        .iter()
        .filter_map(|address| match address {
            IpAddr::V6(address) => Some(Ip6::from_wire(address.octets())),
            IpAddr::V4(_) => None,
        });
    ip4.iter_mut()
        .zip(v4)
        .for_each(|(slot, address)| *slot = address);
    ip6.iter_mut()
        .zip(v6)
        .for_each(|(slot, address)| *slot = address);
    (ip4, ip6)
}
