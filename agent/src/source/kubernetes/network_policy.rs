//! Converts a `networking.k8s.io/v1` NetworkPolicy to `model::Policy`.
//!
//! Follows the API: the isolated directions are those in `policyTypes`; without it, ingress, and
//! egress if there are egress rules. Missing and empty peers or ports mean all of them. A peer with
//! only a `podSelector` selects pods of the policy's own namespace, `metadata.namespace`. A rule that
//! cannot be read as a whole allows nothing; the direction is isolated all the same.

use super::metadata::{self, Metadata};
use super::node::{Node, Value};
use super::object::Object;
use super::ports;
use super::selector::selector;
use crate::model::{
    LabelSelector, NamespaceMatch, NamespaceName, Origin, Peer, Peers, Policy, PolicyKind, Rule,
    RuleAction, Scope, Window, quote,
};
use crate::source::cidr_block;
use crate::source::document::WarningKind;
use crate::source::limits::{MAX_PEERS, MAX_RULES};

/// Converts an object that is known to be a NetworkPolicy.
pub(super) fn policy(object: &mut Object<'_, '_>, root: &Node<'_>) -> Option<Policy> {
    let names = ["apiVersion", "kind", "metadata", "spec", "status"];
    let [_, _, of_object, spec, _] = object.fields(root, "the object", names)?;
    let metadata = metadata::metadata(object, root, of_object);
    let place = of_object.and_then(|node| node.get("namespace"));
    let namespace = metadata::namespace(object, root, place);
    let Some(spec) = spec else {
        object.refuse(root, "spec is missing: expected a spec with a podSelector");
        return None;
    };
    let names = ["podSelector", "policyTypes", "ingress", "egress"];
    let [pods, types, ingress, egress] = object.fields(spec, "spec", names)?;
    let subject = match pods {
        Some(pods) => selector(object, pods, "podSelector"),
        None => {
            let message = "spec without podSelector: taken as every pod of the namespace";
            object.warn(spec, WarningKind::NoPodSelector, message);
            Some(LabelSelector::everything())
        }
    };
    let isolated = isolated(object, types, egress);
    let ingress = Direction::INGRESS.rules(object, namespace.as_ref(), ingress);
    let egress = Direction::EGRESS.rules(object, namespace.as_ref(), egress);
    let (in_ingress, in_egress) = isolated?;
    let Metadata { name, about, .. } = metadata?;
    Some(Policy {
        kind: PolicyKind::NetworkPolicy,
        name,
        scope: Scope::Namespace(namespace?),
        subject: subject?,
        about,
        ingress: Direction::INGRESS.rules_if_isolated(object, spec, in_ingress, ingress),
        egress: Direction::EGRESS.rules_if_isolated(object, spec, in_egress, egress),
        tests: Vec::new(),
        origin: Origin {
            file: object.document().file().clone(),
            line: object.line(root),
        },
    })
}

/// Which of ingress and egress the policy isolates.
fn isolated(
    object: &mut Object<'_, '_>,
    types: Option<&Node<'_>>,
    egress: Option<&Node<'_>>,
) -> Option<(bool, bool)> {
    let named = match types {
        Some(types) => object.items_up_to(types, "policyTypes", 2)?,
        None => &[],
    };
    if named.is_empty() {
        let has_egress_rules = egress
            .is_some_and(|egress| matches!(&egress.value, Value::List(rules) if !rules.is_empty()));
        return Some((true, has_egress_rules));
    }
    let (mut in_ingress, mut in_egress) = (false, false);
    for node in named {
        match object.text(node, "a policy type")? {
            "Ingress" => in_ingress = true,
            "Egress" => in_egress = true,
            other => {
                let message = format!(
                    "unknown policy type {}: expected Ingress or Egress",
                    quote(other)
                );
                object.refuse(node, message);
                return None;
            }
        }
    }
    Some((in_ingress, in_egress))
}

/// A direction, and the names of its fields in the object and in messages.
struct Direction {
    rules: &'static str,
    rule: &'static str,
    peers: &'static str,
    kind: &'static str,
}

impl Direction {
    const INGRESS: Self = Self {
        rules: "ingress",
        rule: "an ingress rule",
        peers: "from",
        kind: "Ingress",
    };
    const EGRESS: Self = Self {
        rules: "egress",
        rule: "an egress rule",
        peers: "to",
        kind: "Egress",
    };

    fn rules(
        &self,
        object: &mut Object<'_, '_>,
        own: Option<&NamespaceName>,
        node: Option<&Node<'_>>,
    ) -> Vec<Rule> {
        let read = |object: &mut Object<'_, '_>| object.items_up_to(node?, self.rules, MAX_RULES);
        let (items, _) = object.part(read);
        let items = items.unwrap_or_default().iter();
        items
            .filter_map(|item| {
                let (rule, is_whole) = object.part(|object| self.read_rule(object, own, item));
                rule.filter(|_| is_whole)
            })
            .collect()
    }

    fn read_rule(
        &self,
        object: &mut Object<'_, '_>,
        own: Option<&NamespaceName>,
        node: &Node<'_>,
    ) -> Option<Rule> {
        let [peers, ports] = object.fields(node, self.rule, [self.peers, "ports"])?;
        let peers = self.peers(object, own, peers);
        let ports = ports::of_rule(object, ports);
        Some(Rule {
            action: RuleAction::Allow,
            peers: peers?,
            ports: ports?,
            window: Window::default(),
            name: None,
            line: object.line(node),
        })
    }

    fn peers(
        &self,
        object: &mut Object<'_, '_>,
        own: Option<&NamespaceName>,
        node: Option<&Node<'_>>,
    ) -> Option<Peers> {
        let Some(node) = node else {
            return Some(Peers::Any);
        };
        let items = object.items_up_to(node, self.peers, MAX_PEERS)?;
        if items.is_empty() {
            return Some(Peers::Any);
        }
        let peers: Vec<Peer> = items
            .iter()
            .filter_map(|item| peer(object, own, item))
            .collect();
        Some(Peers::Of(peers))
    }

    /// The rules if the policy isolates the direction; otherwise its rules are ignored with a
    /// warning.
    fn rules_if_isolated(
        &self,
        object: &mut Object<'_, '_>,
        spec: &Node<'_>,
        isolated: bool,
        rules: Vec<Rule>,
    ) -> Option<Vec<Rule>> {
        if !isolated && !rules.is_empty() {
            let Self { rules, kind, .. } = self;
            let message = format!("{rules} rules without effect: policyTypes does not name {kind}");
            let place = spec.get(rules).unwrap_or(spec);
            object.warn(place, WarningKind::IgnoredRules, message);
        }
        isolated.then_some(rules)
    }
}

fn peer(object: &mut Object<'_, '_>, own: Option<&NamespaceName>, node: &Node<'_>) -> Option<Peer> {
    let names = ["podSelector", "namespaceSelector", "ipBlock"];
    match object.fields(node, "a peer", names)? {
        [None, None, Some(block)] => ip_block(object, block),
        [_, _, Some(block)] => {
            let message = "ipBlock together with a selector: expected a separate peer for each";
            object.refuse(block, message);
            None
        }
        [None, None, None] => {
            let message = "an empty peer: expected podSelector, namespaceSelector or ipBlock; omit \
                           the peers to match every peer";
            object.refuse(node, message);
            None
        }
        [pods, namespaces, None] => {
            let pods = match pods {
                Some(pods) => Some(selector(object, pods, "podSelector")?),
                None => None,
            };
            let namespaces = match namespaces {
                Some(node) => {
                    NamespaceMatch::Selector(selector(object, node, "namespaceSelector")?)
                }
                None => NamespaceMatch::Own(own?.clone()),
            };
            Some(Peer::Workloads {
                namespaces,
                pods: pods.filter(|pods| !pods.is_everything()),
                service_account: None,
            })
        }
    }
}

fn ip_block(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<Peer> {
    let [cidr, except] = object.fields(node, "ipBlock", ["cidr", "except"])?;
    let Some(cidr) = cidr else {
        object.refuse(
            node,
            "ipBlock without cidr: expected for example cidr: 203.0.113.0/24",
        );
        return None;
    };
    let net = cidr_of(object, cidr)?;
    let mut exceptions = Vec::new();
    if let Some(except) = except {
        for item in object.items_up_to(except, "except", MAX_PEERS)? {
            let exception = cidr_of(object, item)?;
            object.accept(item, cidr_block::check_inside(net, exception))?;
            exceptions.push(exception);
        }
    }
    Some(cidr_block::peer(net, exceptions))
}

/// Reads an address range, masked.
pub(super) fn cidr_of(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<ipnet::IpNet> {
    let text = object.text(node, "an address range")?;
    let (net, had_host_bits) = object.accept(node, crate::source::value::cidr(text))?;
    if had_host_bits {
        let message = format!("{text} has host bits set: taken as {net}");
        object.warn(node, WarningKind::HostBits, message);
    }
    Some(net)
}
