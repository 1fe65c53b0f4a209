//! `policy eval`: looks up the compiled rows on the host, as the kernel does in its maps.
//!
//! Invariants: both ends are evaluated, local or not. An address that a workload or node owns
//! stands for its owner. Modes are ignored. Traffic to the own address, and from the workload's
//! node, is allowed before every rule.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use ringfence_common::{
    drop_reason::DropReason,
    ids::{ClassId, IdentityId, RuleSlot, TableId},
    mode::{Direction, Mode, Verdict},
    net::Port,
    policy,
};

use super::{
    compile::Compiler,
    desired::{Clock, Compiled, Inputs, LocalEndpoint, Modes},
    flow::{Flow, Party, Register},
    host_table::HostTable,
    numbers::Exhausted,
    port_verdicts::{DecidedBy, VerdictReader},
};
use crate::model::{
    Inventory, PolicySet, PortMatch, TestEnd, WallTime, Workload, WorkloadId, quote,
};

/// One end of a query.
pub type End = TestEnd;

/// A flow to evaluate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The originator.
    pub from: End,
    /// The responder.
    pub to: End,
    /// One port, a named port of the destination, or a protocol without ports.
    pub port: PortMatch,
    /// 4, 6, or whichever both ends have, IPv4 first.
    pub family: Option<u8>,
}

/// Why a query cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The workload does not exist.
    #[error("unknown workload {}: expected one of the inventory, or an address", quote(.0))]
    UnknownWorkload(String),
    /// The two ends share no address family.
    #[error("{from} and {to} have no address of the same family{}", asked(*.family))]
    NoCommonFamily {
        /// One end.
        from: String,
        /// The other.
        to: String,
        /// The requested family.
        family: Option<u8>,
    },
    /// The family is neither 4 nor 6.
    #[error("family {0} does not exist: expected 4 or 6")]
    BadFamily(u8),
    /// The port is not one port.
    #[error("{0} is not one port: expected tcp/80, udp/53, icmp or a port name")]
    NotOnePort(String),
    /// The destination does not declare the name.
    #[error("{to} declares no port named {name}: expected a number, or a name it declares")]
    UndeclaredPort {
        /// The destination.
        to: String,
        /// The name.
        name: String,
    },
}

fn asked(family: Option<u8>) -> String {
    family.map_or_else(String::new, |family| format!(" {family}"))
}

/// The verdict of one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Its verdict.
    pub verdict: Verdict,
    /// The deciding rule, `ingress[0]`, or a default's name.
    pub rule: String,
    /// The rule's policy.
    pub policy: Option<String>,
}

/// The verdict of both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Allowed only if both ends allow.
    pub verdict: Verdict,
    /// The originator's end.
    pub egress: Side,
    /// The responder's end.
    pub ingress: Side,
}

/// The compiled state of every workload.
pub struct Evaluator {
    compiled: Compiled,
    rows: HostTable,
    workloads: HashMap<WorkloadId, (Arc<Workload>, TableId)>,
    owned: HashMap<IpAddr, (IdentityId, Option<Arc<Workload>>)>,
    now: u64,
}

impl Register for Evaluator {
    fn named(&self, id: &WorkloadId) -> Option<&Arc<Workload>> {
        self.workloads.get(id).map(|(workload, _)| workload)
    }

    fn owner(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.owned.get(&address)?.1.as_ref()
    }
}

impl Evaluator {
    /// Compiles the policies for every workload of the inventory, at a point in time.
    ///
    /// # Errors
    /// If there are more identities or rules than a node can number.
    pub fn new(
        inventory: &Arc<Inventory>,
        policies: &Arc<PolicySet>,
        now: WallTime,
    ) -> Result<Self, Exhausted> {
        let endpoints: Vec<LocalEndpoint> = (1..)
            .zip(inventory.workloads.keys())
            .map(|(ifindex, id)| LocalEndpoint::at(id.clone(), ifindex))
            .collect();
        let modes = Modes {
            default: Mode::Enforce,
            namespaces: BTreeMap::new(),
        };
        // Any fixed boot-clock time works: rows are looked up for the time at which they are
        // compiled.
        let clock = Clock { now, boot: 1 << 62 };
        let inputs = Inputs {
            inventory,
            policies,
            endpoints: &endpoints,
            modes: &modes,
            locked: &[],
            clock,
        };
        let compiled = Compiler::default().compile(&inputs)?;
        let endpoints = compiled.endpoints.values();
        let workloads = endpoints
            .map(|e| (e.workload.id.clone(), (Arc::clone(&e.workload), e.table)))
            .collect();
        let addresses = compiled.state.addresses.iter();
        let mut owned: HashMap<IpAddr, (IdentityId, Option<Arc<Workload>>)> = addresses
            .map(|(address, identity)| (*address, (*identity, None)))
            .collect();
        for workload in inventory.workloads.values() {
            for address in &workload.addresses {
                if let Some((_, owner)) = owned.get_mut(address)
                    && inventory.is_owner(&workload.id, *address)
                {
                    *owner = Some(Arc::clone(workload));
                }
            }
        }
        Ok(Self {
            rows: HostTable::of(&compiled.state),
            compiled,
            workloads,
            owned,
            now: clock.boot,
        })
    }

    /// Evaluates one flow.
    ///
    /// # Errors
    /// If the query names something that does not exist.
    pub fn ask(&self, query: &Query) -> Result<Answer, QueryError> {
        let flow = Flow::of(query, self)?;
        let itself = flow.is_to_itself();
        let side = |owner: &Party<'_>, other: &Party<'_>, direction| {
            if itself {
                return reserved(Verdict::Allow, RuleSlot::OWN_ADDRESS);
            }
            let port = Port::new(flow.port);
            self.side(owner, other.address, direction, flow.protocol, port)
        };
        let egress = side(&flow.from, &flow.to, Direction::Egress);
        let ingress = side(&flow.to, &flow.from, Direction::Ingress);
        let verdict = egress.verdict.max(ingress.verdict);
        Ok(Answer {
            verdict,
            egress,
            ingress,
        })
    }

    fn side(
        &self,
        owner: &Party<'_>,
        other: IpAddr,
        direction: Direction,
        number: u8,
        port: Port,
    ) -> Side {
        let Some(table) = owner.workload.and_then(|w| self.table(&w.id)) else {
            let rule = "not-a-workload".to_owned();
            return Side {
                verdict: Verdict::Allow,
                rule,
                policy: None,
            };
        };
        let identity = self.identity(other);
        if direction == Direction::Ingress && identity.is_node() {
            return reserved(Verdict::Allow, RuleSlot::HOST_INGRESS);
        }
        if identity == IdentityId::UNKNOWN {
            return Side {
                verdict: Verdict::Deny,
                rule: DropReason::UnknownPeer.name().to_owned(),
                policy: None,
            };
        }
        let query = policy::Query {
            table,
            class: self.class_of(other),
            direction,
            protocol: number,
            port,
        };
        match policy::decide(&self.rows, &query, self.now) {
            Ok(decision) => self.name(decision.verdict, decision.rule),
            Err(_) => reserved(Verdict::Deny, RuleSlot::NONE),
        }
    }

    fn identity(&self, address: IpAddr) -> IdentityId {
        if let Some((identity, _)) = self.owned.get(&address) {
            return *identity;
        }
        self.of_prefix(address, if address.is_ipv6() { 128 } else { 32 })
    }

    fn of_prefix(&self, address: IpAddr, longest: u8) -> IdentityId {
        (0..=longest)
            .rev()
            .filter_map(|length| IpNet::new(address, length).ok())
            .find_map(|net| self.compiled.state.prefixes.get(&net.trunc()))
            .copied()
            .unwrap_or(IdentityId::UNKNOWN)
    }

    fn class(&self, identity: IdentityId) -> ClassId {
        let class = self.compiled.state.classes.get(&identity);
        class.copied().unwrap_or_default()
    }

    /// The class of an address.
    pub(crate) fn class_of(&self, address: IpAddr) -> ClassId {
        self.class(self.identity(address))
    }

    /// The class of addresses in a network that are in no longer prefix of a policy and have no
    /// owner.
    pub(crate) fn class_within(&self, net: IpNet) -> ClassId {
        self.class(self.of_prefix(net.network(), net.prefix_len()))
    }

    /// A workload's table.
    pub(crate) fn table(&self, workload: &WorkloadId) -> Option<TableId> {
        self.workloads.get(workload).map(|(_, table)| *table)
    }

    /// A reader of verdicts at every port.
    pub(crate) fn spans(&self) -> VerdictReader<'_> {
        VerdictReader::new(&self.compiled.state, &self.rows, self.now)
    }

    /// `ingress[0] of shop/orders`, or a default's name.
    pub(crate) fn title(&self, by: DecidedBy) -> String {
        let slot = match by {
            DecidedBy::Rule(slot) => slot,
            DecidedBy::NotAWorkload => return "not-a-workload".to_owned(),
        };
        match self.compiled.rules.get(&slot) {
            Some(info) => format!("{} of {}", info.name(), info.policy.id()),
            None => slot.reserved_name().unwrap_or("unknown").to_owned(),
        }
    }

    fn name(&self, verdict: Verdict, slot: RuleSlot) -> Side {
        match self.compiled.rules.get(&slot) {
            Some(info) => Side {
                verdict,
                rule: info.name(),
                policy: Some(info.policy.id().to_string()),
            },
            None => reserved(verdict, slot),
        }
    }
}

fn reserved(verdict: Verdict, slot: RuleSlot) -> Side {
    let rule = slot.reserved_name().unwrap_or("unknown").to_owned();
    Side {
        verdict,
        rule,
        policy: None,
    }
}

impl fmt::Debug for Evaluator {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Evaluator")
            .field("workloads", &self.workloads.len())
            .finish_non_exhaustive()
    }
}
