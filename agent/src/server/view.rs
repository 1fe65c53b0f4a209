//! The JSON of the control API, shared by the server and the command line.
//!
//! Invariants: keys are snake_case; a released field keeps its meaning; readers ignore unknown
//! fields. Names and labels are untrusted text: escape them for output.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::ModeName;

/// The overall state of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// This node's name.
    pub node: String,
    /// The revision in force.
    pub revision: u64,
    /// The mode of namespaces without a mode of their own.
    pub mode_default: ModeName,
    /// The address on which metrics and health are served.
    pub metrics_listen: Option<String>,
    /// Whether the desired state is in force: false before the first pass and after one that failed, and
    /// while a workload that names an interface of this node has no fence, or a degraded one.
    pub ready: bool,
    /// Whether every endpoint of every namespace that should enforce is attached, and the desired
    /// state is in force.
    pub enforcing: bool,
    /// Workloads that name an interface of this node.
    pub endpoints: u64,
    /// Those of them with a fence.
    pub attached: u64,
    /// The others, and why.
    #[serde(default)]
    pub unfenced: Vec<UnfencedView>,
    /// Fences that may not do what was asked for, and why.
    #[serde(default)]
    pub degraded: Vec<UnfencedView>,
    /// What was found changed behind the agent's back since its start, and put right.
    #[serde(default)]
    pub repairs: Vec<RepairView>,
    /// Everything that this node was asked for and that is not in force; empty if it is ready.
    #[serde(default)]
    pub not_in_force: Vec<NotInForceView>,
    /// Every error of the sources, each with its file and line.
    #[serde(default)]
    pub errors: Vec<String>,
    /// Workloads in the inventory, on any node.
    pub workloads: u64,
    /// Identities.
    pub identities: u64,
    /// Peer classes.
    pub classes: u64,
    /// Policies in force.
    pub policies: u64,
    /// Rules of these policies.
    pub rules: u64,
    /// Policy tables.
    pub tables: u64,
    /// Rows of all tables.
    pub policy_rows: u64,
    /// Namespaces with their modes.
    pub namespaces: Vec<NamespaceMode>,
    /// The sources of the desired state.
    pub sources: Vec<SourceStatus>,
    /// Warnings about the sources, for the operator.
    pub warnings: Vec<String>,
    /// The node's kernel.
    pub kernel: KernelStatus,
    /// Packets dropped, or passed in `observe` mode, by reason; reasons without packets are absent.
    pub drops: Vec<DropCount>,
    /// Flow events.
    pub events: EventCount,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// Why the desired state is not in force, or the first error of a source; absent without
    /// either.
    pub last_error: Option<String>,
}

/// Something that this node was asked for and that is not in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotInForceView {
    /// A fixed word: `starting`, `failed`, `restored`, `unwatched`, `unfenced` or `degraded`.
    pub kind: String,
    /// What it is, and why.
    pub text: String,
}

/// A workload that names an interface of this node, and has no fence or a degraded one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfencedView {
    /// `namespace/name`.
    pub workload: String,
    /// The interface that the inventory names.
    pub interface: String,
    /// Why it has no fence or a degraded one, with a remedy where there is one.
    pub reason: String,
}

/// The repairs of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairView {
    /// `fence-missing`, `fence-not-first`, `endpoint`, `mode` or `entry`.
    pub what: String,
    /// How many.
    pub count: u64,
    /// The last one in words.
    pub last: String,
    /// When that was.
    pub last_at: Timestamp,
}

/// A namespace and its mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceMode {
    /// The namespace.
    pub name: String,
    /// Its mode.
    pub mode: ModeName,
    /// The source of the mode.
    #[serde(default)]
    pub source: ModeSource,
}

/// The state of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Its content is in force.
    #[default]
    Ok,
    /// Its current content is refused; its last good content stays in force.
    Error,
}

/// A source of the desired state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `inventory`, `policies` or `kubernetes`.
    pub kind: String,
    /// The file or directory; of an API server, `kubernetes`.
    pub path: String,
    /// Its state.
    pub state: SourceState,
    /// Why it is refused, with file, line and column.
    pub error: Option<String>,
}

/// The node's kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelStatus {
    /// Its release.
    pub version: String,
    /// How programs are attached: `tcx` or `clsact`.
    pub attach: String,
}

/// Packets of one drop reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// The reason.
    pub reason: String,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets that passed in `observe` mode.
    pub observed: u64,
}

/// Flow events of the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCount {
    /// Written to the ring.
    pub written: u64,
    /// Lost because the ring was full.
    pub lost: u64,
}

/// Whether policies isolate an endpoint in a direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// No policy isolates it: everything is allowed.
    #[default]
    Open,
    /// Only what a rule allows is allowed.
    Isolated,
}

/// A workload of this node, an endpoint once its interface exists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// `namespace/name`.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// The host-side interface.
    pub interface: String,
    /// Its index; absent while the interface does not exist.
    pub ifindex: Option<u32>,
    /// Whether the interface has a fence.
    pub attached: bool,
    /// Why it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfenced: Option<String>,
    /// Why the fence may not do what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
    /// The mode in force.
    pub mode: ModeName,
    /// Why it is locked down even though its namespace is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<String>,
    /// Its identity.
    pub identity: u32,
    /// Its policy table.
    pub table: u32,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Isolation of its ingress.
    pub ingress: Isolation,
    /// Isolation of its egress.
    pub egress: Isolation,
    /// The policies that select it, `namespace/name`.
    pub policies: Vec<String>,
}

/// An identity: a set of peers that policy cannot tell apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityView {
    /// Its number.
    pub identity: u32,
    /// Its peer class.
    pub class: u32,
    /// `workload`, `host`, `remote-node`, `world`, `cluster` or what a special range is called.
    pub kind: String,
    /// The namespace of workloads.
    pub namespace: Option<String>,
    /// The labels of workloads.
    pub labels: BTreeMap<String, String>,
    /// The service account of workloads.
    pub service_account: Option<String>,
    /// The policy CIDRs that contain its addresses.
    pub cidrs: Vec<String>,
    /// The number of its addresses.
    pub addresses_count: u64,
}

/// A policy in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// `namespace/name`.
    pub policy: String,
    /// Its subject, a label selector; empty selects all.
    pub subject: String,
    /// Ingress rules; absent if it does not isolate ingress.
    pub ingress_rules: Option<u64>,
    /// Egress rules; absent if it does not isolate egress.
    pub egress_rules: Option<u64>,
    /// The number of endpoints of this node that it selects.
    pub endpoints: u64,
    /// Its file.
    pub file: String,
    /// Its line in the file.
    pub line: u32,
    /// Its owner.
    pub owner: Option<String>,
    /// Why it exists.
    pub justification: Option<String>,
    /// The ticket that requested it.
    pub ticket: Option<String>,
    /// The day by which it is due for review.
    pub review_by: Option<String>,
}

/// A rule in force, or a default, with its hits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its rule slot in the kernel.
    pub slot: u32,
    /// The policy, absent for defaults.
    pub policy: Option<String>,
    /// `ingress[0]`, or the name of a default.
    pub rule: String,
    /// `allow` or `deny`.
    pub action: String,
    /// The rule in words.
    pub description: String,
    /// The number of its verdicts.
    pub hits: u64,
    /// The time of its last verdict.
    pub last_hit: Option<Timestamp>,
    /// Its file.
    pub file: Option<String>,
    /// Its line in the file.
    pub line: Option<u32>,
}

/// The source of a namespace's mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModeSource {
    /// The configuration, by name or by default.
    #[default]
    Config,
    /// `mode set` on this node; survives restarts.
    Set,
    /// A floor in the configuration.
    Floor,
    /// The namespace's label.
    Label,
}

/// The mode of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeView {
    /// The namespace.
    pub namespace: String,
    /// Its mode.
    pub mode: ModeName,
    /// The source of the mode.
    pub source: ModeSource,
    /// Why it will not survive a restart; absent if it will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unstored: Option<String>,
}

/// The body of `PUT /v1/modes/{namespace}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetMode {
    /// The wanted mode.
    pub mode: ModeName,
}

/// The body of every error response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error text.
    pub error: String,
}
