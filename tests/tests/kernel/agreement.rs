//! Random policy sets, compiled and written into the real maps: for every packet the programs reach
//! the verdict of the oracle.
//!
//! Each packet opens a new flow and so causes a flow record, which names the deciding rule. The
//! oracle is evaluated for the time just before the program ran and just after it: a rule may begin
//! or end in between, and then either result is correct.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
};

use proptest::{prelude::*, sample::select};
use ringfence::{
    model::{Inventory, WallTime, Workload},
    oracle::{NOW, Oracle, Said, World, cases, name, report, world},
    plan::{Action, State, plan},
    policy::{Compiled, Compiler},
};
use ringfence_common::mode::{Direction, Verdict};

use crate::differential::sequence::as_remote;
use crate::fence::{Arriving, Fence, FromHost, Hairpin, IFINDEX, Leaving, Outcome, Way};
use crate::frames::{SCTP, SYN, TCP, UDP, echo, frame, icmp_of, sctp, tcp, udp};

/// About how many packets are sent per world before the next world is generated.
const PACKETS: usize = 160;

/// Age of the compiled tables in nanoseconds: their rows have not been rewritten since.
const AGES: [u64; 4] = [0, 500_000_000, 3_000_000_000, 60_000_000_000];

#[test]
fn programs_and_oracle_agree_on_random_policies() {
    let fence = RefCell::new(Fence::bare());
    let (sets, packets) = (Cell::new(0), Cell::new(0));
    proptest!(cases(600), |(world in world(), age in select(&AGES[..]))| {
        let compared = compare(&mut fence.borrow_mut(), &world, age).map_err(TestCaseError::fail)?;
        sets.set(sets.get() + 1);
        packets.set(packets.get() + compared);
    });
    let (sets, packets) = (sets.get(), packets.get());
    report(&format!("kernel: {sets} policy sets, {packets} packets"));
}

/// Publishes a world, sends its packets and removes it again; returns the number of packets.
fn compare(fence: &mut Fence, world: &World, age: u64) -> Result<usize, String> {
    let boot = fence.now().saturating_sub(age);
    let compiled = world.compile_at(&mut Compiler::default(), &world.endpoints(), boot);
    fence.apply(&plan(&State::default(), &compiled.state));
    let outcome = Comparison::new(world, &compiled, boot).run(fence);
    fence.apply(&plan(&compiled.state, &State::default()));
    outcome
}

struct Comparison<'a> {
    world: &'a World,
    compiled: &'a Compiled,
    /// What policy sees of senders to which the node gave its address.
    as_remote: Inventory,
    boot: u64,
    addresses: Vec<IpAddr>,
    flows: Vec<(u8, u16)>,
    /// One out of `stride` possible packets is sent.
    stride: usize,
    /// Number of possible packets considered so far.
    possible: usize,
    /// Number of packets sent.
    sent: usize,
}

/// The first packet of a flow.
#[derive(Debug)]
struct Opening {
    way: Way,
    own: IpAddr,
    peer: IpAddr,
    protocol: u8,
    port: u16,
}

impl<'a> Comparison<'a> {
    fn new(world: &'a World, compiled: &'a Compiled, boot: u64) -> Self {
        let (addresses, mut flows) = (world.addresses(), world.flows());
        // As an IPv6 next header, 0 is the hop-by-hop extension header. Protocols without ports
        // cannot carry one.
        flows.retain(|(protocol, port)| match *protocol {
            TCP | UDP | SCTP => true,
            protocol => protocol != 0 && *port == 0,
        });
        // Two directions, but only pairs of one family: the factors cancel out, roughly.
        let own = compiled
            .endpoints
            .values()
            .map(|e| e.workload.addresses.len());
        let possible = own.sum::<usize>() * addresses.len() * flows.len();
        Self {
            world,
            compiled,
            as_remote: as_remote(&world.inventory),
            boot,
            addresses,
            flows,
            stride: (possible / PACKETS).max(1),
            possible: 0,
            sent: 0,
        }
    }

    fn run(mut self, fence: &mut Fence) -> Result<usize, String> {
        let compiled = self.compiled;
        for info in compiled.endpoints.values() {
            // All test runs use one interface; it is assigned to one endpoint after the other.
            let endpoint = compiled.state.endpoints[&info.attachments[0].ifindex];
            fence.write(Action::PutEndpoint(IFINDEX, endpoint));
            for direction in [Direction::Ingress, Direction::Egress] {
                self.endpoint(fence, &info.workload, direction)?;
            }
        }
        Ok(self.sent)
    }

    fn endpoint(
        &mut self,
        fence: &mut Fence,
        workload: &Workload,
        direction: Direction,
    ) -> Result<(), String> {
        for own in &workload.addresses {
            // Another workload may have used the same tuples from the other end, and the deny
            // aggregate of all own addresses is the same.
            fence.clear_flows();
            for place in 0..self.addresses.len() {
                let peer = self.addresses[place];
                if own.is_ipv4() != peer.is_ipv4() {
                    continue;
                }
                for place in 0..self.flows.len() {
                    let (protocol, port) = self.flows[place];
                    if !self.is_chosen() {
                        continue;
                    }
                    let opening = Opening {
                        way: self.way(workload, peer, direction),
                        own: *own,
                        peer,
                        protocol,
                        port,
                    };
                    self.send(fence, &opening)
                        .map_err(|why| format!("{} {opening:?}: {why}", workload.id))?;
                }
            }
        }
        Ok(())
    }

    /// Spreads the packets that are sent pseudo-randomly over the possible ones.
    fn is_chosen(&mut self) -> bool {
        self.possible += 1;
        let scattered = self.possible.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        scattered.is_multiple_of(self.stride)
    }

    /// The hook and origin of a packet of this direction and peer. A packet from an address of the
    /// local node is sent as the host's only every other time: the address alone does not decide.
    fn way(&self, workload: &Workload, peer: IpAddr, direction: Direction) -> Way {
        let local = self.world.inventory.local_node();
        if direction == Direction::Egress {
            Leaving
        } else if workload.addresses.contains(&peer) {
            Hairpin
        } else if local.is_some_and(|node| node.addresses.contains(&peer))
            && self.sent.is_multiple_of(2)
        {
            FromHost
        } else {
            Arriving
        }
    }

    fn send(&mut self, fence: &mut Fence, opening: &Opening) -> Result<(), String> {
        self.sent += 1;
        if !opening.is_distinct() {
            fence.clear_flows();
        }
        let before = fence.now();
        let outcome = fence.run(opening.way, &opening.frame(self.sent));
        let after = fence.now();
        let events = fence.events();
        let [event] = events.as_slice() else {
            return Err(format!("{outcome:?} with the records {events:?}"));
        };
        let allow = event.verdict == Verdict::Allow as u8;
        let decider = name(self.compiled, event.rule);
        let agrees = |said: &Said| {
            (outcome == Outcome::Passed) == said.allow
                && (allow, event.rejected != 0) == (said.allow, said.reject)
                && said.deciders.contains(&decider)
        };
        let said = [before, after].map(|now| self.say(opening, now));
        if said.iter().any(agrees) {
            Ok(())
        } else {
            Err(format!("{outcome:?} by {decider}, expected {said:?}"))
        }
    }

    /// The oracle's decision at a boot-clock time.
    fn say(&self, opening: &Opening, now: u64) -> Said {
        let since = i64::try_from(now - self.boot).unwrap();
        let oracle = Oracle {
            inventory: &self.world.inventory,
            policies: &self.world.policies,
            now: WallTime(NOW.0 + since),
        };
        let (own, peer) = (opening.own, opening.peer);
        let flow = (opening.protocol, opening.port);
        let owner = oracle.owner(own).unwrap();
        match opening.way {
            // On a shared link it may reach others, so it needs a rule.
            Leaving if owner.addresses.contains(&peer) => {
                let pair = oracle.pair(owner, peer, Direction::Egress);
                pair.say(flow.0, flow.1)
            }
            Leaving => oracle.side(own, peer, Direction::Egress, flow),
            FromHost | Hairpin => oracle.side(own, peer, Direction::Ingress, flow),
            Arriving => {
                let oracle = Oracle {
                    inventory: &self.as_remote,
                    ..oracle
                };
                let pair = oracle.pair(owner, peer, Direction::Ingress);
                pair.say(flow.0, flow.1)
            }
        }
    }
}

impl Opening {
    /// Whether its port or identifier distinguishes it from other flows of the two addresses.
    fn is_distinct(&self) -> bool {
        matches!(self.protocol, TCP | UDP | SCTP) || self.protocol == icmp_of(self.peer.is_ipv6())
    }

    /// The frame, with an ephemeral source port or an identifier that no other packet uses.
    fn frame(&self, number: usize) -> Vec<u8> {
        let from = 20_000 + u16::try_from(number).unwrap();
        let payload = match self.protocol {
            TCP => tcp(from, self.port, SYN),
            UDP => udp(from, self.port, 4),
            SCTP => sctp(from, self.port),
            number if number == icmp_of(self.peer.is_ipv6()) => echo(self.peer.is_ipv6(), from),
            _ => vec![0; 8],
        };
        let (source, destination) = if self.way == Leaving {
            (self.own, self.peer)
        } else {
            (self.peer, self.own)
        };
        frame(source, destination, self.protocol, &payload)
    }
}
