//! The least that a fence must do which remembers the flows of each workload: programs and their maps.
//!
//! A UDP or TCP packet is looked up by its interface, addresses, ports and protocol, the workload's end
//! first, so that its answer is looked up by the same; who is not known is entered, with a value as long
//! as the agent's. Nothing is decided, counted, timed or reported: every packet passes. What a fence must
//! also survive is left out where that makes it cheaper: IP options, extension headers, later fragments
//! and headers outside of a packet's linear data are not looked for, and a full map remembers nobody new.
//!
//! With all maps it also asks and tells what the agent's packet path must: each packet's endpoint, and
//! for a new flow an address and a record. So that is the least of a fence of its kind, still without a
//! verdict.

use std::os::fd::AsFd as _;

use anyhow::Result;
use ringfence_common::conntrack::{CtEntry, CtKey4, CtKey6};
use ringfence_common::event::FlowEvent;
use ringfence_common::net::{Ip4, Ip6};
use ringfence_common::packet::protocol::{TCP, UDP};
use ringfence_testbed::frame::{IPV4, IPV6};

use super::instructions::Register::{R0, R1, R2, R3, R4, R6, R7, R8, R9, R10};
use super::instructions::Width::{Eight, Four, One, Two};
use super::instructions::{
    Code, Helper, Instruction, Label, When, Width, add, call, clear, copy, exit, load, map, set,
    store,
};
use super::table::{Ring, Table};
use super::{Hook, Program, TC_ACT_UNSPEC};

const BPF_NOEXIST: i32 = 1;
/// The length of a value.
const VALUE: i16 = 64;
const _: () = assert!(size_of::<CtEntry>() == 64);
/// The length of a record.
const RECORD: i16 = 96;
const _: () = assert!(size_of::<FlowEvent>() == 96);
const BPF_RB_NO_WAKEUP: i32 = 1;

/// `struct __sk_buff`.
const SKB_PROTOCOL: i16 = 16;
const SKB_IFINDEX: i16 = 40;
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;

/// Where the IP header begins.
const IP: i16 = 14;
/// Where a key's interface, ports and protocol lie on the stack, before all of which the addresses end.
const KEY_IFINDEX: i16 = -16;
const KEY_OWN_PORT: i16 = -12;
const KEY_PEER_PORT: i16 = -10;
const KEY_PROTOCOL: i16 = -8;

/// Where things are in a packet of one family.
struct Layout {
    ethertype: u16,
    /// What the header begins with, if that matters.
    first: Option<u8>,
    protocol: i16,
    source: i16,
    destination: i16,
    ports: i16,
    /// An address is so many pieces of this width.
    pieces: i16,
    width: Width,
    piece: i16,
}

const LAYOUT4: Layout = Layout {
    ethertype: IPV4,
    // Without options the ports are where they always are.
    first: Some(0x45),
    protocol: IP + 9,
    source: IP + 12,
    destination: IP + 16,
    ports: IP + 20,
    pieces: 1,
    width: Four,
    piece: 4,
};

const LAYOUT6: Layout = Layout {
    ethertype: IPV6,
    first: None,
    protocol: IP + 6,
    source: IP + 8,
    destination: IP + 24,
    ports: IP + 40,
    pieces: 2,
    width: Eight,
    piece: 8,
};

impl Layout {
    const fn address(&self) -> i16 {
        self.pieces * self.piece
    }

    /// Where the key begins on the stack.
    const fn key(&self) -> i16 {
        KEY_IFINDEX - 2 * self.address()
    }

    /// Where the peer's address in it does.
    const fn peer(&self) -> i16 {
        self.key() + self.address()
    }

    /// Where a value begins on the stack: before the key, and a record ends within it.
    const fn value(&self) -> i16 {
        let value = self.key() - VALUE;
        if value < -RECORD { value } else { -RECORD }
    }
}

/// What is remembered.
pub(crate) struct Memory {
    four: Known,
    six: Known,
    /// What the packet path needs besides, if it is to have all its maps.
    path: Option<Path>,
}

/// What is remembered of one family.
struct Known {
    flows: Table,
    addresses: Table,
}

/// What both families share.
struct Path {
    endpoints: Table,
    records: Ring,
}

impl Memory {
    /// Nothing yet; of flows, or of all that the packet path has maps for.
    pub(crate) fn new(all_maps: bool) -> Result<Self> {
        let table = |key| Table::new(key, size_of::<CtEntry>());
        let known = |flow, address| -> Result<Known> {
            Ok(Known {
                flows: table(flow)?,
                addresses: table(address)?,
            })
        };
        let path = || -> Result<Path> {
            Ok(Path {
                endpoints: table(size_of::<u32>())?,
                records: Ring::new()?,
            })
        };
        Ok(Self {
            four: known(size_of::<CtKey4>(), size_of::<Ip4>())?,
            six: known(size_of::<CtKey6>(), size_of::<Ip6>())?,
            path: all_maps.then(path).transpose()?,
        })
    }

    /// The program that remembers here what passes a hook.
    pub(crate) fn program(&self, hook: Hook) -> Result<Program> {
        let mut code = Code::default();
        let pass = code.label();
        code.run(&[
            copy(R6, R1),
            load(Four, R7, R6, SKB_DATA),
            load(Four, R8, R6, SKB_DATA_END),
            load(Four, R9, R6, SKB_PROTOCOL),
        ]);
        for (layout, known) in [(LAYOUT4, &self.four), (LAYOUT6, &self.six)] {
            let other = code.label();
            let ethertype = i32::from(layout.ethertype.to_be());
            code.jump(When::Differs(R9, ethertype), other);
            key(&mut code, &layout, (hook, pass));
            if let Some(path) = &self.path {
                meet(&mut code, &layout, (&path.endpoints, KEY_IFINDEX));
            }
            lookup(&mut code, &known.flows, layout.key());
            code.jump(When::Differs(R0, 0), pass);
            if self.path.is_some() {
                meet(&mut code, &layout, (&known.addresses, layout.peer()));
            }
            enter(&mut code, &layout, (&known.flows, layout.key()));
            if let Some(path) = &self.path {
                tell(&mut code, &layout, &path.records);
            }
            code.jump(When::Always, pass);
            code.here(other);
        }
        code.here(pass);
        code.run(&[set(R0, TC_ACT_UNSPEC), exit()]);
        Program::load(&code.finish()?)
    }

    /// Forgets flows and records, and says how many flows of each family that was.
    pub(crate) fn forget(&self) -> Result<[usize; 2]> {
        self.told()?;
        let four = self.four.flows.empty::<CtKey4, CtEntry>()?;
        let six = self.six.flows.empty::<CtKey6, CtEntry>()?;
        Ok([four, six])
    }

    /// Forgets the records, and says how many they were.
    fn told(&self) -> Result<usize> {
        self.path
            .as_ref()
            .map_or(Ok(0), |path| path.records.empty())
    }
}

/// Puts the key of a packet on the stack. R6 is the context, R7 the packet, R8 its end.
fn key(code: &mut Code, layout: &Layout, (hook, pass): (Hook, Label)) {
    let transport = code.label();
    code.run(&[copy(R3, R7), add(R3, i32::from(layout.ports) + 4)]);
    code.jump(When::Above(R3, R8), pass);
    if let Some(first) = layout.first {
        code.run(&[load(One, R0, R7, IP)]);
        code.jump(When::Differs(R0, first.into()), pass);
    }
    code.run(&[load(One, R9, R7, layout.protocol)]);
    code.jump(When::Equals(R9, UDP.into()), transport);
    code.jump(When::Differs(R9, TCP.into()), pass);
    code.here(transport);

    let source = (layout.source, layout.ports);
    let destination = (layout.destination, layout.ports + 2);
    let (own, peer) = match hook {
        Hook::FromWorkload => (source, destination),
        Hook::ToWorkload => (destination, source),
    };
    let own_at = (layout.key(), KEY_OWN_PORT);
    let peer_at = (layout.peer(), KEY_PEER_PORT);
    for ((address, port), (address_at, port_at)) in [(own, own_at), (peer, peer_at)] {
        for offset in (0..layout.address()).step_by(layout.piece.unsigned_abs().into()) {
            code.run(&[
                load(layout.width, R0, R7, address + offset),
                store(layout.width, R10, address_at + offset, R0),
            ]);
        }
        code.run(&[load(Two, R0, R7, port), store(Two, R10, port_at, R0)]);
    }
    code.run(&[
        load(Four, R0, R6, SKB_IFINDEX),
        store(Four, R10, KEY_IFINDEX, R0),
        // With the zeroes behind it.
        store(Eight, R10, KEY_PROTOCOL, R9),
    ]);
}

/// R0 is the value of a key on the stack, or zero.
fn lookup(code: &mut Code, table: &Table, key: i16) {
    code.run(&map(R1, table.0.as_fd()));
    code.run(&[copy(R2, R10), add(R2, key.into()), call(Helper::MapLookup)]);
}

/// Enters a key on the stack, with a value of zeroes.
fn enter(code: &mut Code, layout: &Layout, (table, key): (&Table, i16)) {
    let zeroes = (layout.value()..layout.key()).step_by(8);
    let zeroes: Vec<Instruction> = zeroes.map(|at| clear(R10, at)).collect();
    code.run(&zeroes);
    code.run(&map(R1, table.0.as_fd()));
    code.run(&[
        copy(R2, R10),
        add(R2, key.into()),
        copy(R3, R10),
        add(R3, layout.value().into()),
        set(R4, BPF_NOEXIST),
        call(Helper::MapUpdate),
    ]);
}

/// Looks a key on the stack up, and enters it the first time.
fn meet(code: &mut Code, layout: &Layout, (table, key): (&Table, i16)) {
    let known = code.label();
    lookup(code, table, key);
    code.jump(When::Differs(R0, 0), known);
    enter(code, layout, (table, key));
    code.here(known);
}

/// Tells of a flow that was entered: a record of what is on the stack.
fn tell(code: &mut Code, layout: &Layout, records: &Ring) {
    code.run(&map(R1, records.0.as_fd()));
    code.run(&[
        copy(R2, R10),
        add(R2, layout.value().into()),
        set(R3, RECORD.into()),
        set(R4, BPF_RB_NO_WAKEUP),
        call(Helper::RingOutput),
    ]);
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use ringfence_testbed::frame::{ARP, ethernet, ipv4, udp};

    use super::Hook::{FromWorkload, ToWorkload};
    use super::*;

    const A4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const A6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const B6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
    const ICMP: u8 = 1;

    struct Bench {
        memory: Memory,
        from_workload: Program,
        to_workload: Program,
    }

    impl Bench {
        fn new(all_maps: bool) -> Self {
            let memory = Memory::new(all_maps).unwrap();
            Self {
                from_workload: memory.program(Hook::FromWorkload).unwrap(),
                to_workload: memory.program(Hook::ToWorkload).unwrap(),
                memory,
            }
        }

        /// Runs a hook's program on a packet, which must pass.
        fn pass(&self, hook: Hook, ethertype: u16, packet: &[u8]) {
            let program = match hook {
                FromWorkload => &self.from_workload,
                ToWorkload => &self.to_workload,
            };
            let frame = ethernet([2; 6], [4; 6], ethertype, packet);
            assert_eq!(program.verdict(&frame).unwrap(), TC_ACT_UNSPEC);
        }

        fn udp(&self, hook: Hook, from: (impl Into<IpAddr>, u16), to: (impl Into<IpAddr>, u16)) {
            let (from, to) = ((from.0.into(), from.1), (to.0.into(), to.1));
            let ethertype = if to.0.is_ipv4() { IPV4 } else { IPV6 };
            self.pass(hook, ethertype, &udp(from, to, &[0; 8]).unwrap());
        }
    }

    #[test]
    fn a_packet_and_its_answer_are_one_flow() {
        // Whoever begins, and whichever address and port is the higher one.
        for (own, peer, all_maps) in [(1000, 2000, false), (2000, 1000, false), (1, 2, true)] {
            let bench = Bench::new(all_maps);
            bench.udp(FromWorkload, (A4, own), (B4, peer));
            bench.udp(ToWorkload, (B4, peer), (A4, own));
            assert_eq!(bench.memory.forget().unwrap(), [1, 0]);
            bench.udp(ToWorkload, (A6, peer), (B6, own));
            bench.udp(FromWorkload, (B6, own), (A6, peer));
            bench.udp(FromWorkload, (B6, own), (A6, peer));
            assert_eq!(bench.memory.forget().unwrap(), [0, 1]);
            assert_eq!(bench.memory.forget().unwrap(), [0, 0]);
        }
    }

    #[test]
    fn a_packet_that_comes_back_is_of_another_flow() {
        let bench = Bench::new(false);
        for hook in [FromWorkload, ToWorkload] {
            bench.udp(hook, (A4, 1), (B4, 2));
            bench.udp(hook, (A6, 1), (B6, 2));
        }
        assert_eq!(bench.memory.forget().unwrap(), [2, 2]);
    }

    #[test]
    fn with_all_maps_endpoints_and_addresses_are_asked_for() {
        for (all_maps, asked) in [(false, [0, 0]), (true, [1, 1])] {
            let bench = Bench::new(all_maps);
            for port in [1, 2, 1] {
                bench.udp(FromWorkload, (A4, port), (B4, 9));
                bench.udp(ToWorkload, (B6, 9), (A6, port));
            }
            let Memory { four, six, path } = &bench.memory;
            let endpoints = path.as_ref().map(|path| &path.endpoints);
            let endpoints = endpoints.map_or(0, |known| known.empty::<u32, CtEntry>().unwrap());
            let addresses = four.addresses.empty::<u32, CtEntry>().unwrap();
            assert_eq!([endpoints, addresses], asked);
            assert_eq!(
                six.addresses.empty::<[u8; 16], CtEntry>().unwrap(),
                addresses
            );
        }
    }

    #[test]
    fn with_all_maps_every_new_flow_makes_a_record() {
        for all_maps in [false, true] {
            let bench = Bench::new(all_maps);
            for port in [1, 2, 1] {
                bench.udp(FromWorkload, (A4, port), (B4, 9));
                bench.udp(ToWorkload, (B6, 9), (A6, port));
            }
            let told = if all_maps { 4 } else { 0 };
            assert_eq!(bench.memory.told().unwrap(), told);
            assert_eq!(bench.memory.forget().unwrap(), [2, 2]);
        }
    }

    #[test]
    fn every_end_and_protocol_is_part_of_a_flow() {
        let bench = Bench::new(false);
        for (from, to) in [(1, 2), (3, 2), (1, 3), (2, 1)] {
            bench.udp(FromWorkload, (A4, from), (B4, to));
            bench.udp(ToWorkload, (A6, from), (B6, to));
        }
        let other = Ipv4Addr::new(10, 0, 0, 3);
        bench.udp(FromWorkload, (A4, 1), (other, 2));
        let other = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);
        bench.udp(ToWorkload, (other, 1), (B6, 2));
        let segment = [[0, 1, 0, 2].as_slice(), &[0; 16]].concat();
        bench.pass(FromWorkload, IPV4, &ipv4(A4, B4, TCP, &segment));
        assert_eq!(bench.memory.forget().unwrap(), [6, 5]);
    }

    #[test]
    fn what_is_no_flow_is_not_remembered() {
        let bench = Bench::new(false);
        bench.pass(FromWorkload, ARP, &[0; 28]);
        bench.pass(
            FromWorkload,
            IPV4,
            &ipv4(A4, B4, ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]),
        );
        // Too short for ports.
        bench.pass(FromWorkload, IPV4, &ipv4(A4, B4, UDP, &[0, 1]));
        assert_eq!(bench.memory.forget().unwrap(), [0, 0]);
    }
}
