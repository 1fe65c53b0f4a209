//! Enables connection tracking in a namespace, as on every node with NAT: a rule that loads a
//! packet's conntrack state, added over netlink (nfnetlink, nf_tables), so that no tool is needed.

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::NetNs;
use socket2::{Domain, Protocol, Socket, Type};

const NETFILTER: i32 = 12;
/// The netlink address family.
const NETLINK: i32 = 16;
const TABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = TABLES << 8;
const NEW_CHAIN: u16 = TABLES << 8 | 3;
const NEW_RULE: u16 = TABLES << 8 | 6;
const NESTED: u16 = 0x8000;
/// Request, acknowledge, create, append.
const CHANGE: u16 = 1 | 4 | 0x400 | 0x800;

/// Makes the namespace track the connections that it forwards.
pub(crate) fn track_connections(ns: &NetNs, v6: bool) -> Result<()> {
    let family = if v6 { 10 } else { 2 };
    let (table, chain) = (attribute(1, b"t\0"), attribute(1, b"t\0"));
    let hook = [
        attribute(1, &2_u32.to_be_bytes()),
        attribute(2, &0_u32.to_be_bytes()),
    ]
    .concat();
    let base = [
        chain,
        attribute(3, b"c\0"),
        attribute(4 | NESTED, &hook),
        attribute(7, b"filter\0"),
    ];
    // Load the connection's state into a register, without using it.
    let state = [
        attribute(1, &1_u32.to_be_bytes()),
        attribute(2, &0_u32.to_be_bytes()),
    ]
    .concat();
    let load = [attribute(1, b"ct\0"), attribute(2 | NESTED, &state)].concat();
    let expressions = attribute(4 | NESTED, &attribute(1 | NESTED, &load));
    let rule = [attribute(1, b"t\0"), attribute(2, b"c\0"), expressions];
    let batch = [
        message(BATCH_BEGIN, 1, 0, TABLES, &[]),
        message(NEW_TABLE, CHANGE, family, 0, &table),
        message(NEW_CHAIN, CHANGE, family, 0, &base.concat()),
        message(NEW_RULE, CHANGE, family, 0, &rule.concat()),
        message(BATCH_END, 1, 0, TABLES, &[]),
    ];
    let responses = ns.run(|| -> std::io::Result<Vec<u8>> {
        let kind = Some(Protocol::from(NETFILTER));
        let socket = Socket::new(Domain::from(NETLINK), Type::RAW, kind)?;
        socket.set_nonblocking(true)?;
        socket.send(&batch.concat())?;
        let mut responses = Vec::new();
        // The kernel has sent all acknowledgements when `send` returns.
        let mut buffer = [0; 4096];
        while let Ok(length) = std::io::Read::read(&mut &socket, &mut buffer) {
            responses.push(buffer[..length].to_vec());
        }
        Ok(responses.concat())
    })?;
    let responses = responses.context("configuring nf_tables")?;
    let mut rest = responses.as_slice();
    let mut count = 0;
    while let Some(length) = rest.first_chunk::<4>() {
        let length = usize::try_from(u32::from_ne_bytes(*length))?;
        let code = rest.get(16..20).context("the response is too short")?;
        ensure!(code == [0; 4], "nf_tables refuses change {count}: {code:?}");
        count += 1;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    ensure!(count == 3, "{count} of 3 changes acknowledged");
    Ok(())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(body);
    bytes
}
