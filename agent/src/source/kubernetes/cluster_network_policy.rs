//! Converts a `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy to `model::Policy`.
//!
//! A rule with an unsupported peer (or with `{}`, which is what a peer of a newer API may look like
//! to this version) fails closed: an Accept rule matches nothing, a Deny or Pass rule denies
//! everything. Unknown *fields* are refused as in all objects. What is left of a rule that cannot be read
//! as a whole is at most a denial: of the peers that can be read, on every port if some cannot.

use super::cluster_peers::{self, UnsupportedPeer};
use super::metadata::{self, Metadata};
use super::node::Node;
use super::object::Object;
use super::ports;
use super::selector::selector;
use crate::model::{
    LabelSelector, Origin, Peers, Policy, PolicyKind, Ports, Priority, Rule, RuleAction, Scope,
    Tier, Window, quote,
};
use crate::source::document::WarningKind;
use crate::source::limits::MAX_CLUSTER_ITEMS;
use crate::source::value;

/// Converts an object that is known to be a ClusterNetworkPolicy.
pub(super) fn policy(object: &mut Object<'_, '_>, root: &Node<'_>) -> Option<Policy> {
    let names = ["apiVersion", "kind", "metadata", "spec", "status"];
    let [_, _, of_object, spec, _] = object.fields(root, "the object", names)?;
    let metadata = metadata::metadata(object, root, of_object);
    if let Some(namespace) = metadata.as_ref().and_then(|read| read.namespace) {
        let message = "metadata.namespace on a cluster policy: expected none";
        object.refuse(namespace, message);
    }
    let Some(spec) = spec else {
        object.refuse(
            root,
            "spec is missing: expected tier, priority, subject and rules",
        );
        return None;
    };
    let names = ["tier", "priority", "subject", "ingress", "egress"];
    let [tier, priority, subject, ingress, egress] =
        object.fields(spec, "a cluster policy's spec", names)?;
    let tier = require(object, spec, tier, "tier: Admin or tier: Baseline")
        .and_then(|node| tier_of(object, node));
    let priority = require(
        object,
        spec,
        priority,
        "priority: 0 to 1000, lower is evaluated first",
    )
    .and_then(|node| {
        let number = object.integer(node, "priority")?;
        object.accept(node, Priority::new(number))
    });
    let subject = require(
        object,
        spec,
        subject,
        "subject: {namespaces: …} or {pods: …}",
    )
    .and_then(|node| subject_of(object, node));
    let ingress = Direction::Ingress.rules(object, ingress);
    let egress = Direction::Egress.rules(object, egress);
    let (namespaces, subject) = subject?;
    let Metadata { name, about, .. } = metadata?;
    Some(Policy {
        kind: PolicyKind::ClusterNetworkPolicy,
        name,
        scope: Scope::Cluster {
            tier: tier?,
            priority: priority?,
            namespaces,
        },
        subject,
        about,
        ingress,
        egress,
        tests: Vec::new(),
        origin: Origin {
            file: object.document().file().clone(),
            line: object.line(root),
        },
    })
}

fn require<'n>(
    object: &mut Object<'_, '_>,
    parent: &Node<'_>,
    node: Option<&'n Node<'n>>,
    expected: &str,
) -> Option<&'n Node<'n>> {
    if node.is_none() {
        object.refuse(
            parent,
            format!("a required field is missing: expected {expected}"),
        );
    }
    node
}

fn tier_of(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<Tier> {
    match object.text(node, "tier")? {
        "Admin" => Some(Tier::Admin),
        "Baseline" => Some(Tier::Baseline),
        other => {
            let message = format!("unknown tier {}: expected Admin or Baseline", quote(other));
            object.refuse(node, message);
            None
        }
    }
}

/// The selectors of the subjects' namespaces and of the workloads in them.
pub(super) fn subject_of(
    object: &mut Object<'_, '_>,
    node: &Node<'_>,
) -> Option<(LabelSelector, LabelSelector)> {
    match object.fields(node, "a cluster policy's subject", ["namespaces", "pods"])? {
        [Some(namespaces), None] => {
            let namespaces = selector(object, namespaces, "a cluster policy's namespaces")?;
            Some((namespaces, LabelSelector::everything()))
        }
        [None, Some(pods)] => cluster_peers::namespaced_pods(object, pods),
        _ => {
            object.refuse(node, "subject: expected exactly one of namespaces and pods");
            None
        }
    }
}

/// The direction of a list of rules.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    /// Reads the rules; `None` if there are none, so that the policy does not apply to the
    /// direction.
    fn rules(self, object: &mut Object<'_, '_>, node: Option<&Node<'_>>) -> Option<Vec<Rule>> {
        let what = match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        };
        let node = node?;
        // Without its list, what the policy denies is not known: it cannot be used at all.
        let items = object.items_up_to(node, what, MAX_CLUSTER_ITEMS)?;
        let rules: Vec<Rule> = items
            .iter()
            .filter_map(|item| {
                let (rule, is_whole) = object.part(|object| self.rule(object, item));
                rule.map(|rule| if is_whole { rule } else { remnant(rule) })
            })
            .collect();
        Some(rules).filter(|rules| !rules.is_empty())
    }

    /// What of a rule can be read.
    fn rule(self, object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<Rule> {
        let (what, key) = match self {
            Self::Ingress => ("a cluster policy's ingress rule", "from"),
            Self::Egress => ("a cluster policy's egress rule", "to"),
        };
        let [name, action, peers, protocols] =
            object.fields(node, what, ["name", "action", key, "protocols"])?;
        let name = match name {
            Some(name) => {
                let text = object.text(name, "name");
                let checked = text.map(value::rule_name);
                checked.and_then(|checked| object.accept(name, checked))
            }
            None => None,
        };
        let action = require(object, node, action, "action: Accept, Deny or Pass")
            .and_then(|node| action_of(object, node));
        let expected = format!("{key}: with at least one peer");
        let peers = require(object, node, peers, &expected)
            .and_then(|peers| cluster_peers::peers(object, peers, key));
        let (ports, is_whole) = object.part(|object| ports::of_cluster_rule(object, protocols));
        let (ports, named) = ports.filter(|_| is_whole).unwrap_or((Ports::Any, None));
        let (action, peers) = (action?, peers?);
        if let (Some(named), Some(field)) = (named, peers.without_named_ports) {
            let message = format!(
                "destinationNamedPort together with {field}, which declare no ports: expected a \
                 separate rule for each"
            );
            object.refuse(named, message);
        }
        let (action, peers, ports) = match peers.outcome {
            Ok(peers) if peers.is_empty() => (action, Peers::NoPeer, ports),
            Ok(peers) => (action, Peers::Of(peers), ports),
            Err(peer) => fail_closed(object, action, name.as_deref(), ports, &peer),
        };
        Some(Rule {
            action,
            peers,
            ports,
            window: Window::default(),
            name,
            line: object.line(node),
        })
    }
}

fn action_of(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<RuleAction> {
    match object.text(node, "action")? {
        "Accept" => Some(RuleAction::Allow),
        "Deny" => Some(RuleAction::Deny),
        "Pass" => Some(RuleAction::Pass),
        other => {
            let expected = match other {
                "Allow" => "Accept",
                _ => "Accept, Deny or Pass",
            };
            let message = format!("unknown action {}: expected {expected}", quote(other));
            object.refuse(node, message);
            None
        }
    }
}

/// What is left of a rule that cannot be read as a whole.
fn remnant(rule: Rule) -> Rule {
    let (action, peers) = match rule.action {
        RuleAction::Allow => (RuleAction::Allow, Peers::NoPeer),
        RuleAction::Deny | RuleAction::Pass | RuleAction::Reject => (RuleAction::Deny, rule.peers),
    };
    Rule {
        action,
        peers,
        ..rule
    }
}

/// What a rule with an unsupported peer is replaced by.
fn fail_closed(
    object: &mut Object<'_, '_>,
    action: RuleAction,
    name: Option<&str>,
    ports: Ports,
    peer: &UnsupportedPeer<'_>,
) -> (RuleAction, Peers, Ports) {
    let rule = name.map_or_else(
        || "the rule".to_owned(),
        |name| format!("rule {}", quote(name)),
    );
    let (outcome, replacement) = if action == RuleAction::Allow {
        let replacement = (action, Peers::NoPeer, ports);
        ("matches nothing", replacement)
    } else {
        let replacement = (RuleAction::Deny, Peers::Any, Ports::Any);
        ("denies everything", replacement)
    };
    let reason = peer.reason;
    let message = format!("{reason}: {rule} {outcome}");
    object.warn(peer.place, WarningKind::FailsClosed, message);
    replacement
}
