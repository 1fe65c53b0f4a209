//! The minimum of a stateful fence: programs with a flow table, and their maps.
//!
//! A UDP or TCP packet is looked up by its interface, addresses, ports and protocol, the workload's
//! end first, so that a reply has the same key; an unknown flow is inserted with a value of the
//! size of the agent's. Nothing is decided, counted, timed or reported: every packet passes. Cases
//! that a real fence must handle are left out where that makes it cheaper: IP options, extension
//! headers, later fragments and headers outside of a packet's linear data are ignored, and a full
//! map takes no new flow.
//!
//! With all maps it also does the lookups and writes of the agent's pipeline: the endpoint of each
//! packet, and for a new flow an address lookup and a record. That is the minimum of a fence of
//! this kind, still without a verdict.

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
/// The size of a value.
const VALUE: i16 = 64;
const _: () = assert!(size_of::<CtEntry>() == 64);
/// The size of a record.
const RECORD: i16 = 96;
const _: () = assert!(size_of::<FlowEvent>() == 96);
const BPF_RB_NO_WAKEUP: i32 = 1;

/// Offsets in `struct __sk_buff`.
const SKB_PROTOCOL: i16 = 16;
const SKB_IFINDEX: i16 = 40;
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;

/// Offset of the IP header.
const IP: i16 = 14;
/// Stack offsets of a key's interface, ports and protocol; the addresses are below them.
const KEY_IFINDEX: i16 = -16;
const KEY_LOCAL_PORT: i16 = -12;
const KEY_PEER_PORT: i16 = -10;
const KEY_PROTOCOL: i16 = -8;

/// Offsets in a packet of one family, and how to copy its addresses.
struct Layout {
    ethertype: u16,
    /// The required first byte of the IP header, if any.
    first: Option<u8>,
    protocol: i16,
    source: i16,
    destination: i16,
    ports: i16,
    /// An address is copied as this many words.
    words: i16,
    width: Width,
    word: i16,
}

const LAYOUT4: Layout = Layout {
    ethertype: IPV4,
    // Without options the ports are at a fixed offset.
    first: Some(0x45),
    protocol: IP + 9,
    source: IP + 12,
    destination: IP + 16,
    ports: IP + 20,
    words: 1,
    width: Four,
    word: 4,
};

const LAYOUT6: Layout = Layout {
    ethertype: IPV6,
    first: None,
    protocol: IP + 6,
    source: IP + 8,
    destination: IP + 24,
    ports: IP + 40,
    words: 2,
    width: Eight,
    word: 8,
};

impl Layout {
    const fn address(&self) -> i16 {
        self.words * self.word
    }

    /// Stack offset of the key.
    const fn key(&self) -> i16 {
        KEY_IFINDEX - 2 * self.address()
    }

    /// Stack offset of the peer's address in the key.
    const fn peer(&self) -> i16 {
        self.key() + self.address()
    }

    /// Stack offset of a value, below the key; a record begins there too and ends within the key.
    const fn value(&self) -> i16 {
        let value = self.key() - VALUE;
        if value < -RECORD { value } else { -RECORD }
    }
}

/// The maps of the minimal fence.
pub(crate) struct FlowTable {
    four: FamilyMaps,
    six: FamilyMaps,
    /// The other maps of the pipeline, if all maps are used.
    pipeline: Option<PipelineMaps>,
}

/// The maps of one family.
struct FamilyMaps {
    flows: Table,
    addresses: Table,
}

/// The maps that both families share.
struct PipelineMaps {
    endpoints: Table,
    records: Ring,
}

impl FlowTable {
    /// Creates the flow tables, or with `all_maps` all maps of the pipeline.
    pub(crate) fn new(all_maps: bool) -> Result<Self> {
        let table = |key| Table::new(key, size_of::<CtEntry>());
        let known = |flow, address| -> Result<FamilyMaps> {
            Ok(FamilyMaps {
                flows: table(flow)?,
                addresses: table(address)?,
            })
        };
        let pipeline = || -> Result<PipelineMaps> {
            Ok(PipelineMaps {
                endpoints: table(size_of::<u32>())?,
                records: Ring::new()?,
            })
        };
        Ok(Self {
            four: known(size_of::<CtKey4>(), size_of::<Ip4>())?,
            six: known(size_of::<CtKey6>(), size_of::<Ip6>())?,
            pipeline: all_maps.then(pipeline).transpose()?,
        })
    }

    /// Loads the program of a hook that uses these maps.
    pub(crate) fn program(&self, hook: Hook) -> Result<Program> {
        let mut code = Code::default();
        let pass = code.label();
        code.emit(&[
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
            if let Some(pipeline) = &self.pipeline {
                lookup_or_insert(&mut code, &layout, (&pipeline.endpoints, KEY_IFINDEX));
            }
            lookup(&mut code, &known.flows, layout.key());
            code.jump(When::Differs(R0, 0), pass);
            if self.pipeline.is_some() {
                lookup_or_insert(&mut code, &layout, (&known.addresses, layout.peer()));
            }
            insert(&mut code, &layout, (&known.flows, layout.key()));
            if let Some(pipeline) = &self.pipeline {
                output_record(&mut code, &layout, &pipeline.records);
            }
            code.jump(When::Always, pass);
            code.bind(other);
        }
        code.bind(pass);
        code.emit(&[set(R0, TC_ACT_UNSPEC), exit()]);
        Program::load(&code.finish()?)
    }

    /// Removes flows and records; returns the number of flows of each family.
    pub(crate) fn clear(&self) -> Result<[usize; 2]> {
        self.drain_records()?;
        let four = self.four.flows.empty::<CtKey4, CtEntry>()?;
        let six = self.six.flows.empty::<CtKey6, CtEntry>()?;
        Ok([four, six])
    }

    /// Removes the records and returns their number.
    fn drain_records(&self) -> Result<usize> {
        self.pipeline
            .as_ref()
            .map_or(Ok(0), |pipeline| pipeline.records.empty())
    }
}

/// Writes the key of a packet to the stack. R6 is the context, R7 the packet, R8 its end.
fn key(code: &mut Code, layout: &Layout, (hook, pass): (Hook, Label)) {
    let transport = code.label();
    code.emit(&[copy(R3, R7), add(R3, i32::from(layout.ports) + 4)]);
    code.jump(When::Above(R3, R8), pass);
    if let Some(first) = layout.first {
        code.emit(&[load(One, R0, R7, IP)]);
        code.jump(When::Differs(R0, first.into()), pass);
    }
    code.emit(&[load(One, R9, R7, layout.protocol)]);
    code.jump(When::Equals(R9, UDP.into()), transport);
    code.jump(When::Differs(R9, TCP.into()), pass);
    code.bind(transport);

    let source = (layout.source, layout.ports);
    let destination = (layout.destination, layout.ports + 2);
    let (local, peer) = match hook {
        Hook::FromWorkload => (source, destination),
        Hook::ToWorkload => (destination, source),
    };
    let local_at = (layout.key(), KEY_LOCAL_PORT);
    let peer_at = (layout.peer(), KEY_PEER_PORT);
    for ((address, port), (address_at, port_at)) in [(local, local_at), (peer, peer_at)] {
        for offset in (0..layout.address()).step_by(layout.word.unsigned_abs().into()) {
            code.emit(&[
                load(layout.width, R0, R7, address + offset),
                store(layout.width, R10, address_at + offset, R0),
            ]);
        }
        code.emit(&[load(Two, R0, R7, port), store(Two, R10, port_at, R0)]);
    }
    code.emit(&[
        load(Four, R0, R6, SKB_IFINDEX),
        store(Four, R10, KEY_IFINDEX, R0),
        // Eight bytes, to include the zero padding.
        store(Eight, R10, KEY_PROTOCOL, R9),
    ]);
}

/// R0 = the value of a key on the stack, or zero.
fn lookup(code: &mut Code, table: &Table, key: i16) {
    code.emit(&map(R1, table.0.as_fd()));
    code.emit(&[copy(R2, R10), add(R2, key.into()), call(Helper::MapLookup)]);
}

/// Inserts a key on the stack with a zero value.
fn insert(code: &mut Code, layout: &Layout, (table, key): (&Table, i16)) {
    let zeroes = (layout.value()..layout.key()).step_by(8);
    let zeroes: Vec<Instruction> = zeroes.map(|at| clear(R10, at)).collect();
    code.emit(&zeroes);
    code.emit(&map(R1, table.0.as_fd()));
    code.emit(&[
        copy(R2, R10),
        add(R2, key.into()),
        copy(R3, R10),
        add(R3, layout.value().into()),
        set(R4, BPF_NOEXIST),
        call(Helper::MapUpdate),
    ]);
}

/// Looks up a key on the stack and inserts it if it is missing.
fn lookup_or_insert(code: &mut Code, layout: &Layout, (table, key): (&Table, i16)) {
    let known = code.label();
    lookup(code, table, key);
    code.jump(When::Differs(R0, 0), known);
    insert(code, layout, (table, key));
    code.bind(known);
}

/// Writes a record of a new flow to the ring, from the stack.
fn output_record(code: &mut Code, layout: &Layout, records: &Ring) {
    code.emit(&map(R1, records.0.as_fd()));
    code.emit(&[
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

    struct Fixture {
        memory: FlowTable,
        from_workload: Program,
        to_workload: Program,
    }

    impl Fixture {
        fn new(all_maps: bool) -> Self {
            let memory = FlowTable::new(all_maps).unwrap();
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
    fn a_packet_and_its_reply_are_one_flow() {
        // For either originator, and whichever address and port is higher.
        for (own, peer, all_maps) in [(1000, 2000, false), (2000, 1000, false), (1, 2, true)] {
            let fixture = Fixture::new(all_maps);
            fixture.udp(FromWorkload, (A4, own), (B4, peer));
            fixture.udp(ToWorkload, (B4, peer), (A4, own));
            assert_eq!(fixture.memory.clear().unwrap(), [1, 0]);
            fixture.udp(ToWorkload, (A6, peer), (B6, own));
            fixture.udp(FromWorkload, (B6, own), (A6, peer));
            fixture.udp(FromWorkload, (B6, own), (A6, peer));
            assert_eq!(fixture.memory.clear().unwrap(), [0, 1]);
            assert_eq!(fixture.memory.clear().unwrap(), [0, 0]);
        }
    }

    #[test]
    fn the_same_packet_at_the_other_hook_is_another_flow() {
        let fixture = Fixture::new(false);
        for hook in [FromWorkload, ToWorkload] {
            fixture.udp(hook, (A4, 1), (B4, 2));
            fixture.udp(hook, (A6, 1), (B6, 2));
        }
        assert_eq!(fixture.memory.clear().unwrap(), [2, 2]);
    }

    #[test]
    fn with_all_maps_endpoints_and_addresses_are_looked_up() {
        for (all_maps, expected) in [(false, [0, 0]), (true, [1, 1])] {
            let fixture = Fixture::new(all_maps);
            for port in [1, 2, 1] {
                fixture.udp(FromWorkload, (A4, port), (B4, 9));
                fixture.udp(ToWorkload, (B6, 9), (A6, port));
            }
            let FlowTable {
                four,
                six,
                pipeline,
            } = &fixture.memory;
            let endpoints = pipeline.as_ref().map(|pipeline| &pipeline.endpoints);
            let endpoints = endpoints.map_or(0, |known| known.empty::<u32, CtEntry>().unwrap());
            let addresses = four.addresses.empty::<u32, CtEntry>().unwrap();
            assert_eq!([endpoints, addresses], expected);
            assert_eq!(
                six.addresses.empty::<[u8; 16], CtEntry>().unwrap(),
                addresses
            );
        }
    }

    #[test]
    fn with_all_maps_every_new_flow_causes_a_record() {
        for all_maps in [false, true] {
            let fixture = Fixture::new(all_maps);
            for port in [1, 2, 1] {
                fixture.udp(FromWorkload, (A4, port), (B4, 9));
                fixture.udp(ToWorkload, (B6, 9), (A6, port));
            }
            let expected = if all_maps { 4 } else { 0 };
            assert_eq!(fixture.memory.drain_records().unwrap(), expected);
            assert_eq!(fixture.memory.clear().unwrap(), [2, 2]);
        }
    }

    #[test]
    fn every_end_and_protocol_is_part_of_a_flow() {
        let fixture = Fixture::new(false);
        for (from, to) in [(1, 2), (3, 2), (1, 3), (2, 1)] {
            fixture.udp(FromWorkload, (A4, from), (B4, to));
            fixture.udp(ToWorkload, (A6, from), (B6, to));
        }
        let other = Ipv4Addr::new(10, 0, 0, 3);
        fixture.udp(FromWorkload, (A4, 1), (other, 2));
        let other = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);
        fixture.udp(ToWorkload, (other, 1), (B6, 2));
        let segment = [[0, 1, 0, 2].as_slice(), &[0; 16]].concat();
        fixture.pass(FromWorkload, IPV4, &ipv4(A4, B4, TCP, &segment));
        assert_eq!(fixture.memory.clear().unwrap(), [6, 5]);
    }

    #[test]
    fn packets_other_than_tcp_and_udp_are_not_recorded() {
        let fixture = Fixture::new(false);
        fixture.pass(FromWorkload, ARP, &[0; 28]);
        fixture.pass(
            FromWorkload,
            IPV4,
            &ipv4(A4, B4, ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]),
        );
        // Too short for ports.
        fixture.pass(FromWorkload, IPV4, &ipv4(A4, B4, UDP, &[0, 1]));
        assert_eq!(fixture.memory.clear().unwrap(), [0, 0]);
    }
}
