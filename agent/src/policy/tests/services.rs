//! Services: what is said of each is what is said of its backends, at their ports.
//!
//! Backends are asked one by one, by the same rows as any other peer, which the oracle checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use proptest::{collection::vec, prelude::*};
use ringfence_common::{
    ids::{ClassId, IdentityId, RuleSlot, TableId},
    mode::{Direction, Verdict},
    net::Port,
    policy::{self, Decision},
};

use crate::{
    model::{
        Backend, Inventory, NamespaceName, PortMatch, Protocol, Service, ServiceId, ServiceName,
        ServicePort, TestEnd,
    },
    oracle::{BOOT, NOW, World, cases, history},
    policy::{Compiled, Compiler, EndpointInfo, Query, explain::explain, host_table::HostTable},
};

const PROTOCOLS: [u8; 3] = [6, 17, 132];

/// A Service by choices among what a world has: a protocol, a port, and backends with a port each.
type Choice = (u8, Vec<(u8, u8, Vec<(u8, u8)>)>);

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    let backends = vec((any::<u8>(), any::<u8>()), 0..6);
    let ports = vec((any::<u8>(), any::<u8>(), backends), 0..3);
    vec((any::<u8>(), ports), 0..5)
}

fn pick<T: Copy>(all: &[T], choice: u8) -> T {
    all[usize::from(choice) % all.len()]
}

fn service(world: &World, number: usize, choice: &Choice) -> Service {
    let (which, ports) = choice;
    let (addresses, numbers) = (world.addresses(), world.ports());
    let numbers: Vec<u16> = numbers.into_iter().collect();
    let mut own: Vec<IpAddr> = vec![
        format!("10.96.0.{}", 100 + which % 4).parse().unwrap(),
        format!("fd96::{}", 100 + which % 4).parse().unwrap(),
    ];
    // Some have the address of another.
    if which % 5 == 0 {
        own.push(pick(&addresses, which / 5));
        own.dedup();
    }
    let mut of_ports: BTreeMap<ServicePort, BTreeSet<Backend>> = BTreeMap::new();
    for (protocol, port, backends) in ports {
        let port = ServicePort {
            protocol: pick(&PROTOCOLS, *protocol),
            port: pick(&numbers, *port),
        };
        let backends = backends.iter().map(|(address, port)| match address {
            0..8 => Backend::unknown(address % 2 == 0),
            _ => Backend {
                address: pick(&addresses, *address),
                port: pick(&numbers, *port),
            },
        });
        of_ports.entry(port).or_default().extend(backends);
    }
    Service {
        id: ServiceId {
            namespace: NamespaceName::new("shop").unwrap(),
            name: ServiceName::new(&format!("s{number}")).unwrap(),
        },
        addresses: own,
        ports: of_ports,
    }
}

fn with_services(world: &World, choices: &[Choice]) -> World {
    let services = choices.iter().enumerate();
    let services = services.map(|(number, choice)| service(world, number, choice));
    World {
        inventory: Arc::new(Inventory {
            services: services.map(|it| (it.id.clone(), Arc::new(it))).collect(),
            ..Inventory::clone(&world.inventory)
        }),
        policies: Arc::clone(&world.policies),
    }
}

/// What a compiled state says, by a lookup such as the kernel's.
struct Lookup<'a> {
    compiled: &'a Compiled,
    rows: HostTable,
    tunnels: BTreeSet<u16>,
}

impl Lookup<'_> {
    fn identity(&self, address: IpAddr) -> IdentityId {
        let state = &self.compiled.state;
        if let Some(identity) = state.addresses.get(&address) {
            return *identity;
        }
        let around = state.prefixes.iter();
        let around = around.filter(|(net, _)| net.contains(&address));
        let longest = around.max_by_key(|(net, _)| net.prefix_len());
        longest.map_or(IdentityId::UNKNOWN, |(_, identity)| *identity)
    }

    fn decide(&self, table: TableId, other: IpAddr, protocol: u8, port: u16) -> Decision {
        let identity = self.identity(other);
        if identity == IdentityId::UNKNOWN {
            return denied(RuleSlot::NONE);
        }
        let class = self.compiled.state.classes.get(&identity);
        let query = policy::Query {
            table,
            class: class.copied().unwrap_or(ClassId::ANY),
            direction: Direction::Egress,
            protocol,
            port: Port::new(port),
        };
        policy::decide(&self.rows, &query, BOOT).unwrap()
    }
}

fn denied(rule: RuleSlot) -> Decision {
    Decision {
        verdict: Verdict::Deny,
        rule,
        recheck: 0,
        reject: false,
    }
}

/// What is to be said of a port of a Service.
fn expected(
    lookup: &Lookup<'_>,
    (endpoint, any): (&EndpointInfo, Decision),
    service: &Service,
    through: IpAddr,
    port: ServicePort,
) -> (Verdict, BTreeSet<RuleSlot>) {
    let services = &lookup.compiled.state.addresses;
    let backends = service.ports.get(&port).into_iter().flatten();
    let backends = backends.filter(|it| it.address.is_ipv4() == through.is_ipv4());
    let is_service = |address: IpAddr| {
        let identity = services.get(&address);
        let identity = identity.and_then(|it| lookup.compiled.identities.get(it));
        identity.is_some_and(|it| it.service().is_some())
    };
    let unknown = if endpoint.spec.egress.isolated {
        RuleSlot::DEFAULT_DENY
    } else {
        RuleSlot::SERVICE_PORT
    };
    let tunnels = &lookup.tunnels;
    let enters = port.protocol == 17 && tunnels.contains(&port.port);
    let said: Vec<Decision> = backends
        .map(|it| {
            let said = lookup.decide(endpoint.table, it.address, port.protocol, it.port);
            let is_unknown = it.is_unknown() || is_service(it.address);
            match said.rule {
                RuleSlot::NONE => denied(unknown),
                _ if is_unknown => denied(unknown),
                _ => said,
            }
        })
        .collect();
    let of = |verdict: Verdict| said.iter().filter(move |it| it.verdict == verdict);
    let rules = |verdict| of(verdict).map(|it| it.rule).collect();
    match (of(Verdict::Allow).count(), of(Verdict::Deny).count()) {
        (0, 0) if enters && any.verdict == Verdict::Allow => (
            Verdict::Deny,
            [
                RuleSlot::NODE_TUNNEL,
                RuleSlot::DEFAULT_DENY,
                RuleSlot::SERVICE_PORT,
            ]
            .into(),
        ),
        (0, 0) if !endpoint.spec.egress.has_policies => (any.verdict, [any.rule].into()),
        (0, 0) if any.verdict == Verdict::Deny => (Verdict::Deny, [any.rule].into()),
        (0, 0) => (Verdict::Deny, [RuleSlot::SERVICE_PORT].into()),
        (_, 0) => (Verdict::Allow, rules(Verdict::Allow)),
        (0, _) => (Verdict::Deny, rules(Verdict::Deny)),
        _ => (Verdict::Deny, [RuleSlot::SERVICE_MIXED].into()),
    }
}

/// An explanation says the same.
fn explained(
    world: &World,
    endpoint: &EndpointInfo,
    (to, port): (IpAddr, ServicePort),
    said: &Decision,
) -> Result<(), TestCaseError> {
    let workload = &endpoint.workload;
    let mut own = workload.addresses.iter();
    let own =
        own.find(|it| it.is_ipv4() == to.is_ipv4() && world.inventory.is_owner(&workload.id, **it));
    let Some(own) = own else {
        return Ok(());
    };
    let query = Query {
        from: TestEnd::Address(*own),
        to: TestEnd::Address(to),
        port: PortMatch::Range {
            protocol: Protocol::from_number(port.protocol),
            first: port.port,
            last: port.port,
        },
        family: None,
    };
    let found = explain(&world.inventory, &world.policies, NOW, &query, false).unwrap();
    prop_assert!(found.service.is_some());
    let egress = &found.egress;
    prop_assert_eq!(egress.verdict, said.verdict, "{:?}", found);
    // Of several that agree, any may be named.
    let is_mixed = said.rule == RuleSlot::SERVICE_MIXED;
    prop_assert_eq!(egress.rule == "service-mixed", is_mixed, "{:?}", found);
    Ok(())
}

/// Whether nothing but Services claims an address, and only this one.
fn is_alone(world: &World, service: &Service, address: IpAddr) -> bool {
    let found = world.inventory.service_at(address);
    found.is_some_and(|found| found.id == service.id)
}

#[test]
fn a_service_is_what_its_backends_are() {
    let counts = [const { AtomicU64::new(0) }; 4];
    let [allowed, refused, mixed, elsewhere] = &counts;
    proptest!(cases(250), |(worlds in history(4), choices in vec(choices(), 4))| {
        let mut compiler = Compiler::default();
        for (world, choices) in worlds.iter().zip(&choices) {
            let world = with_services(world, choices);
            let compiled = world.compile(&mut compiler);
            let lookup = Lookup {
                compiled: &compiled,
                rows: HostTable::of(&compiled.state),
                tunnels: world.inventory.network.tunnel_ports.clone(),
            };
            let numbers = world.ports();
            for service in world.inventory.services.values() {
                for address in &service.addresses {
                    if !is_alone(&world, service, *address) {
                        let identity = lookup.identity(*address);
                        let identity = compiled.identities.get(&identity);
                        prop_assert!(identity.is_none_or(|it| it.service().is_none()));
                        continue;
                    }
                    for endpoint in compiled.endpoints.values() {
                        let defined = service.ports.keys().copied();
                        let others = numbers.iter().flat_map(|port| {
                            PROTOCOLS.map(|protocol| ServicePort { protocol, port: *port })
                        });
                        for port in defined.chain(others.take(40)) {
                            let nowhere = ClassId::ANY;
                            let any = policy::Query {
                                table: endpoint.table,
                                class: nowhere,
                                direction: Direction::Egress,
                                protocol: port.protocol,
                                port: Port::new(port.port),
                            };
                            let any = policy::decide(&lookup.rows, &any, BOOT).unwrap();
                            let (verdict, rules) =
                                expected(&lookup, (endpoint, any), service, *address, port);
                            let said =
                                lookup.decide(endpoint.table, *address, port.protocol, port.port);
                            prop_assert_eq!(said.verdict, verdict, "{:?} {:?}", port, service);
                            prop_assert!(rules.contains(&said.rule), "{said:?}: {rules:?}");
                            explained(&world, endpoint, (*address, port), &said)?;
                            let count = match (said.verdict, said.rule) {
                                (_, RuleSlot::SERVICE_MIXED) => mixed,
                                (_, RuleSlot::SERVICE_PORT) => elsewhere,
                                (Verdict::Allow, _) => allowed,
                                (Verdict::Deny, _) => refused,
                            };
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }
        }
    });
    println!("{counts:?} allowed, denied, mixed, without a backend");
    for count in &counts {
        assert!(count.load(Ordering::Relaxed) > 100, "{counts:?}");
    }
}

#[test]
fn rows_for_services_never_change_either() {
    proptest!(cases(300), |(worlds in history(4), choices in vec(choices(), 4))| {
        let mut compiler = Compiler::default();
        let mut known = std::collections::HashMap::new();
        for (world, choices) in worlds.iter().zip(&choices) {
            let compiled = with_services(world, choices).compile(&mut compiler);
            let mut rows: BTreeMap<(TableId, ClassId), BTreeMap<_, _>> = BTreeMap::new();
            for ((bits, key), row) in compiled.state.tables.values().flat_map(|it| it.iter()) {
                let place = (*bits, key.direction, key.protocol, key.port.number());
                rows.entry((key.table, key.class)).or_default().insert(place, *row);
            }
            for (of, rows) in rows {
                let before = known.insert(of, rows.clone());
                prop_assert!(before.as_ref().is_none_or(|it| *it == rows), "{of:?}");
            }
        }
    });
}

#[test]
fn services_that_are_gone_leave_nothing() {
    proptest!(cases(60), |(worlds in history(2), choices in choices())| {
        let [Some(first), Some(second)] = [worlds.first(), worlds.last()] else {
            return Ok(());
        };
        let (mut one, mut other) = (Compiler::default(), Compiler::default());
        with_services(first, &choices).compile(&mut one);
        first.compile(&mut other);
        let (after, never) = (second.compile(&mut one), second.compile(&mut other));
        let (again, never) = (second.compile(&mut one), {
            drop(never);
            second.compile(&mut other)
        });
        drop(after);
        prop_assert_eq!(again.identities.len(), never.identities.len());
        prop_assert_eq!(again.classes, never.classes);
        let services = with_services(first, &choices).inventory;
        let placed = services.services.values().flat_map(|it| &it.addresses);
        let placed = placed.filter(|it| first.inventory.owners.get(*it).is_none()).count();
        let with = with_services(first, &choices).compile(&mut Compiler::default());
        let without = first.compile(&mut Compiler::default());
        let more = with.state.addresses.len() - without.state.addresses.len();
        prop_assert_eq!(more > 0, placed > 0, "the control");
        let addresses = |it: &Compiled| it.state.addresses.keys().copied().collect::<Vec<_>>();
        prop_assert_eq!(addresses(&again), addresses(&never));
        let owners = |it: &Compiled| it.state.owners.keys().copied().collect::<Vec<_>>();
        prop_assert_eq!(owners(&again), owners(&never));
        let rows = |it: &Compiled| it.state.tables.values().map(|rows| rows.len()).sum::<usize>();
        prop_assert_eq!(rows(&again), rows(&never));
    });
}
