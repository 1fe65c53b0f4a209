//! The agent's state in the form that the control API and the health listener return.
//!
//! Invariant: a view changes nothing, and the policy state that it shows is of one moment.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use jiff::Timestamp;
use ringfence_common::ids::{IdentityId, RuleSlot};

use super::{
    explain,
    flow_names::kind_name,
    modes::kernel_mode,
    not_in_force,
    shared_state::{Applied, SharedState},
    state_sizes::sizes,
    status_view,
};
use crate::{
    model::{EndpointId, Entity, ModeName, NamespaceMatch, Peer, Peers, Ports, Rule, Workload},
    observe::{KernelTotals, LossStage},
    policy::{Explanation, Fence, Query, QueryError, RuleInfo, locked_by},
    reconcile::Presence,
    server::{
        Health, Views,
        view::{EndpointView, IdentityView, Isolation, ModeView, PolicyView, RuleView, Status},
    },
};

impl Views for SharedState {
    fn status(&self) -> Status {
        status_view::status(self)
    }

    fn endpoints(&self) -> Vec<EndpointView> {
        let applied = self.shown();
        let local = applied
            .inventory
            .workloads
            .values()
            .filter(|w| w.is_endpoint());
        local.map(|workload| endpoint(&applied, workload)).collect()
    }

    fn identities(&self) -> Vec<IdentityView> {
        let applied = self.shown();
        let Some(published) = &applied.published else {
            return Vec::new();
        };
        let compiled = &published.compiled;
        let mut owned: HashMap<IdentityId, u64> = HashMap::new();
        for identity in compiled.state.addresses.values() {
            *owned.entry(*identity).or_default() += 1;
        }
        let mut views: Vec<IdentityView> = compiled
            .identities
            .iter()
            .map(|(id, identity)| {
                let workload = identity.workload();
                let labels = workload.map(|w| {
                    w.labels
                        .iter()
                        .map(|(k, v)| (k.to_owned(), v.to_owned()))
                        .collect()
                });
                IdentityView {
                    identity: id.0,
                    class: compiled.state.classes.get(id).map_or(0, |class| class.0),
                    kind: kind_name(identity).into(),
                    namespace: workload.map(|w| w.namespace.to_string()),
                    labels: labels.unwrap_or_default(),
                    service_account: workload
                        .and_then(|w| w.service_account.as_ref())
                        .map(ToString::to_string),
                    cidrs: identity.cidrs.iter().map(ToString::to_string).collect(),
                    addresses_count: owned.get(id).copied().unwrap_or(0),
                }
            })
            .collect();
        views.sort_by_key(|view| view.identity);
        views
    }

    fn policies(&self) -> Vec<PolicyView> {
        let applied = self.shown();
        let published = applied.published.as_ref();
        let selected = |id: &crate::model::PolicyId| {
            published.map_or(0, |p| {
                count(
                    p.compiled
                        .endpoints
                        .values()
                        .filter(|e| e.policies.contains(id))
                        .count(),
                )
            })
        };
        let rules = |rules: &Option<Vec<Rule>>| rules.as_ref().map(|rules| count(rules.len()));
        let in_force = applied.policies_in_force();
        let policies = in_force.policies.iter();
        policies
            .map(|(id, policy)| PolicyView {
                policy: id.to_string(),
                subject: policy.subject.to_string(),
                ingress_rules: rules(&policy.ingress),
                egress_rules: rules(&policy.egress),
                endpoints: selected(id),
                file: policy.origin.file.to_string(),
                line: policy.origin.line,
                owner: policy.about.owner.clone(),
                justification: policy.about.justification.clone(),
                ticket: policy.about.ticket.clone(),
                review_by: policy.about.review_by.clone(),
            })
            .collect()
    }

    fn rules(&self) -> Vec<RuleView> {
        let applied = self.shown();
        let wall_minus_ticks = applied.wall_minus_ticks;
        let rules = applied.published.as_ref().map(|p| &p.compiled.rules);
        let reserved = (1..RuleSlot::FIRST_FREE.0)
            .map(RuleSlot)
            .filter_map(|slot| {
                let name = slot.reserved_name().filter(|name| *name != "reserved")?;
                let view = RuleView {
                    slot: slot.0,
                    rule: name.into(),
                    ..RuleView::default()
                };
                Some(view)
            });
        let mut views: Vec<RuleView> = reserved
            .chain(
                rules
                    .into_iter()
                    .flatten()
                    .map(|(slot, info)| rule(*slot, info)),
            )
            .collect();
        for view in &mut views {
            if let Ok(hit) = self.readings.rule_hits(RuleSlot(view.slot)) {
                view.hits = hit.hits;
                let wall = i128::from(hit.last) + wall_minus_ticks;
                view.last_hit = (hit.hits > 0)
                    .then(|| Timestamp::from_nanosecond(wall).ok())
                    .flatten();
            }
        }
        views
    }

    fn modes(&self) -> Vec<ModeView> {
        let applied = self.shown();
        let all = applied.inventory.namespaces.keys().map(|name| {
            let (mode, source) = applied.modes.of(name);
            ModeView {
                namespace: name.to_string(),
                mode,
                source,
                unstored: applied
                    .modes
                    .is_unstored(name)
                    .then(|| applied.modes.unstored_text(name)),
            }
        });
        all.collect()
    }

    fn explain(&self, query: &Query, all: bool) -> Result<Explanation, QueryError> {
        explain::in_force(self, query, all)
    }
}

impl Health for SharedState {
    fn metrics(&self) -> String {
        let counters = self.counters();
        self.metrics.set_kernel(KernelTotals {
            drops: counters.drops,
            events_lost: counters.events_lost,
            denies_lost: self.denies_lost(),
            rejects: [
                ("sent", counters.rejects_sent),
                ("rate-limited", counters.rejects_limited),
                ("failed", counters.rejects_failed),
            ],
            forgotten: [
                ("replaced", counters.flows_recycled),
                ("not-stored", counters.flows_not_stored),
            ],
            records_recycled: counters.records_recycled,
            discovery_passed: counters.discovery_passed,
            maps: self.map_sizes(),
        });
        self.metrics.set_state(sizes(&self.shown()));
        let lost = self.history.lost();
        self.metrics.set_lost(LossStage::Follower, lost);
        self.metrics.encode()
    }

    fn ready(&self) -> Result<(), String> {
        not_in_force::readiness(&self.shown().not_in_force())
    }
}

impl SharedState {
    /// Entries and capacities of the control maps, as this agent wrote them, and of the assured
    /// conntrack entries (IPv4 and IPv6 together) at the last sweep.
    fn map_sizes(&self) -> Vec<(&'static str, u64, u64)> {
        use ringfence_common::maps as names;
        let applied = self.shown();
        let Some(published) = &applied.published else {
            return Vec::new();
        };
        let state = &published.compiled.state;
        let lowest = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let v6 = state.addresses.len() - state.addresses.count_below(&lowest);
        let set = &self.config.maps;
        let or = |value: Option<u32>, default: u32| u64::from(value.unwrap_or(default));
        let ipcache = or(set.ipcache, names::IPCACHE_CAPACITY);
        vec![
            (
                names::ENDPOINTS,
                count(state.endpoints.len()),
                or(set.endpoints, names::ENDPOINTS_CAPACITY),
            ),
            (names::IPCACHE4, count(state.addresses.len() - v6), ipcache),
            (names::IPCACHE6, count(v6), ipcache),
            (
                "CT",
                self.assured(),
                2 * or(set.conntrack, names::CONNTRACK_CAPACITY),
            ),
            (
                names::POLICY,
                count(state.rows()),
                or(set.policy, names::POLICY_CAPACITY),
            ),
            (
                names::CLASSES,
                count(state.classes.len()),
                u64::from(names::IDENTITIES),
            ),
        ]
    }
}

pub(super) fn count(n: usize) -> u64 {
    n as u64
}

fn endpoint(applied: &Applied, workload: &Workload) -> EndpointView {
    let interface = workload.interface.clone().unwrap_or_default();
    let presence = applied.presences.get(&workload.id);
    let ifindex = presence.and_then(|it| it.ifindices.first().copied());
    let published = applied.published.as_ref();
    let id = EndpointId::of(workload.id.clone());
    let info = published.and_then(|it| it.compiled.endpoints.get(&id));
    let isolation = |fence: Option<&Fence>| match fence {
        Some(fence) if fence.isolated => Isolation::Isolated,
        _ => Isolation::Open,
    };
    let mode = applied.modes.of(&workload.id.namespace).0;
    let locked = locked_by(
        applied.locked_in_force(),
        &applied.inventory,
        workload,
        kernel_mode(mode),
    );
    EndpointView {
        workload: workload.id.to_string(),
        namespace: workload.id.namespace.to_string(),
        interface,
        ifindex,
        attached: presence.is_some_and(Presence::is_fenced),
        unfenced: presence.and_then(Presence::why_unfenced),
        degraded: presence.and_then(|it| it.degraded.as_ref().map(ToString::to_string)),
        mode: locked.map_or(mode, |_| ModeName::Lockdown),
        locked: locked.map(ToString::to_string),
        identity: info.map_or(0, |info| info.identity.0),
        table: info.map_or(0, |info| info.table.0),
        addresses: workload.addresses.iter().map(ToString::to_string).collect(),
        ingress: isolation(info.map(|info| &info.spec.ingress)),
        egress: isolation(info.map(|info| &info.spec.egress)),
        policies: info
            .map(|info| info.policies.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
    }
}

fn rule(slot: RuleSlot, info: &RuleInfo) -> RuleView {
    RuleView {
        slot: slot.0,
        policy: Some(info.policy.id().to_string()),
        rule: info.name(),
        action: info.action.to_string(),
        description: describe(info),
        file: Some(info.policy.origin.file.to_string()),
        line: Some(info.line),
        ..RuleView::default()
    }
}

/// A rule in one line: its peers and ports.
fn describe(info: &RuleInfo) -> String {
    let rules = match info.direction {
        ringfence_common::mode::Direction::Ingress => &info.policy.ingress,
        ringfence_common::mode::Direction::Egress => &info.policy.egress,
    };
    let Some(rule) = rules.as_ref().and_then(|rules| rules.get(info.index)) else {
        return String::new();
    };
    let peers = match &rule.peers {
        Peers::Any => "any peer".to_owned(),
        Peers::NoPeer => "no peer".to_owned(),
        Peers::Of(peers) => peers.iter().map(peer).collect::<Vec<_>>().join(" or "),
    };
    let ports = match &rule.ports {
        Ports::Any => "every port".to_owned(),
        Ports::Of(ports) => ports
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    format!("{peers}: {ports}")
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Workloads {
            namespaces,
            pods,
            service_account,
        } => {
            let mut parts = vec![match namespaces {
                NamespaceMatch::Own(name) => format!("namespace {name}"),
                NamespaceMatch::Selector(selector) if selector.is_everything() => {
                    "every namespace".to_owned()
                }
                NamespaceMatch::Selector(selector) => format!("namespaces {selector}"),
            }];
            parts.extend(pods.as_ref().map(|pods| format!("pods {pods}")));
            parts.extend(
                service_account
                    .as_ref()
                    .map(|name| format!("service account {name}")),
            );
            parts.join(" ")
        }
        Peer::Cidr { net, except } if except.is_empty() => net.to_string(),
        Peer::Cidr { net, except } => {
            let except: Vec<String> = except.iter().map(ToString::to_string).collect();
            format!("{net} except {}", except.join(", "))
        }
        Peer::Entity(entity @ (Entity::World | Entity::Host | Entity::RemoteNode)) => {
            entity.to_string()
        }
    }
}
