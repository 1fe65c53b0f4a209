//! A hand-written nftables ruleset: stateful, default deny, both workloads in both directions.
//!
//! Sets and the workloads' chains stay in the kernel; the chain that jumps to them is added and
//! removed. Without it no part of the table is on a packet's path, including connection tracking.

use std::fmt::Write as _;

use anyhow::Result;
use ringfence_testbed::{Addresses, NetNs, Workload};

use super::world::PORTS;
use crate::tool::feed;

/// How peers are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// One rule, with a set of addresses.
    Sets,
    /// A rule for each address.
    Linear,
}

/// A ruleset of one node.
pub(crate) struct Nftables {
    ns: NetNs,
    on: String,
}

impl Nftables {
    /// Writes the sets into the kernel; nothing is filtered yet.
    pub(crate) fn new(
        ns: &NetNs,
        lookup: Lookup,
        peers: &[Addresses],
        workloads: [&Workload; 2],
    ) -> Result<Self> {
        let mut table = String::from("table inet fence {\n");
        if lookup == Lookup::Sets {
            let list =
                |of: fn(&Addresses) -> String| peers.iter().map(of).collect::<Vec<_>>().join(", ");
            let (four, six) = (list(|p| p.ip4.to_string()), list(|p| p.ip6.to_string()));
            // Writing to a String cannot fail.
            let _ = write!(
                table,
                "set peers4 {{ type ipv4_addr; elements = {{ {four} }} }}\n\
                 set peers6 {{ type ipv6_addr; elements = {{ {six} }} }}\n"
            );
        }
        for workload in workloads {
            for (chain, side) in [("from", "daddr"), ("to", "saddr")] {
                let rules = rules(lookup, peers, side);
                let _ = write!(
                    table,
                    "chain {chain}-{} {{\nmeta l4proto != {{ tcp, udp }} drop\n{rules}drop\n}}\n",
                    workload.interface
                );
            }
        }
        table.push_str("}\n");
        let fence = Self {
            ns: ns.clone(),
            on: forward(workloads),
        };
        fence.run(&table)?;
        Ok(fence)
    }

    /// Lets the rules filter.
    pub(crate) fn on(&self) -> Result<()> {
        self.run(&self.on)
    }

    /// Removes the jump to the rules.
    pub(crate) fn off(&self) -> Result<()> {
        self.run("delete chain inet fence forward\n")
    }

    fn run(&self, text: &str) -> Result<()> {
        feed(&self.ns, &["nft", "-f", "-"], text)
    }
}

/// The jumps to the chains of workloads, by interface.
fn forward(workloads: [&Workload; 2]) -> String {
    let map = |chain: &str| {
        let jump = workloads.map(|Workload { interface, .. }| {
            format!("\"{interface}\" : jump {chain}-{interface}")
        });
        jump.join(", ")
    };
    format!(
        "table inet fence {{\n\
         chain forward {{\n\
         type filter hook forward priority filter; policy accept;\n\
         ct state vmap {{ established : accept, related : accept, invalid : drop }}\n\
         iifname vmap {{ {} }}\n\
         oifname vmap {{ {} }}\n\
         }}\n}}\n",
        map("from"),
        map("to")
    )
}

/// What is allowed continues to the other workload's chain.
fn rules(lookup: Lookup, peers: &[Addresses], side: &str) -> String {
    let (first, last) = PORTS;
    let ports = format!("th dport {first}-{last} return\n");
    let one = |four: &str, six: &str| format!("ip {side} {four} {ports}ip6 {side} {six} {ports}");
    match lookup {
        Lookup::Sets => one("@peers4", "@peers6"),
        Lookup::Linear => {
            let each = peers
                .iter()
                .map(|p| one(&p.ip4.to_string(), &p.ip6.to_string()));
            each.collect()
        }
    }
}
