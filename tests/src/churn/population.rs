//! The workloads and namespaces that come and go, and those that stay.
//!
//! Every namespace and every workload lives once, with labels that no other life has: under a key
//! that policies name, and under one that none names. Addresses and interfaces are reused.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use ringfence::model::{
    Inventory, Labels, Namespace, NamespaceName, NodeEntry, NodeName, ServiceAccountName, Workload,
    WorkloadId,
};

/// The namespace of the workloads that stay.
pub(super) const KEPT: &str = "kept";
/// The workloads that stay: the endpoint that serves, and its peers.
pub(super) const WEB: u8 = 1;
pub(super) const FRIEND: u8 = 2;
pub(super) const OTHER: u8 = 3;
pub(super) const REVOKED: u8 = 4;

/// Workloads at a time.
const ALIVE: usize = 1000;
/// Addresses that workloads take in turn. Not a multiple of `PER_GUEST`, so that an address of a guest
/// is next that of another.
const ADDRESSES: u32 = 1501;
/// One of this many workloads is an endpoint.
const PER_ENDPOINT: u64 = 16;
/// One of this many workloads is a guest, which may connect to the endpoint that stays.
const PER_GUEST: u64 = 5;

/// A workload that comes and goes.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) number: u64,
    pub(super) workload: Arc<Workload>,
    pub(super) is_guest: bool,
}

/// Everyone who is alive.
pub(super) struct Population {
    lives: VecDeque<Life>,
    namespaces: VecDeque<Namespace>,
    pub(super) lives_begun: u64,
    pub(super) namespaces_begun: u64,
    lives_per_namespace: u64,
    interfaces: Vec<String>,
    inventory: Inventory,
}

/// The address of a workload that stays.
pub(super) fn kept_address(v6: bool, host: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, host.into()).into()
    } else {
        Ipv4Addr::new(10, 200, 0, host).into()
    }
}

impl Population {
    /// Lives in namespaces of this many lives each; endpoints take these interfaces in turn.
    pub(super) fn new(lives_per_namespace: u64, interfaces: Vec<String>) -> Self {
        Self {
            lives: VecDeque::new(),
            namespaces: VecDeque::new(),
            lives_begun: 0,
            namespaces_begun: 0,
            lives_per_namespace: lives_per_namespace.max(1),
            interfaces,
            inventory: Inventory::default(),
        }
    }

    /// Ends the oldest lives and begins this many new ones. Returns those that began.
    pub(super) fn turn(&mut self, count: u64) -> Result<Vec<Life>> {
        let mut born = Vec::new();
        for _ in 0..count {
            if self.lives_begun.is_multiple_of(self.lives_per_namespace) {
                let name = NamespaceName::new(&format!("n{}", self.namespaces_begun))?;
                let labels = Labels::from_pairs([("team", format!("t{}", self.namespaces_begun))])?;
                self.namespaces.push_back(Namespace::new(name, labels)?);
                self.namespaces_begun += 1;
            }
            let life = self.life(self.lives_begun)?;
            self.lives_begun += 1;
            self.lives.push_back(life.clone());
            if self.lives.len() > ALIVE {
                self.lives.pop_front();
            }
            born.push(life);
        }
        self.forget_empty_namespaces();
        born.retain(|life| {
            self.lives
                .front()
                .is_some_and(|oldest| oldest.number <= life.number)
        });
        Ok(born)
    }

    /// Every address that a life ever had.
    pub(super) fn addresses() -> impl Iterator<Item = IpAddr> {
        (0..ADDRESSES).flat_map(addresses_of)
    }

    /// Ends every life.
    pub(super) fn end_all(&mut self) {
        self.lives.clear();
        self.namespaces.clear();
    }

    /// Living namespaces that have an endpoint or will have one, the youngest last.
    pub(super) fn namespaces(&self) -> impl DoubleEndedIterator<Item = &NamespaceName> {
        self.namespaces.iter().map(Namespace::name)
    }

    /// Everyone alive.
    pub(super) fn inventory(&mut self) -> Result<Arc<Inventory>> {
        let kept = Namespace::new(NamespaceName::new(KEPT)?, Labels::new())?;
        let namespaces = self.namespaces.iter().cloned().chain([kept]).collect();
        let lives = self.lives.iter().map(|life| Arc::clone(&life.workload));
        let workloads = lives.map(Ok).chain(KEPT_WORKLOADS.map(kept_workload));
        let node = NodeEntry {
            name: NodeName::new("node")?,
            addresses: vec![Ipv4Addr::new(172, 16, 0, 1).into()],
            local: true,
        };
        let built = Inventory::build(namespaces, workloads.collect::<Result<_>>()?, vec![node]);
        let built = built.map_err(|errors| anyhow!("{errors:?}"))?;
        self.inventory = built.based_on(&self.inventory);
        Ok(Arc::new(self.inventory.clone()))
    }

    fn life(&self, number: u64) -> Result<Life> {
        let namespace = self.namespaces.back().context("no namespace")?;
        let is_guest = number.is_multiple_of(PER_GUEST);
        let kind = if is_guest { "guest" } else { "other" };
        let labels = Labels::from_pairs([
            ("kind", kind.to_owned()),
            ("app", format!("a{number}")),
            ("pod-template-hash", format!("h{number}")),
        ])?;
        let host = u32::try_from(number % u64::from(ADDRESSES))?;
        let endpoint = (number % PER_ENDPOINT == 7)
            .then_some(number / PER_ENDPOINT)
            .map(|turn| turn % self.interfaces.len() as u64);
        let interface = match endpoint {
            Some(index) => self.interfaces.get(usize::try_from(index)?).cloned(),
            None => None,
        };
        let workload = Workload {
            id: WorkloadId::new(namespace.name().as_str(), &format!("w{number}"))?,
            labels,
            service_account: ServiceAccountName::new("default")?,
            addresses: addresses_of(host).to_vec(),
            ports: Vec::new(),
            interface,
            recency: None,
        };
        Ok(Life {
            number,
            workload: Arc::new(workload),
            is_guest,
        })
    }

    fn forget_empty_namespaces(&mut self) {
        let Some(oldest) = self.lives.front() else {
            return;
        };
        let oldest = &oldest.workload.id.namespace;
        while self.namespaces.len() > 1
            && self.namespaces.front().is_some_and(|n| n.name() != oldest)
        {
            self.namespaces.pop_front();
        }
    }
}

fn addresses_of(host: u32) -> [IpAddr; 2] {
    [
        Ipv4Addr::from(10 << 24 | (host + 1)).into(),
        Ipv6Addr::from((0xfd01_u128 << 112) + u128::from(host) + 1).into(),
    ]
}

const KEPT_WORKLOADS: [(u8, &str); 4] = [
    (WEB, "web"),
    (FRIEND, "friend"),
    (OTHER, "other"),
    (REVOKED, "revoked"),
];

/// The interface of the endpoint that stays.
pub(super) const WEB_INTERFACE: &str = "churn0";

fn kept_workload((host, name): (u8, &str)) -> Result<Arc<Workload>> {
    Ok(Arc::new(Workload {
        id: WorkloadId::new(KEPT, name)?,
        labels: Labels::from_pairs([("kind", name), ("app", name)])?,
        service_account: ServiceAccountName::new("default")?,
        addresses: vec![kept_address(false, host), kept_address(true, host)],
        ports: Vec::new(),
        interface: (host == WEB).then(|| WEB_INTERFACE.to_owned()),
        recency: None,
    }))
}
