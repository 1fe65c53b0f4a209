//! Keys of policy rows, with the bits of their prefixes.

use ringfence_common::{
    ids::{ClassId, TableId},
    mode::Direction,
    net::Port,
    policy::PolicyKey,
};

/// The key of a row for every protocol.
pub(crate) fn any_protocol(
    table: TableId,
    class: ClassId,
    direction: Direction,
) -> (u32, PolicyKey) {
    let (_, key) = exact(table, class, direction, 0, 0);
    (PolicyKey::ANY_PROTOCOL_BITS, key)
}

/// The key of a row for every port of a protocol.
pub(crate) fn any_port(
    table: TableId,
    class: ClassId,
    direction: Direction,
    protocol: u8,
) -> (u32, PolicyKey) {
    let (_, key) = exact(table, class, direction, protocol, 0);
    (PolicyKey::PROTOCOL_BITS, key)
}

/// The key of a row for one port.
pub(crate) fn exact(
    table: TableId,
    class: ClassId,
    direction: Direction,
    protocol: u8,
    port: u16,
) -> (u32, PolicyKey) {
    let key = PolicyKey {
        table,
        class,
        direction: direction as u8,
        protocol,
        port: Port::new(port),
    };
    (PolicyKey::FULL_BITS, key)
}
