//! The measured setup: two local workloads, a number of remote peers, and policies for them.
//!
//! Both local workloads may exchange the measured traffic with every peer, and nothing else: each
//! peer is in both directions of both. The peers have up to five hundred distinct label sets in ten
//! namespaces. All fences are built from the same addresses and ports.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_testbed::{Addresses, Attributes, Node, Workload};

/// The namespace of the workloads whose policy is enforced.
pub(crate) const ENFORCED: &str = "enforced";
/// The namespace of the workloads in observe mode.
pub(crate) const OBSERVED: &str = "observed";

/// UDP and TCP ports that policy allows: the first and the last.
pub(crate) const PORTS: (u16, u16) = (9000, 9015);
/// A port that policy denies.
pub(crate) const FORBIDDEN: u16 = 9100;

const NAMESPACES: u32 = 10;
const APPLICATIONS: u32 = 50;
const REMOTE: Addresses = Addresses {
    ip4: Ipv4Addr::new(10, 128, 0, 0),
    ip6: Ipv6Addr::new(0xfd00, 128, 0, 0, 0, 0, 0, 0),
};

/// The addresses of a peer.
pub(crate) fn peer(number: u32) -> Addresses {
    Addresses {
        ip4: Ipv4Addr::from_bits(REMOTE.ip4.to_bits() + number),
        ip6: Ipv6Addr::from_bits(REMOTE.ip6.to_bits() + u128::from(number)),
    }
}

/// The addresses of all peers and of the local workloads, which are peers of each other. Those are
/// in the middle, so that a linear search finds them after half of the list.
pub(crate) fn addresses(peers: u32, local: &[&Workload]) -> Vec<Addresses> {
    let own = local.iter().map(|workload| Addresses {
        ip4: workload.ip4,
        ip6: workload.ip6,
    });
    let (before, after) = ((0..peers / 2).map(peer), (peers / 2..peers).map(peer));
    before.chain(own).chain(after).collect()
}

/// The inventory of a node with these local workloads.
pub(crate) fn inventory(node: &Node, local: &[&Workload], peers: u32) -> String {
    let mut inventory = node
        .inventory()
        .namespace(ENFORCED, &[("env", "prod")])
        .namespace(OBSERVED, &[("env", "prod")]);
    for workload in local {
        let attributes = Attributes::labels(&[("app", "local"), ("role", "peer")]);
        inventory = inventory.local(workload, &attributes.service_account("local"));
    }
    for number in 0..NAMESPACES {
        let env = if number % 2 == 0 { "prod" } else { "test" };
        inventory = inventory.namespace(&format!("ns-{number}"), &[("env", env)]);
    }
    for number in 0..peers {
        let app = format!("app-{}", number / NAMESPACES % APPLICATIONS);
        let attributes = Attributes::labels(&[("app", &app), ("role", "peer")]);
        let Addresses { ip4, ip6 } = peer(number);
        let addresses: [IpAddr; 2] = [ip4.into(), ip6.into()];
        inventory = inventory.remote(
            &format!("ns-{}", number % NAMESPACES),
            &format!("{app}-{number}"),
            &addresses,
            &attributes.service_account(&app),
        );
    }
    inventory.build()
}

/// The policies: for the measured traffic, and some more that every packet is evaluated against.
pub(crate) fn policies() -> String {
    let mut text = String::new();
    let (first, last) = PORTS;
    for namespace in [ENFORCED, OBSERVED] {
        let peers = "[{ namespaces = \"\", pods = \"role=peer\" }]";
        let ports = format!("[\"udp/{first}-{last}\", \"tcp/{first}-{last}\"]");
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[[policy]]\nname = \"peers\"\nnamespace = \"{namespace}\"\nsubject = \"\"\n\n\
             [[policy.ingress]]\nfrom = {peers}\nports = {ports}\n\n\
             [[policy.egress]]\nto = {peers}\nports = {ports}\n\n"
        );
        for number in 0..10 {
            let port = 8000 + number;
            let _ = write!(
                text,
                "[[policy]]\nname = \"app-{number}\"\nnamespace = \"{namespace}\"\nsubject = \"\"\n\n\
                 [[policy.ingress]]\n\
                 from = [{{ namespaces = \"env=prod\", pods = \"app=app-{number}\" }}]\n\
                 ports = [\"tcp/{port}\"]\n\n"
            );
        }
    }
    text
}
