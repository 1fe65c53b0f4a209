//! The same requests to nftables: what one would use instead.
//!
//! A node without an agent, whose ruleset denies by default, follows connections, and lets into the
//! target whoever is in a set of addresses, one for each family. A request is one run of `nft -f -`,
//! which is how a controller without bindings would ask; what only starting `nft` takes is measured
//! beside it.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;

use super::everyone;
use super::series::Series;
use crate::figures::{Figure, Unit};
use crate::scene::{ALL, MOVING_AT, Wires};
use crate::tool::feed;
use crate::world;

/// A node that nftables guards.
pub(super) struct Firewall {
    wires: Wires,
    peers: u32,
}

impl Firewall {
    /// With all peers in its sets.
    pub(super) fn start(peers: u32) -> Result<Self> {
        let firewall = Self {
            wires: Wires::new()?,
            peers,
        };
        firewall.run(&firewall.table(peers))?;
        everyone::is_let_in(&firewall.wires, peers)?;
        Ok(firewall)
    }

    /// An element that is added and deleted.
    pub(super) fn element(&self, times: usize) -> Result<Series> {
        let mut probe = self.wires.probe(MOVING_AT[0])?;
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

    /// The whole table, replaced in one transaction: without peers, and with all of them.
    pub(super) fn replacement(&self, times: usize) -> Result<Series> {
        let [_, last] = world::remote(self.peers.saturating_sub(1));
        let mut probe = self.wires.probe(last)?;
        self.run(&self.table(0))?;
        let (full, empty) = (self.table(self.peers), self.table(0));
        let (full, empty) = (&full, &empty);
        let names = ("from-empty", "to-empty");
        Series::measure(names, self.variant(), &mut probe, times, |open, _| {
            if !open {
                everyone::is_let_in(&self.wires, self.peers)?;
            }
            Ok(move || self.run(if open { full } else { empty }))
        })
    }

    /// `nft` that is asked for nothing.
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

    /// The ruleset, which replaces the one before.
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
        let (port, target) = (world::PORT, &self.wires.target);
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

    /// One process for one script.
    fn run(&self, script: &str) -> Result<()> {
        feed(&self.wires.node.ns, &["nft", "-f", "-"], script)
    }
}
