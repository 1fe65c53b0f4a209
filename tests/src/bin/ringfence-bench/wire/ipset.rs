//! iptables with ipset, laid out as kube-router does.
//!
//! A firewall chain for each pod, entered by its address in both directions; in it connection
//! tracking first, then a chain for the policy, which marks allowed packets. Two things differ:
//! denied packets are dropped, not rejected, so that the sender's cost is the same as for every
//! other fence, and denials are not logged. The sets stay in the kernel; the chains are added and
//! removed.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::Result;
use ringfence_testbed::{Addresses, NetNs, Workload};

use super::world::PORTS;
use crate::tool::feed;

/// The chains and sets of one node.
pub(crate) struct Ipset {
    ns: NetNs,
    /// For IPv4 and for IPv6.
    on: [String; 2],
}

impl Ipset {
    /// Writes the sets into the kernel; nothing is filtered yet.
    pub(crate) fn new(ns: &NetNs, peers: &[Addresses], workloads: [&Workload; 2]) -> Result<Self> {
        let mut sets = String::new();
        for (v6, family) in [(false, "inet"), (true, "inet6")] {
            // Writing to a String cannot fail.
            let _ = writeln!(
                sets,
                "create {} hash:ip family {family} maxelem 131072",
                peers_set(v6)
            );
            for peer in peers {
                let ip: IpAddr = if v6 { peer.ip6.into() } else { peer.ip4.into() };
                let _ = writeln!(sets, "add {} {ip}", peers_set(v6));
            }
            for workload in workloads {
                let set = own_set(workload, v6);
                let _ = writeln!(sets, "create {set} hash:ip family {family}");
                let _ = writeln!(sets, "add {set} {}", workload.ip(v6));
            }
        }
        feed(ns, &["ipset", "restore"], &sets)?;
        Ok(Self {
            ns: ns.clone(),
            on: [false, true].map(|v6| chains(workloads, v6)),
        })
    }

    /// Lets the chains filter.
    pub(crate) fn on(&self) -> Result<()> {
        let [four, six] = &self.on;
        self.restore(four, six)
    }

    /// Removes every chain, and the tables if they are nftables' underneath.
    pub(crate) fn off(&self) -> Result<()> {
        let empty = "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n";
        self.restore(empty, empty)?;
        feed(&self.ns, &["nft", "-f", "-"], "flush ruleset\n")
    }

    fn restore(&self, four: &str, six: &str) -> Result<()> {
        feed(&self.ns, &["iptables-restore"], four)?;
        feed(&self.ns, &["ip6tables-restore"], six)
    }
}

fn family(v6: bool) -> u8 {
    if v6 { 6 } else { 4 }
}

fn peers_set(v6: bool) -> String {
    format!("KUBE-PEERS-{}", family(v6))
}

fn own_set(workload: &Workload, v6: bool) -> String {
    format!("KUBE-{}-{}", workload.interface, family(v6))
}

fn chains(workloads: [&Workload; 2], v6: bool) -> String {
    let mut text = String::from(
        "*filter\n:FORWARD ACCEPT [0:0]\n:KUBE-ROUTER-FORWARD - [0:0]\n\
         -A FORWARD -j KUBE-ROUTER-FORWARD\n",
    );
    for workload in workloads {
        let (ip, name) = (workload.ip(v6), &workload.interface);
        let _ = write!(
            text,
            ":POD-{name} - [0:0]\n:NWPLCY-{name} - [0:0]\n\
             -A KUBE-ROUTER-FORWARD -d {ip} -j POD-{name}\n\
             -A KUBE-ROUTER-FORWARD -s {ip} -j POD-{name}\n\
             -A POD-{name} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A POD-{name} -m conntrack --ctstate INVALID -j DROP\n\
             -A POD-{name} -m addrtype --src-type LOCAL -d {ip} -j ACCEPT\n\
             -A POD-{name} -s {ip} -j NWPLCY-{name}\n\
             -A POD-{name} -d {ip} -j NWPLCY-{name}\n\
             -A POD-{name} -m mark ! --mark 0x10000/0x10000 -j DROP\n\
             -A POD-{name} -j MARK --set-xmark 0x0/0x10000\n\
             -A POD-{name} -j MARK --set-xmark 0x20000/0x20000\n"
        );
        let (own, peers) = (own_set(workload, v6), peers_set(v6));
        let (first, last) = PORTS;
        for (from, to) in [(&own, &peers), (&peers, &own)] {
            for protocol in ["tcp", "udp"] {
                let _ = write!(
                    text,
                    "-A NWPLCY-{name} -m set --match-set {from} src -m set --match-set {to} dst \
                     -p {protocol} --dport {first}:{last} -j MARK --set-xmark 0x10000/0x10000\n\
                     -A NWPLCY-{name} -m mark --mark 0x10000/0x10000 -j RETURN\n"
                );
            }
        }
    }
    text.push_str("-A KUBE-ROUTER-FORWARD -m mark --mark 0x20000/0x20000 -j ACCEPT\nCOMMIT\n");
    text
}
