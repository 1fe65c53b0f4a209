//! Peers of a ClusterNetworkPolicy rule, and which of them are unsupported.

use super::network_policy::cidr_of;
use super::node::Node;
use super::object::Object;
use super::selector::selector;
use crate::model::{Entity, LabelSelector, NamespaceMatch, Peer};
use crate::source::cidr_block;
use crate::source::limits::MAX_CLUSTER_ITEMS;

/// The peers of a rule that can be read.
pub(super) struct RulePeers<'n> {
    /// The peers, or the first unsupported one. Empty if none of them can be read.
    pub(super) outcome: Result<Vec<Peer>, UnsupportedPeer<'n>>,
    /// The field of a peer among them that cannot be combined with named ports.
    pub(super) without_named_ports: Option<&'static str>,
}

/// A peer that this version does not support, so that its rule fails closed.
pub(super) struct UnsupportedPeer<'n> {
    pub(super) place: &'n Node<'n>,
    pub(super) reason: &'static str,
}

/// One item of `from` or `to`, with its field if that one cannot be combined with named ports.
enum PeerItem<'n> {
    Peers(Vec<Peer>, Option<&'static str>),
    Unsupported(UnsupportedPeer<'n>, Option<&'static str>),
}

/// Reads `from` or `to`.
pub(super) fn peers<'n>(
    object: &mut Object<'_, '_>,
    node: &'n Node<'n>,
    key: &str,
) -> Option<RulePeers<'n>> {
    let items = object.items_up_to(node, key, MAX_CLUSTER_ITEMS)?;
    if items.is_empty() {
        object.refuse(node, format!("{key} is empty: expected at least one peer"));
        return None;
    }
    let (mut peers, mut unsupported, mut without_named_ports) = (Vec::new(), None, None);
    for item in items {
        // What can be read of a peer counts: of a rule that is not whole, only what it denies does.
        let (read, _) = object.part(|object| match key {
            "from" => ingress_peer(object, item),
            _ => egress_peer(object, item),
        });
        match read {
            Some(PeerItem::Peers(more, field)) => {
                peers.extend(more);
                without_named_ports = without_named_ports.or(field);
            }
            Some(PeerItem::Unsupported(peer, field)) => {
                unsupported = unsupported.or(Some(peer));
                without_named_ports = without_named_ports.or(field);
            }
            None => {}
        }
    }
    Some(RulePeers {
        outcome: unsupported.map_or(Ok(peers), Err),
        without_named_ports,
    })
}

fn ingress_peer<'n>(object: &mut Object<'_, '_>, node: &'n Node<'n>) -> Option<PeerItem<'n>> {
    match object.fields(node, "a cluster policy's peer", ["namespaces", "pods"])? {
        [None, None] => Some(empty(node)),
        [Some(namespaces), None] => of_namespaces(object, namespaces),
        [None, Some(pods)] => of_pods(object, pods),
        [Some(_), Some(_)] => refuse_several_fields(object, node),
    }
}

fn egress_peer<'n>(object: &mut Object<'_, '_>, node: &'n Node<'n>) -> Option<PeerItem<'n>> {
    let names = ["namespaces", "pods", "nodes", "networks", "domainNames"];
    match object.fields(node, "a cluster policy's egress peer", names)? {
        [None, None, None, None, None] => Some(empty(node)),
        [Some(namespaces), None, None, None, None] => of_namespaces(object, namespaces),
        [None, Some(pods), None, None, None] => of_pods(object, pods),
        [None, None, Some(nodes), None, None] => of_nodes(object, nodes),
        [None, None, None, Some(networks), None] => of_networks(object, networks),
        [None, None, None, None, Some(domains)] => of_domains(object, domains),
        _ => refuse_several_fields(object, node),
    }
}

fn empty<'n>(place: &'n Node<'n>) -> PeerItem<'n> {
    let reason = "an empty peer, or one that this version does not support";
    PeerItem::Unsupported(UnsupportedPeer { place, reason }, None)
}

fn refuse_several_fields<'n>(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<PeerItem<'n>> {
    object.refuse(
        node,
        "a peer with several fields: expected a separate peer for each",
    );
    None
}

fn workloads(namespaces: LabelSelector, pods: LabelSelector) -> PeerItem<'static> {
    let peer = Peer::Workloads {
        namespaces: NamespaceMatch::Selector(namespaces),
        pods: Some(pods).filter(|pods| !pods.is_everything()),
        service_account: None,
    };
    PeerItem::Peers(vec![peer], None)
}

fn of_namespaces<'n>(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<PeerItem<'n>> {
    let namespaces = selector(object, node, "a cluster policy's namespaces")?;
    Some(workloads(namespaces, LabelSelector::everything()))
}

fn of_pods<'n>(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<PeerItem<'n>> {
    let (namespaces, pods) = namespaced_pods(object, node)?;
    Some(workloads(namespaces, pods))
}

/// Reads `pods`: the selector of namespaces (all if omitted) and of pods in them.
pub(super) fn namespaced_pods(
    object: &mut Object<'_, '_>,
    node: &Node<'_>,
) -> Option<(LabelSelector, LabelSelector)> {
    let names = ["namespaceSelector", "podSelector"];
    let [namespaces, pods] = object.fields(node, "pods", names)?;
    let namespaces = match namespaces {
        Some(namespaces) => selector(object, namespaces, "namespaceSelector"),
        None => Some(LabelSelector::everything()),
    };
    let Some(pods) = pods else {
        let message = "pods without podSelector: expected one, {} for every pod";
        object.refuse(node, message);
        return None;
    };
    let pods = selector(object, pods, "podSelector");
    Some((namespaces?, pods?))
}

fn of_nodes<'n>(object: &mut Object<'_, '_>, node: &'n Node<'n>) -> Option<PeerItem<'n>> {
    let nodes = selector(object, node, "a cluster policy's nodes")?;
    if nodes.is_everything() {
        let all = [Entity::Host, Entity::RemoteNode].map(Peer::Entity);
        return Some(PeerItem::Peers(all.into(), Some("nodes")));
    }
    let reason = "nodes selected by labels, which this version does not support";
    Some(PeerItem::Unsupported(
        UnsupportedPeer {
            place: node,
            reason,
        },
        Some("nodes"),
    ))
}

fn of_networks<'n>(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<PeerItem<'n>> {
    let items = some_items(object, node, "networks")?;
    let nets: Vec<_> = items
        .iter()
        .filter_map(|item| cidr_of(object, item))
        .collect();
    let peers = nets
        .into_iter()
        .map(|net| cidr_block::peer(net, Vec::new()));
    Some(PeerItem::Peers(peers.collect(), Some("networks")))
}

fn of_domains<'n>(object: &mut Object<'_, '_>, node: &'n Node<'n>) -> Option<PeerItem<'n>> {
    for item in some_items(object, node, "domainNames")? {
        object.text(item, "a domain name")?;
    }
    let reason = "domainNames, which this version does not support";
    Some(PeerItem::Unsupported(
        UnsupportedPeer {
            place: node,
            reason,
        },
        Some("domainNames"),
    ))
}

fn some_items<'n>(
    object: &mut Object<'_, '_>,
    node: &'n Node<'n>,
    what: &str,
) -> Option<&'n [Node<'n>]> {
    let items = object.items_up_to(node, what, MAX_CLUSTER_ITEMS)?;
    if items.is_empty() {
        object.refuse(node, format!("{what} is empty: expected at least one"));
        return None;
    }
    Some(items)
}
