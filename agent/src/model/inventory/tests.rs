//! Every reason to refuse an inventory, with its message.

use super::*;
use crate::model::labels::Labels;
use crate::model::name::ServiceAccountName;

fn namespace(name: &str) -> Namespace {
    Namespace::new(NamespaceName::new(name).unwrap(), Labels::new()).unwrap()
}

fn workload(id: &str, addresses: &[&str], interface: Option<&str>) -> Arc<Workload> {
    Arc::new(Workload {
        id: id.parse().unwrap(),
        labels: Labels::new(),
        service_account: ServiceAccountName::default(),
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        ports: Vec::new(),
        interface: interface.map(str::to_owned),
        recency: None,
    })
}

fn node(name: &str, addresses: &[&str], local: bool) -> NodeEntry {
    NodeEntry {
        name: NodeName::new(name).unwrap(),
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        local,
    }
}

fn refusals(workloads: Vec<Arc<Workload>>, nodes: Vec<NodeEntry>) -> Vec<String> {
    let errors = Inventory::build(vec![namespace("shop")], workloads, nodes).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_consistent_inventory_is_accepted() {
    let inventory = Inventory::build(
        vec![namespace("shop"), namespace("lab")],
        vec![
            workload(
                "shop/a",
                &["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"],
                Some("veth-a"),
            ),
            workload("lab/a", &["10.0.0.9", "fe80::1"], None),
        ],
        vec![
            node("n1", &["10.1.0.1"], true),
            node("n2", &["10.1.0.2"], false),
        ],
    )
    .unwrap();
    assert_eq!(inventory.workloads.len(), 2);
    assert_eq!(inventory.local_node().unwrap().name.as_str(), "n1");
    assert!(
        inventory
            .workload(&"shop/a".parse().unwrap())
            .unwrap()
            .is_endpoint()
    );
}

#[test]
fn an_error_about_a_duplicate_name_identifies_both_items() {
    let errors = Inventory::build(
        vec![namespace("shop"), namespace("shop")],
        vec![workload("shop/a", &[], None), workload("shop/a", &[], None)],
        vec![node("n", &[], false), node("n", &[], false)],
    )
    .unwrap_err();
    assert_eq!(errors.len(), 3);
    assert_eq!(
        (errors[0].item, errors[0].other),
        (Item::Namespace(1), Some(Item::Namespace(0)))
    );
    assert_eq!(
        (errors[1].item, errors[1].other),
        (Item::Workload(1), Some(Item::Workload(0)))
    );
    assert_eq!(
        (errors[2].item, errors[2].other),
        (Item::Node(1), Some(Item::Node(0)))
    );
    assert_eq!(
        errors[1].to_string(),
        "workload shop/a is declared twice: expected one declaration, remove or rename one"
    );
}

#[test]
fn an_address_claimed_twice_is_refused() {
    let two = vec![
        workload("shop/a", &["10.0.0.1"], None),
        workload("shop/b", &["10.0.0.1"], None),
    ];
    assert_eq!(
        refusals(two, vec![node("n", &["10.0.0.1"], false)]),
        [
            "address 10.0.0.1 of workload shop/b is claimed by workload shop/a, too: expected one \
             owner for each address",
            "address 10.0.0.1 of node n is claimed by workload shop/a, too: expected one owner for \
             each address",
        ]
    );
}

#[test]
fn an_address_listed_twice_is_refused() {
    let twice = vec![workload("shop/a", &["10.0.0.1", "10.0.0.1"], None)];
    let message = "address 10.0.0.1 of workload shop/a is listed twice: expected each address once";
    assert_eq!(refusals(twice.clone(), vec![]), [message]);
    let built = Inventory::build_contested(vec![namespace("shop")], twice, vec![]);
    assert_eq!(built.unwrap_err().len(), 1, "it is no dispute");
}

#[test]
fn unusable_addresses_are_refused() {
    for (address, reason) in [
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("255.255.255.255", "broadcast"),
        ("::ffff:10.0.0.1", "an IPv4-mapped IPv6 address"),
    ] {
        let shown: IpAddr = address.parse().unwrap();
        assert_eq!(
            refusals(vec![workload("shop/a", &[address], None)], vec![]),
            [format!(
                "address {shown} of workload shop/a is {reason}: expected a unicast address of its \
                 own"
            )]
        );
    }
}

#[test]
fn a_workload_in_an_unknown_namespace_is_refused() {
    assert_eq!(
        refusals(vec![workload("lab/a", &[], None)], vec![]),
        ["workload lab/a is in the unknown namespace lab: expected a [[namespace]] with that name"]
    );
}

#[test]
fn an_interface_claimed_twice_is_refused() {
    let two = vec![
        workload("shop/a", &[], Some("v")),
        workload("shop/b", &[], Some("v")),
    ];
    assert_eq!(
        refusals(two, vec![]),
        [
            "interface v of workload shop/b already belongs to workload shop/a: expected one \
          workload for each interface"
        ]
    );
}

#[test]
fn a_second_local_node_is_refused() {
    assert_eq!(
        refusals(vec![], vec![node("a", &[], true), node("b", &[], true)]),
        ["nodes a and b are both local: expected at most one local node"]
    );
}

#[test]
fn an_endpoint_with_more_addresses_than_the_kernel_record_holds_is_refused() {
    let four = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
    assert_eq!(
        refusals(vec![workload("shop/a", &four, Some("v"))], vec![]),
        [
            "workload shop/a has 4 IPv4 and 0 IPv6 addresses on its interface: expected at most 3 \
          and 2"
        ]
    );
    let remote = workload("shop/a", &four, None);
    assert!(Inventory::build(vec![namespace("shop")], vec![remote], vec![]).is_ok());
    let three = ["fd00::1", "fd00::2", "fd00::3"];
    assert_eq!(
        refusals(vec![workload("shop/a", &three, Some("v"))], vec![]).len(),
        1
    );
}

#[test]
fn every_address_has_the_owner_that_its_claims_give_it() {
    let workloads = vec![
        workload("shop/a", &["10.0.0.1", "10.0.0.2"], Some("v")),
        workload("shop/b", &["10.0.0.1", "10.0.0.3", "10.0.0.4"], None),
    ];
    let nodes = vec![node("n", &["10.0.0.3", "10.0.0.5"], false)];
    let namespaces = vec![namespace("shop")];
    let (inventory, _) = Inventory::build_contested(namespaces, workloads, nodes).unwrap();
    let owner = |address: &str| match inventory.owners.get(&address.parse::<IpAddr>().unwrap()) {
        Some(Owner::Workload(workload)) => workload.id.to_string(),
        Some(Owner::Node(name)) => name.to_string(),
        None => "no owner".to_owned(),
    };
    let owners = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"].map(owner);
    assert_eq!(owners, ["shop/a", "shop/a", "no owner", "shop/b", "n"]);
    assert_eq!(inventory.owners.len(), 4);
}
