//! The model's conntrack: which entry covers a packet, what policy says about it, and what is recorded.
//!
//! Written from the rules: a flow is decided in the direction of its originator, with what is in force now. Of
//! protocols that do not show who opened a flow, a packet of the other side passes also if its own
//! direction is allowed; the recorded originator changes only if it was never allowed or was silent.

use std::net::IpAddr;

use ringfence_common::mode::{Direction, Mode};

use super::expectation::{
    Decision, Expectation,
    Expected::{self, Pass},
    direction, flow_key, peer,
};
use super::flows::{Entry, FlowKey, Seen, shows_originator};
use super::parse::Ip;
use crate::fence::Way::{self, *};

impl Expectation<'_> {
    /// Whether the entry's decision is about what is in force now.
    pub(super) fn is_fresh(&self, entry: &Entry, peer: IpAddr) -> bool {
        entry.stamp == self.context.policy.stamp(peer)
    }

    pub(super) fn flow(&mut self, own: &[IpAddr], way: Way, ip: &Ip) -> Expected {
        let ends = (ip.source, ip.destination);
        let key = flow_key(way, ends, ip.protocol, ip.ports);
        let here = direction(way);
        let not_from_host = matches!(way, Arriving | Hairpin);
        let known = self.flows.get(&key).copied();
        let may_use = |entry: &Entry| {
            let reply = entry.direction != here;
            // Only the host may use an entry that the host created, and of a protocol that does not
            // show who opened a flow it opens its own.
            let opens = !shows_originator(ip.protocol) || ip.is_opening;
            let is_anothers = way == FromHost && !entry.from_host && opens;
            // And so does the workload over a client to which the node gave the same address and port.
            let gives_way = entry.is_translated && !entry.came_back && !entry.to_itself;
            let is_own = way == Hairpin && gives_way && opens;
            // Another sender does not continue what the workload sends to itself.
            let is_foreign = entry.came_back && matches!(way, Arriving | FromHost);
            let is_other_sender = (entry.from_host && not_from_host)
                || ((is_anothers || is_own) && !reply)
                || is_foreign;
            // What arrived from an own address needed no rule; what goes there does.
            let needs_rule = entry.to_itself && way == Leaving;
            // A SYN opens a flow.
            !(is_other_sender || needs_rule || ip.is_opening && reply)
        };
        if let Some(entry) = known.filter(may_use) {
            return self.known_flow(own, way, ip, key, entry);
        }
        let mid_flow = ip.protocol == 6 && !ip.is_opening;
        if way == FromHost && mid_flow && !own.contains(&ip.source) {
            if known.is_some() {
                return Pass("from the host, mid-flow, no entry");
            }
            return self.host_mid_flow(own, ip, key);
        }
        let from_host = way == FromHost && !mid_flow;
        let (decision, direction, why) = if from_host {
            (Decision::Allow, here, "from the host")
        } else {
            self.decide_new(own, way, ip, here)
        };
        // Of what needs no rule because the workload sent it, a SYN-ACK and a reset open nothing.
        let is_its_own = arrives_from_itself(own, way, ip) || self.comes_back(own, way, ip);
        let opens_nothing =
            mid_flow && way != FromHost && is_its_own && (ip.is_syn_ack || ip.is_reset);
        // A sender that may not use the entry replaces it only with an allowed packet that opens a
        // flow.
        let replaces = known.is_none() || (decision == Decision::Allow && !mid_flow);
        if replaces && !opens_nothing {
            let mut entry = self.entry(way, ip, decision, direction);
            entry.from_host = from_host;
            entry.to_itself = !from_host && arrives_from_itself(own, way, ip);
            entry.came_back = !entry.to_itself && self.comes_back(own, way, ip);
            entry.is_translated = self.is_translated(&entry, way, ip);
            entry.picked_up = why == "picked up mid-flow";
            self.remember(key, entry, here, ip);
        }
        self.conclude(decision, why, ip)
    }

    /// A packet that an entry covers.
    fn known_flow(
        &mut self,
        own: &[IpAddr],
        way: Way,
        ip: &Ip,
        key: FlowKey,
        mut entry: Entry,
    ) -> Expected {
        let peer = *peer(way, ip);
        let fresh = !ip.is_opening && self.is_fresh(&entry, peer);
        if !fresh {
            self.evaluate_again(own, way, ip, &mut entry);
        }
        let allowed = entry.decision == Decision::Allow;
        // A packet of such a protocol is no reply to a flow that is denied, but may open one.
        let reply = entry.direction != direction(way);
        if reply && !allowed && !shows_originator(ip.protocol) {
            return self.against_originator(own, way, ip, (key, entry));
        }
        entry.was_allowed |= allowed;
        if self.passes(entry.decision) {
            entry.touch(self.context.now, reply, ip);
        } else if !reply && !shows_originator(ip.protocol) && entry.was_allowed {
            entry.receive(self.context.now, ip.protocol);
        }
        self.flows.insert(key, entry);
        let why = match (ip.is_opening, fresh, reply) {
            (true, ..) if entry.from_host => "from the host, opened again",
            (true, ..) => "opened again",
            (_, false, true) => "evaluated again, reply direction",
            (_, false, false) => "evaluated again, original direction",
            (_, _, true) => "reply direction",
            (_, _, false) => "original direction",
        };
        self.conclude(entry.decision, why, ip)
    }

    /// Evaluates a flow in its recorded direction, or in both if that was a guess.
    fn evaluate_again(&self, own: &[IpAddr], way: Way, ip: &Ip, entry: &mut Entry) {
        let policy = self.context.policy;
        let peer = *peer(way, ip);
        entry.picked_up &= !ip.is_opening;
        if entry.owner != policy.owner(peer) {
            entry.owner = policy.owner(peer);
            entry.was_allowed = false;
        }
        entry.stamp = policy.stamp(peer);
        entry.other_side = None;
        let decide = |towards: Direction| {
            let port = if towards == direction(way) {
                ip.ports.1
            } else {
                ip.ports.0
            };
            self.decide(own, way, ip, (towards, port))
        };
        let here = entry.direction == Direction::Ingress && !entry.from_host;
        let came_back = here && self.comes_back(own, way, ip);
        // Its replies go to the address through which it came.
        let stays = here && entry.came_back && policy.is_node(peer);
        entry.decision = if entry.from_host || stays {
            Decision::Allow
        } else {
            decide(entry.direction)
        };
        entry.to_itself = !entry.from_host && arrives_from_itself(own, way, ip);
        entry.came_back = came_back || stays;
        entry.is_translated = self.is_translated(entry, way, ip);
        if entry.picked_up && entry.decision != Decision::Allow {
            let other = opposite(entry.direction);
            if decide(other) == Decision::Allow {
                entry.decision = Decision::Allow;
                entry.direction = other;
            }
        }
    }

    /// A packet of the other side of a flow whose originator is denied now.
    fn against_originator(
        &mut self,
        own: &[IpAddr],
        way: Way,
        ip: &Ip,
        (key, mut entry): (FlowKey, Entry),
    ) -> Expected {
        let here = direction(way);
        let from_host = way == FromHost;
        let decision = if from_host {
            Decision::Allow
        } else {
            self.decide(own, way, ip, (here, ip.ports.1))
        };
        let allowed = decision == Decision::Allow;
        let owner = self.context.policy.owner(*peer(way, ip));
        if allowed && entry.gives_way(self.context.now, owner, ip.protocol) {
            let mut opened = self.entry(way, ip, decision, here);
            opened.from_host = from_host;
            opened.to_itself = !from_host && arrives_from_itself(own, way, ip);
            opened.came_back = !opened.to_itself && self.comes_back(own, way, ip);
            opened.is_translated = self.is_translated(&opened, way, ip);
            self.remember(key, opened, here, ip);
            return self.conclude(decision, "takes the flow over", ip);
        }
        // What is known of the other side is not about those that are always allowed.
        if !(from_host || self.comes_back(own, way, ip)) {
            entry.other_side = Some(allowed);
        }
        if self.passes(decision) {
            entry.touch(self.context.now, true, ip);
        }
        self.flows.insert(key, entry);
        self.conclude(decision, "by itself, against a denied originator", ip)
    }

    /// A new entry for a flow with the packet's peer.
    fn entry(&self, way: Way, ip: &Ip, decision: Decision, direction: Direction) -> Entry {
        let peer = *peer(way, ip);
        Entry {
            decision,
            direction,
            from_host: false,
            to_itself: false,
            came_back: false,
            is_translated: false,
            picked_up: false,
            stamp: self.context.policy.stamp(peer),
            was_allowed: decision == Decision::Allow,
            owner: self.context.policy.owner(peer),
            other_side: None,
            seen: Seen::default(),
            originator_seen: 0,
            expires: 0,
        }
    }

    /// A mid-flow TCP packet from the host always passes. It creates an entry if it may be a reply
    /// to a flow that policy allows the workload to open, or if the host seems to be the client of
    /// a connection older than the fence.
    fn host_mid_flow(&mut self, own: &[IpAddr], ip: &Ip, key: FlowKey) -> Expected {
        if ip.is_syn_ack || ip.is_reset {
            return Pass("from the host, mid-flow, no entry");
        }
        let as_reply = self.decide(own, FromHost, ip, (Direction::Egress, ip.ports.0));
        let by_workload = as_reply == Decision::Allow;
        let by_host = self.context.pickup && ip.ports.0 >= 32_768;
        if !by_workload && !by_host {
            return Pass("from the host, mid-flow, no entry");
        }
        let towards = if by_workload {
            Direction::Egress
        } else {
            Direction::Ingress
        };
        let mut entry = self.entry(FromHost, ip, Decision::Allow, towards);
        entry.from_host = !by_workload;
        self.remember(key, entry, Direction::Ingress, ip);
        Pass(if by_workload {
            "from the host, mid-flow, as a reply"
        } else {
            "from the host, picked up mid-flow"
        })
    }

    /// The decision on a packet without an entry.
    fn decide_new(
        &self,
        own: &[IpAddr],
        way: Way,
        ip: &Ip,
        here: Direction,
    ) -> (Decision, Direction, &'static str) {
        let forward = self.decide(own, way, ip, (here, ip.ports.1));
        if arrives_from_itself(own, way, ip) {
            return (forward, here, "from an own address");
        }
        if self.comes_back(own, way, ip) {
            return (forward, here, "to itself, by an address of the node");
        }
        if own.contains(peer(way, ip)) {
            return (forward, here, "to an own address");
        }
        // Picking up a connection older than the fence: only TCP shows that a packet is mid-flow.
        if !(self.context.pickup && ip.protocol == 6 && !ip.is_opening) {
            return (forward, here, "new flow");
        }
        let there = opposite(here);
        let backward = self.decide(own, way, ip, (there, ip.ports.0));
        // The server is assumed to have the lower port; the other direction applies only if that is
        // denied.
        let (likely, other) = if ip.ports.0 < ip.ports.1 {
            ((backward, there), (forward, here))
        } else {
            ((forward, here), (backward, there))
        };
        let (decision, direction) = if likely.0 != Decision::Allow && other.0 == Decision::Allow {
            other
        } else {
            likely
        };
        (decision, direction, "picked up mid-flow")
    }

    fn decide(
        &self,
        own: &[IpAddr],
        way: Way,
        ip: &Ip,
        (direction, port): (Direction, u16),
    ) -> Decision {
        if arrives_from_itself(own, way, ip) {
            return Decision::Allow;
        }
        if direction == Direction::Ingress && self.comes_back(own, way, ip) {
            return Decision::Allow;
        }
        self.context
            .policy
            .decide(*peer(way, ip), direction, (ip.protocol, port))
    }

    /// Whether a packet of the workload came back to it through an address of the node.
    fn comes_back(&self, own: &[IpAddr], way: Way, ip: &Ip) -> bool {
        way == Hairpin && !own.contains(&ip.source) && self.context.policy.is_node(ip.source)
    }

    /// Whether the node gave its address to the peer of a flow towards the workload.
    fn is_translated(&self, entry: &Entry, way: Way, ip: &Ip) -> bool {
        let towards = entry.direction == Direction::Ingress && !entry.from_host;
        towards && !entry.to_itself && self.context.policy.is_node(*peer(way, ip))
    }

    fn passes(&self, decision: Decision) -> bool {
        match self.context.mode {
            Mode::Observe => true,
            Mode::Enforce => decision == Decision::Allow,
            Mode::Lockdown => false,
        }
    }

    /// Records a flow if its packet passes.
    fn remember(&mut self, key: FlowKey, mut entry: Entry, here: Direction, ip: &Ip) {
        if self.passes(entry.decision) {
            entry.touch(self.context.now, entry.direction != here, ip);
            self.flows.insert(key, entry);
        }
    }
}

/// Whether a packet of the workload came back to it as it was sent, which needs no rule.
fn arrives_from_itself(own: &[IpAddr], way: Way, ip: &Ip) -> bool {
    way != Leaving && own.contains(&ip.source)
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Egress => Direction::Ingress,
        Direction::Ingress => Direction::Egress,
    }
}
