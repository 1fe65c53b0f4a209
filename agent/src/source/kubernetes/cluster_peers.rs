//! Peers of a ClusterNetworkPolicy rule, and which of them cannot be told.

use super::network_policy::cidr_of;
use super::node::Node;
use super::object::Object;
use super::selector::selector;
use crate::model::{Entity, LabelSelector, NamespaceMatch, Peer};
use crate::source::cidr_block;
use crate::source::limits::MAX_CLUSTER_ITEMS;

/// The peers of a rule.
pub(super) struct ReadPeers<'n> {
    /// The peers, or the first one that cannot be told.
    pub(super) outcome: Result<Vec<Peer>, Fails<'n>>,
    /// The name of a kind of peer among them that declares no ports.
    pub(super) without_named_ports: Option<&'static str>,
}

/// A peer that this version cannot tell, so that its rule fails closed.
pub(super) struct Fails<'n> {
    pub(super) place: &'n Node<'n>,
    pub(super) why: &'static str,
}

/// What one item of `from` or `to` comes to.
enum Read<'n> {
    Peers(Vec<Peer>, Option<&'static str>),
    Fails(Fails<'n>, Option<&'static str>),
}

/// Reads `from` or `to`.
pub(super) fn peers<'n>(
    object: &mut Object<'_, '_>,
    node: &'n Node<'n>,
    key: &str,
) -> Option<ReadPeers<'n>> {
    let items = object.items_up_to(node, key, MAX_CLUSTER_ITEMS)?;
    if items.is_empty() {
        object.refuse(node, format!("{key} is empty: expected at least one peer"));
        return None;
    }
    let (mut peers, mut fails, mut without_named_ports) = (Vec::new(), None, None);
    let mut sound = true;
    for item in items {
        let read = match key {
            "from" => ingress_peer(object, item),
            _ => egress_peer(object, item),
        };
        match read {
            Some(Read::Peers(more, kind)) => {
                peers.extend(more);
                without_named_ports = without_named_ports.or(kind);
            }
            Some(Read::Fails(why, kind)) => {
                fails = fails.or(Some(why));
                without_named_ports = without_named_ports.or(kind);
            }
            None => sound = false,
        }
    }
    sound.then_some(ReadPeers {
        outcome: fails.map_or(Ok(peers), Err),
        without_named_ports,
    })
}

fn ingress_peer<'n>(object: &mut Object<'_, '_>, node: &'n Node<'n>) -> Option<Read<'n>> {
    match object.fields(node, "a cluster policy's peer", ["namespaces", "pods"])? {
        [None, None] => Some(empty(node)),
        [Some(namespaces), None] => of_namespaces(object, namespaces),
        [None, Some(pods)] => of_pods(object, pods),
        [Some(_), Some(_)] => refuse_two(object, node),
    }
}

fn egress_peer<'n>(object: &mut Object<'_, '_>, node: &'n Node<'n>) -> Option<Read<'n>> {
    let names = ["namespaces", "pods", "nodes", "networks", "domainNames"];
    match object.fields(node, "a cluster policy's peer of egress", names)? {
        [None, None, None, None, None] => Some(empty(node)),
        [Some(namespaces), None, None, None, None] => of_namespaces(object, namespaces),
        [None, Some(pods), None, None, None] => of_pods(object, pods),
        [None, None, Some(nodes), None, None] => of_nodes(object, nodes),
        [None, None, None, Some(networks), None] => of_networks(object, networks),
        [None, None, None, None, Some(domains)] => of_domains(object, domains),
        _ => refuse_two(object, node),
    }
}

fn empty<'n>(place: &'n Node<'n>) -> Read<'n> {
    let why = "an empty peer, or one of a kind this version does not know";
    Read::Fails(Fails { place, why }, None)
}

fn refuse_two<'n>(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<Read<'n>> {
    object.refuse(
        node,
        "a peer of several kinds: expected a peer of its own for each",
    );
    None
}

fn workloads(namespaces: LabelSelector, pods: LabelSelector) -> Read<'static> {
    let peer = Peer::Workloads {
        namespaces: NamespaceMatch::Selector(namespaces),
        pods: Some(pods).filter(|pods| !pods.is_everything()),
        service_account: None,
    };
    Read::Peers(vec![peer], None)
}

fn of_namespaces<'n>(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<Read<'n>> {
    let namespaces = selector(object, node, "a cluster policy's namespaces")?;
    Some(workloads(namespaces, LabelSelector::everything()))
}

fn of_pods<'n>(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<Read<'n>> {
    let (namespaces, pods) = namespaced_pods(object, node)?;
    Some(workloads(namespaces, pods))
}

/// Reads `pods`: the selectors of namespaces, all if omitted, and of pods in them.
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

fn of_nodes<'n>(object: &mut Object<'_, '_>, node: &'n Node<'n>) -> Option<Read<'n>> {
    let nodes = selector(object, node, "a cluster policy's nodes")?;
    if nodes.is_everything() {
        let all = [Entity::Host, Entity::RemoteNode].map(Peer::Entity);
        return Some(Read::Peers(all.into(), Some("nodes")));
    }
    let why = "nodes by their labels, which this version does not know";
    Some(Read::Fails(Fails { place: node, why }, Some("nodes")))
}

fn of_networks<'n>(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<Read<'n>> {
    let items = some_items(object, node, "networks")?;
    let nets: Vec<_> = items
        .iter()
        .filter_map(|item| cidr_of(object, item))
        .collect();
    let peers = nets
        .into_iter()
        .map(|net| cidr_block::peer(net, Vec::new()));
    Some(Read::Peers(peers.collect(), Some("networks")))
}

fn of_domains<'n>(object: &mut Object<'_, '_>, node: &'n Node<'n>) -> Option<Read<'n>> {
    for item in some_items(object, node, "domainNames")? {
        object.text(item, "a domain name")?;
    }
    let why = "domainNames, which this version does not follow";
    Some(Read::Fails(Fails { place: node, why }, Some("domainNames")))
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
