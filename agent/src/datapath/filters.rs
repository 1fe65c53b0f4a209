//! The filters of clsact hooks and the qdisc that they belong to: listed, added and removed by netlink.
//!
//! Each call waits for the kernel's lock over all network devices. Invariants: filters are in the order in
//! which they run; messages that are shorter than they say end a list; every call has a time limit.
//! Numbers are those of `<linux/rtnetlink.h>` and `<linux/pkt_sched.h>`, integers in the machine's byte
//! order.

use std::{io, os::fd::AsRawFd as _};

use aya::programs::TcAttachType;
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv,
        send, setsockopt, socket, sockopt,
    },
    time::{TimeVal, TimeValLike as _},
};

const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_QDISC: u16 = 36;
const DELETE_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;
const GET_FILTER: u16 = 46;
/// `NLM_F_REQUEST` and `NLM_F_DUMP`.
const LIST: u16 = 0x1 | 0x300;
/// `NLM_F_REQUEST` and `NLM_F_ACK`; with `NLM_F_EXCL` and `NLM_F_CREATE`.
const CHANGE: u16 = 0x1 | 0x4;
const CREATE: u16 = CHANGE | 0x200 | 0x400;
/// `struct nlmsghdr` and `struct tcmsg`.
const HEADER: usize = 16;
const BODY: usize = 20;
/// The handle of clsact; `TC_H_CLSACT`, which is `TC_H_INGRESS`, and the hooks below it.
const CLSACT_HANDLE: u32 = 0xffff_0000;
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
const CLSACT_EGRESS: u32 = 0xffff_fff3;
/// `TCA_KIND` and `TCA_OPTIONS`.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
/// `TCA_BPF_ID`, in the options of a filter of kind `bpf`.
const BPF_ID: u16 = 11;
/// The bits of an attribute's type that are flags.
const TYPE_MASK: u16 = 0x3fff;
/// Room for one datagram; the kernel fills at most 32 KiB of it.
const DATAGRAM: usize = 64 << 10;
/// How long a list may take, in seconds: the kernel's lock may be held for long.
const TIME_LIMIT: i64 = 10;

/// A filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) preference: u16,
    pub(super) handle: u32,
    /// The ID of its BPF program, 0 if it has none.
    pub(super) program: u32,
}

/// The filters at a hook of an interface, first to last; none if there is neither clsact nor such an
/// interface.
///
/// # Errors
/// When the kernel does not answer, or refuses.
pub(super) fn list(ifindex: u32, hook: TcAttachType) -> io::Result<Vec<Filter>> {
    let parent = match hook {
        TcAttachType::Egress => CLSACT_EGRESS,
        _ => CLSACT_INGRESS,
    };
    let mut filters = Vec::new();
    request(GET_FILTER, ifindex, parent, |kind, body| {
        if kind == NEW_FILTER {
            filters.extend(filter(body, ifindex));
        }
    })?;
    Ok(filters)
}

/// Adds a clsact qdisc. Until the call returns, packets that leave by the interface are lost: the kernel
/// takes its queues out of service (`qdisc_graft`).
///
/// # Errors
/// EEXIST if there is one, or another qdisc in its place; otherwise when the kernel refuses.
pub(super) fn add_clsact(ifindex: u32) -> io::Result<()> {
    let mut message = message(NEW_QDISC, CREATE, ifindex, CLSACT_HANDLE, CLSACT);
    add_kind(&mut message);
    exchange(&message, |_, _| {})
}

/// Removes a clsact qdisc with its filters; no error if there is none. Packets are lost as in
/// [`add_clsact`].
///
/// # Errors
/// When the kernel refuses.
pub(super) fn remove_clsact(ifindex: u32) -> io::Result<()> {
    let mut message = message(DELETE_QDISC, CHANGE, ifindex, 0, CLSACT);
    add_kind(&mut message);
    match exchange(&message, |_, _| {}) {
        // Neither interface nor qdisc, or one of another kind.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENODEV | libc::ENOENT | libc::EINVAL)
            ) =>
        {
            Ok(())
        }
        outcome => outcome,
    }
}

/// The qdisc of an interface that is in the place of clsact, if there is one: its kind.
///
/// # Errors
/// When the kernel does not answer, or refuses.
pub(super) fn qdisc_in_place_of_clsact(ifindex: u32) -> io::Result<Option<String>> {
    let mut found = None;
    request(GET_QDISC, ifindex, 0, |kind, body| {
        if kind == NEW_QDISC && is_of(body, ifindex) && u32_at(body, 12) == Some(CLSACT) {
            let kind = attributes(body.get(BODY..).unwrap_or_default())
                .find(|(kind, _)| *kind == KIND)
                .map(|(_, value)| text(value));
            found = kind.filter(|kind| kind != "clsact");
        }
    })?;
    Ok(found)
}

/// The filter of a message; `None` for a message about a preference as a whole.
fn filter(body: &[u8], ifindex: u32) -> Option<Filter> {
    let handle = u32_at(body, 8).filter(|handle| *handle != 0)?;
    if !is_of(body, ifindex) {
        return None;
    }
    let preference = u16::try_from(u32_at(body, 16)? >> 16).ok()?;
    let options = attributes(body.get(BODY..)?).find(|(kind, _)| *kind == OPTIONS);
    let (_, options) = options.unwrap_or_default();
    let program = attributes(options).find(|(kind, _)| *kind == BPF_ID);
    let program = program.and_then(|(_, value)| u32_at(value, 0));
    Some(Filter {
        preference,
        handle,
        program: program.unwrap_or_default(),
    })
}

fn is_of(body: &[u8], ifindex: u32) -> bool {
    u32_at(body, 4) == Some(ifindex)
}

/// Makes a request for a list, and shows the kind and the body of each message of the answer.
fn request(kind: u16, ifindex: u32, parent: u32, each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    exchange(&message(kind, LIST, ifindex, 0, parent), each)
}

/// Sends a message, and shows the kind and the body of each message of the answer.
fn exchange(message: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    setsockopt(
        &socket,
        sockopt::ReceiveTimeout,
        &TimeVal::seconds(TIME_LIMIT),
    )?;
    connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    send(socket.as_raw_fd(), message, MsgFlags::empty())?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC) {
            Err(nix::errno::Errno::EINTR) => continue,
            length => length?,
        };
        let datagram = buffer.get(..length);
        let datagram = datagram.ok_or_else(|| io::Error::other("a datagram was cut off"))?;
        for (kind, body) in messages(datagram) {
            if kind != ERROR && kind != DONE {
                each(kind, body);
                continue;
            }
            return match u32_at(body, 0).map(u32::cast_signed) {
                None | Some(0..) => Ok(()),
                Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            };
        }
    }
}

fn message(kind: u16, flags: u16, ifindex: u32, handle: u32, parent: u32) -> Vec<u8> {
    let length = u32::try_from(HEADER + BODY).unwrap_or_default();
    let mut message = Vec::with_capacity(HEADER + BODY);
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    // Sequence number and sender; family and padding.
    message.extend_from_slice(&[0; 12]);
    message.extend_from_slice(&ifindex.to_ne_bytes());
    for word in [handle, parent, 0] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message
}

/// Adds the attribute `TCA_KIND` with the value `clsact` to a message, and to the length in its header.
fn add_kind(message: &mut Vec<u8>) {
    let value = b"clsact\0";
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&KIND.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
    let length = u32::try_from(message.len()).unwrap_or_default();
    if let Some(header) = message.first_chunk_mut() {
        *header = length.to_ne_bytes();
    }
}

/// The kinds and bodies of the messages of a datagram.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32_at(datagram, 0)? as usize;
        let message = (u16_at(datagram, 4)?, datagram.get(HEADER..length)?);
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(message)
    })
}

/// The types and values of attributes.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let attribute = (u16_at(bytes, 2)? & TYPE_MASK, bytes.get(4..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(attribute)
    })
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    let value = value.get(..end.unwrap_or(value.len())).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|it| u16::from_ne_bytes(*it))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|it| u32::from_ne_bytes(*it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn body(ifindex: u32, handle: u32, preference: u32, attributes: &[u8]) -> Vec<u8> {
        let words = [0, ifindex, handle, CLSACT_INGRESS, preference << 16 | 3];
        let mut body = words.map(u32::to_ne_bytes).concat();
        body.extend_from_slice(attributes);
        body
    }

    #[test]
    fn a_filter_has_preference_handle_and_program() {
        let id = attribute(BPF_ID, &77_u32.to_ne_bytes());
        let name = attribute(7, b"from_workload\0");
        let options = attribute(OPTIONS | 0x8000, &[name, id].concat());
        let all = [attribute(KIND, b"bpf\0"), options].concat();
        let found = Filter {
            preference: 1,
            handle: 0x5246,
            program: 77,
        };
        assert_eq!(filter(&body(9, 0x5246, 1, &all), 9), Some(found));
        assert_eq!(
            filter(&body(8, 0x5246, 1, &all), 9),
            None,
            "of another interface"
        );
        assert_eq!(filter(&body(9, 0, 1, &all), 9), None, "a whole preference");
        // Another kind of filter decides about packets, too.
        let other = filter(&body(9, 1, 3, &attribute(KIND, b"u32\0")), 9);
        assert_eq!(other.map(|it| (it.preference, it.program)), Some((3, 0)));
    }

    #[test]
    fn cut_off_messages_end_a_list() {
        let mut datagram = message(GET_FILTER, LIST, 9, 0, CLSACT_INGRESS);
        datagram.extend_from_slice(&message(GET_QDISC, LIST, 9, 0, 0));
        assert_eq!(messages(&datagram).count(), 2);
        datagram.truncate(datagram.len() - 1);
        assert_eq!(messages(&datagram).count(), 1);
        for length in 0..datagram.len() {
            let _ = messages(&datagram[..length]).count();
            let _ = filter(&datagram[..length], 9);
        }
    }

    #[test]
    fn a_change_names_clsact_and_has_its_whole_length() {
        let mut change = message(DELETE_QDISC, CHANGE, 9, 0, CLSACT);
        add_kind(&mut change);
        let all: Vec<_> = messages(&change).collect();
        let [(kind, body)] = all.as_slice() else {
            panic!("{all:?}");
        };
        assert_eq!((*kind, is_of(body, 9)), (DELETE_QDISC, true));
        assert_eq!(u32_at(body, 12), Some(CLSACT));
        let kinds: Vec<_> = attributes(&body[BODY..]).collect();
        assert_eq!(kinds, [(KIND, b"clsact\0".as_slice())]);
    }
}
