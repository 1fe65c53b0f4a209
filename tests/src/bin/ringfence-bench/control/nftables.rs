//! The same requests to nftables, the alternative.
//!
//! A node without an agent: its ruleset denies by default, tracks connections, and allows the
//! addresses of a set, one per family, to send to the target. A request is one run of `nft -f -`,
//! as by a controller without library bindings; the time to start `nft` is measured separately.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;

use super::all_peers;
use super::series::Series;
use crate::bench_node::{ALL, MOVING_AT, Network};
use crate::figures::{Figure, Unit};
use crate::tool::feed;
use crate::world;

/// A node with an nftables ruleset.
pub(super) struct Firewall {
    network: Network,
    peers: u32,
}

impl Firewall {
    /// Creates a node with all peers in its sets.
    pub(super) fn start(peers: u32) -> Result<Self> {
        let firewall = Self {
            network: Network::new()?,
            peers,
        };
        firewall.run(&firewall.table(peers))?;
        all_peers::check_all_allowed(&firewall.network, peers)?;
        Ok(firewall)
    }

    /// Adds and deletes one element.
    pub(super) fn element(&self, times: usize) -> Result<Series> {
        let mut probe = self.network.probe(MOVING_AT[0])?;
        let names = ("set-add", "set-delete");
        Series::measure(names, self.variant(), &mut probe, times, |open, _| {
            let verb = if open { "add" } else { "delete" };
            let [ip4, ip6] = MOVING_AT;
            Ok(move || {
                self.run(&format!(
                    "{verb} element inet ringfence peers4 {{ {ip4} }}\n\
                     {verb} element inet ringfence peers6 {{ {ip6} }}\n"
                ))
            })
        })
    }

    /// Replaces the whole table in one transaction: without peers, and with all of them.
    pub(super) fn replacement(&self, times: usize) -> Result<Series> {
        let [_, last] = world::remote(self.peers.saturating_sub(1));
        let mut probe = self.network.probe(last)?;
        self.run(&self.table(0))?;
        let (full, empty) = (self.table(self.peers), self.table(0));
        let (full, empty) = (&full, &empty);
        let names = ("from-empty", "to-empty");
        Series::measure(names, self.variant(), &mut probe, times, |open, _| {
            if !open {
                all_peers::check_all_allowed(&self.network, self.peers)?;
            }
            Ok(move || self.run(if open { full } else { empty }))
        })
    }

    /// Runs `nft` with an empty script.
    pub(super) fn spawn(&self, times: usize) -> Result<Figure> {
        let mut samples = Vec::new();
        for _ in 0..times {
            let started = Instant::now();
            self.run("")?;
            samples.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(Figure::of(
            format!("control/spawn/{}", self.variant()),
            Unit::Ms,
            &samples,
        ))
    }

    fn variant(&self) -> String {
        format!("nftables@{}", self.peers)
    }

    /// The ruleset, which replaces the previous one.
    fn table(&self, peers: u32) -> String {
        let mut elements = [String::new(), String::new()];
        for number in 0..peers {
            for (elements, peer) in elements.iter_mut().zip(world::remote(number)) {
                let comma = if number == 0 { "" } else { ", " };
                // Writing to a String cannot fail.
                let _ = write!(elements, "{comma}{peer}");
            }
        }
        let set = |family: u8, elements: &str| {
            let elements = if elements.is_empty() {
                String::new()
            } else {
                format!("elements = {{ {elements} }}")
            };
            format!("set peers{family} {{ type ipv{family}_addr; {elements} }}")
        };
        let [four, six] = &elements;
        let (port, target) = (world::PORT, &self.network.target);
        format!(
            "table inet ringfence\ndelete table inet ringfence\n\
             table inet ringfence {{\n{}\n{}\n\
             chain forward {{\n\
             type filter hook forward priority 0; policy drop;\n\
             ct state established,related accept\n\
             ip daddr {} ip saddr @peers4 udp dport {{ {port}, {ALL} }} accept\n\
             ip6 daddr {} ip6 saddr @peers6 udp dport {{ {port}, {ALL} }} accept\n\
             icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept\n}}\n}}\n",
            set(4, four),
            set(6, six),
            target.ip4,
            target.ip6,
        )
    }

    /// Runs a script in one `nft` process.
    fn run(&self, script: &str) -> Result<()> {
        feed(&self.network.node.ns, &["nft", "-f", "-"], script)
    }
}
