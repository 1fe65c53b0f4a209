//! A node that routes: it forwards what its workload sends to the next router, which is outside.
//!
//! Neighbours and routes are fixed, and no interface has an address, so the node sends nothing of its
//! own. Only unicast IPv6 is sent here: a router forwards no ARP, nothing that goes to a group of the
//! link or comes from a link-local or unspecified address, and so no listener messages.

use anyhow::Result;

use crate::NetNs;
use crate::attack::fixture;

/// The hardware address of the node on both links.
pub const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0x21];
/// That of the workload and of the outside host.
const HOST: &str = "02:00:00:00:00:22";

/// Makes a new namespace a router.
pub(super) fn forward(ns: &NetNs) -> Result<()> {
    ns.sysctls(&[
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv6.conf.default.accept_ra", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
    ])
}

/// The commands that set a link of the node up.
pub(super) fn link(port: &str) -> String {
    let router = ROUTER.map(|byte| format!("{byte:02x}")).join(":");
    format!("link set {port} address {router} addrgenmode none\nlink set {port} up\n")
}

/// The commands that send the workload's packets to it, and all others outside.
pub(super) fn routes(workload: &str, outside: &str) -> String {
    let own = fixture::workload(true);
    format!(
        "route add {own}/128 dev {workload}\n\
         neigh add {own} lladdr {HOST} nud permanent dev {workload}\n\
         route add 2001:db8::/32 via fe80::99 dev {outside}\n\
         neigh add fe80::99 lladdr {HOST} nud permanent dev {outside}\n"
    )
}
