//! Input and output of compilation.
//!
//! Invariants: plain data with no behaviour except lookups; the two clocks are always read
//! together. The transformation is in `compile`.

use std::{collections::BTreeMap, sync::Arc};

use ringfence_common::{
    ids::{IdentityId, RuleSlot, TableId},
    mode::{Direction, Mode},
};

use super::{identity::Identity, table::TableSpec};
use crate::{
    model::{
        Attachment, EndpointId, Inventory, Lockdown, NamespaceName, Policy, PolicyId, PolicySet,
        RuleAction, WallTime, Workload, WorkloadId,
    },
    ordmap::Map,
    plan::State,
};

/// The current time, on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Wall-clock time.
    pub now: WallTime,
    /// The kernel's boot clock at the same moment, in nanoseconds.
    pub boot: u64,
}

impl Clock {
    /// The boot-clock time of a wall-clock time.
    #[must_use]
    pub fn boot(&self, time: WallTime) -> u64 {
        self.boot
            .saturating_add_signed(time.0.saturating_sub(self.now.0))
    }
}

/// A workload attached on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Which one.
    pub id: EndpointId,
    /// Its host-side interfaces.
    pub attachments: Vec<Attachment>,
}

impl LocalEndpoint {
    /// A workload with one interface, of which no older connections are picked up.
    #[must_use]
    pub fn at(workload: WorkloadId, ifindex: u32) -> Self {
        let attachment = Attachment {
            ifindex,
            pickup_until: 0,
        };
        Self {
            id: EndpointId::of(workload),
            attachments: vec![attachment],
        }
    }
}

/// The mode of each namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modes {
    /// The mode of namespaces without their own, and of frames without an endpoint.
    pub default: Mode,
    /// By namespace.
    pub namespaces: BTreeMap<NamespaceName, Mode>,
}

impl Modes {
    /// The mode of a namespace.
    #[must_use]
    pub fn of(&self, namespace: &NamespaceName) -> Mode {
        self.namespaces
            .get(namespace)
            .copied()
            .unwrap_or(self.default)
    }
}

/// Everything that the desired state depends on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Workloads, namespaces and nodes.
    pub inventory: &'a Arc<Inventory>,
    /// Policies.
    pub policies: &'a Arc<PolicySet>,
    /// Local endpoints.
    pub endpoints: &'a [LocalEndpoint],
    /// Modes.
    pub modes: &'a Modes,
    /// Subjects of policies that were refused and never had good content.
    pub locked: &'a [Lockdown],
    /// The current time.
    pub clock: Clock,
}

/// A rule, as verdicts refer to it.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleInfo {
    /// Its policy.
    pub policy: Arc<Policy>,
    /// Its direction.
    pub direction: Direction,
    /// Its index among the policy's rules of that direction, from 0.
    pub index: usize,
    /// Allow or deny.
    pub action: RuleAction,
    /// Its line.
    pub line: u32,
}

impl RuleInfo {
    /// For example `ingress[0]`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}[{}]", self.direction.name(), self.index)
    }

    /// When the rule ends, if it does.
    #[must_use]
    pub fn expires(&self) -> Option<WallTime> {
        let rules = self.policy.rules(self.direction)?;
        rules.get(self.index)?.window.expires
    }
}

/// The compiled state of an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointInfo {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Its host-side interfaces.
    pub attachments: Vec<Attachment>,
    /// Its identity (of its first address).
    pub identity: IdentityId,
    /// Its table.
    pub table: TableId,
    /// The table's specification.
    pub spec: Arc<TableSpec>,
    /// The policies that select it.
    pub policies: Arc<[PolicyId]>,
}

/// The result of a compilation.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The desired content of the maps.
    pub state: State,
    /// Every identity.
    pub identities: Map<IdentityId, Arc<Identity>>,
    /// Every numbered rule.
    pub rules: Map<RuleSlot, RuleInfo>,
    /// Local endpoints.
    pub endpoints: BTreeMap<EndpointId, EndpointInfo>,
    /// The number of classes.
    pub classes: usize,
    /// Boot-clock time of the next change that is due to time alone.
    pub next_change: Option<u64>,
}
