//! The JSON of the control API, shared by the server and the command line.
//!
//! Invariants: keys are snake_case; a field once published keeps its meaning; readers ignore
//! fields they do not know. Names and labels in here are untrusted text: escape them when shown.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::ModeName;

/// The state of the agent as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// This node.
    pub node: String,
    /// Number of the applied state.
    pub revision: u64,
    /// The mode of namespaces that have none of their own.
    pub mode_default: ModeName,
    /// Where metrics and health are served.
    pub metrics_listen: Option<String>,
    /// Whether a first state has been applied.
    pub ready: bool,
    /// Whether every endpoint of every namespace that should enforce is attached and in force.
    pub enforcing: bool,
    /// Workloads of this node.
    pub endpoints: u64,
    /// Those of them whose interface has our programs.
    pub attached: u64,
    /// Workloads known, on any node.
    pub workloads: u64,
    /// Distinct kinds of peers.
    pub identities: u64,
    /// Peer classes.
    pub classes: u64,
    /// Policies in force.
    pub policies: u64,
    /// Their rules.
    pub rules: u64,
    /// Policy tables.
    pub tables: u64,
    /// Rows of all tables.
    pub policy_rows: u64,
    /// Namespaces with their modes.
    pub namespaces: Vec<NamespaceMode>,
    /// Where the desired state comes from.
    pub sources: Vec<SourceStatus>,
    /// What an operator should look at.
    pub warnings: Vec<String>,
    /// The kernel underneath.
    pub kernel: KernelStatus,
    /// Packets dropped, or let pass by observe mode, by reason; reasons without any are absent.
    pub drops: Vec<DropCount>,
    /// Flow records.
    pub events: EventCount,
    /// Seconds since the agent started.
    pub uptime_s: u64,
    /// The last failure to apply a state, until one succeeds.
    pub last_error: Option<String>,
}

/// A namespace and its mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceMode {
    /// The namespace.
    pub name: String,
    /// Its mode.
    pub mode: ModeName,
}

/// How a source is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// Its content is in force.
    #[default]
    Ok,
    /// Its last good content is in force, the present one is refused.
    Error,
}

/// A file or another source of the desired state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `inventory`, `policies` or `config`.
    pub kind: String,
    /// The file.
    pub path: String,
    /// How it is doing.
    pub state: SourceState,
    /// Why it is refused, with file, line and column.
    pub error: Option<String>,
}

/// The kernel underneath.
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
    /// Packets that `observe` let pass.
    pub observed: u64,
}

/// Flow records of the kernel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCount {
    /// Written to the ring.
    pub written: u64,
    /// Lost, because the ring was full or denials could not be aggregated.
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

/// A workload of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// `namespace/name`.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// The host-side interface.
    pub interface: String,
    /// Its number; absent while the interface does not exist.
    pub ifindex: Option<u32>,
    /// Whether our programs are attached to it.
    pub attached: bool,
    /// The mode in force.
    pub mode: ModeName,
    /// Why it is locked down though its namespace is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<String>,
    /// Its identity.
    pub identity: u32,
    /// Its policy table.
    pub table: u32,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Isolation towards it.
    pub ingress: Isolation,
    /// Isolation away from it.
    pub egress: Isolation,
    /// The policies that select it, `namespace/name`.
    pub policies: Vec<String>,
}

/// One distinct kind of peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityView {
    /// Its number.
    pub identity: u32,
    /// Its peer class.
    pub class: u32,
    /// `workload`, `cidr`, `host`, `remote-node`, `world` or `unknown`.
    pub kind: String,
    /// The namespace of workloads.
    pub namespace: Option<String>,
    /// The labels of workloads.
    pub labels: BTreeMap<String, String>,
    /// The service account of workloads.
    pub service_account: Option<String>,
    /// The policy CIDRs it lies in.
    pub cidrs: Vec<String>,
    /// How many addresses have it.
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
    /// Endpoints of this node that it selects.
    pub endpoints: u64,
    /// The file it comes from.
    pub file: String,
    /// Its line there.
    pub line: u32,
    /// Who owns it.
    pub owner: Option<String>,
    /// Why it exists.
    pub justification: Option<String>,
    /// The ticket that asked for it.
    pub ticket: Option<String>,
    /// The day by which someone looks at it again.
    pub review_by: Option<String>,
}

/// A rule in force, or a default, with its use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its number in the kernel.
    pub slot: u32,
    /// The policy, absent for defaults.
    pub policy: Option<String>,
    /// `ingress[0]`, or the name of a default.
    pub rule: String,
    /// `allow` or `deny`.
    pub action: String,
    /// The rule in words.
    pub description: String,
    /// Verdicts it made.
    pub hits: u64,
    /// When it made the last one.
    pub last_hit: Option<Timestamp>,
    /// The file it comes from.
    pub file: Option<String>,
    /// Its line there.
    pub line: Option<u32>,
}

/// Where a namespace has its mode from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModeSource {
    /// The configuration, by name or by default.
    #[default]
    Config,
    /// `mode set`; it outlives restarts.
    Set,
}

/// The mode of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeView {
    /// The namespace.
    pub namespace: String,
    /// Its mode.
    pub mode: ModeName,
    /// Where that comes from.
    pub source: ModeSource,
}

/// The body of `PUT /v1/modes/{namespace}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetMode {
    /// The wanted mode.
    pub mode: ModeName,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: String,
}
