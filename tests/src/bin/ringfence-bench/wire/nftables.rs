//! nftables as one would write it by hand: stateful, default deny, both workloads in both directions.
//!
//! The sets stay in the kernel; the chains and rules come and go. Without rules nothing of the table
//! is on a packet's way, connection tracking included.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::{Addresses, NetNs, Workload};

use super::world::PORTS;

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
    off: String,
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
        table.push_str("}\n");
        let fence = Self {
            ns: ns.clone(),
            on: chains(lookup, peers, workloads),
            off: off(workloads),
        };
        fence.run(&table)?;
        Ok(fence)
    }

    /// Lets the rules filter.
    pub(crate) fn on(&self) -> Result<()> {
        self.run(&self.on)
    }

    /// Takes every rule away.
    pub(crate) fn off(&self) -> Result<()> {
        self.run(&self.off)
    }

    fn run(&self, text: &str) -> Result<()> {
        let mut child = self
            .ns
            .command("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting nft (nftables)")?;
        if let Some(mut input) = child.stdin.take() {
            // When `nft` stops early the pipe breaks; its own message tells more.
            let _ = input.write_all(text.as_bytes());
        }
        let output = child.wait_with_output().context("waiting for nft")?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nft failed: {}", message.trim());
        Ok(())
    }
}

/// Chains by workload and direction, found by interface.
fn chains(lookup: Lookup, peers: &[Addresses], workloads: [&Workload; 2]) -> String {
    let mut text = String::from("table inet fence {\n");
    for workload in workloads {
        for (chain, side) in [("from", "daddr"), ("to", "saddr")] {
            let rules = rules(lookup, peers, side);
            let _ = write!(
                text,
                "chain {chain}-{} {{\n{rules}drop\n}}\n",
                workload.interface
            );
        }
    }
    let map = |chain: &str| {
        let jump = workloads.map(|Workload { interface, .. }| {
            format!("\"{interface}\" : jump {chain}-{interface}")
        });
        jump.join(", ")
    };
    let _ = write!(
        text,
        "chain forward {{\n\
         type filter hook forward priority filter; policy accept;\n\
         ct state vmap {{ established : accept, related : accept, invalid : drop }}\n\
         iifname vmap {{ {} }}\n\
         oifname vmap {{ {} }}\n\
         }}\n}}\n",
        map("from"),
        map("to")
    );
    text
}

/// What is allowed goes on to the other workload's chain.
fn rules(lookup: Lookup, peers: &[Addresses], side: &str) -> String {
    let (first, last) = PORTS;
    let ports = format!("meta l4proto {{ tcp, udp }} th dport {first}-{last} return\n");
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

fn off(workloads: [&Workload; 2]) -> String {
    let mut text = String::from("delete chain inet fence forward\n");
    for Workload { interface, .. } in workloads {
        let _ = write!(
            text,
            "delete chain inet fence from-{interface}\ndelete chain inet fence to-{interface}\n"
        );
    }
    text
}
