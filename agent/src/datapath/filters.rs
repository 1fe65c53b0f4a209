//! The filters of clsact hooks and the qdisc that they belong to: listed, added and removed by netlink.
//!
//! Each call waits for the kernel's lock over all network devices. Invariants: filters are in the order in
//! which they run; a list in whose course something changed is an error.
//! Numbers are those of `<linux/rtnetlink.h>` and `<linux/pkt_sched.h>`, integers in the machine's byte
//! order.

use std::io;

use aya::programs::TcAttachType;

use crate::netlink::{
    message::{CHANGE, CREATE, LIST, attribute, attributes, message, text, u32_at},
    request::exchange,
};

const NEW_QDISC: u16 = 36;
const DELETE_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;
const GET_FILTER: u16 = 46;
/// Size of `struct tcmsg`.
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
    let clsact = clsact(ifindex, CLSACT_HANDLE);
    exchange(&message(NEW_QDISC, CREATE, &clsact), |_| {}).map(drop)
}

/// Removes a clsact qdisc with its filters; no error if there is none. Packets are lost as in
/// [`add_clsact`].
///
/// # Errors
/// When the kernel refuses.
pub(super) fn remove_clsact(ifindex: u32) -> io::Result<()> {
    let clsact = clsact(ifindex, 0);
    match exchange(&message(DELETE_QDISC, CHANGE, &clsact), |_| {}) {
        // Neither interface nor qdisc, or one of another kind.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENODEV | libc::ENOENT | libc::EINVAL)
            ) =>
        {
            Ok(())
        }
        outcome => outcome.map(drop),
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
fn request(
    kind: u16,
    ifindex: u32,
    parent: u32,
    mut each: impl FnMut(u16, &[u8]),
) -> io::Result<()> {
    let body = tc_message(ifindex, 0, parent);
    let is_interrupted = exchange(&message(kind, LIST, &body), |it| each(it.kind, it.body))?;
    if is_interrupted {
        // What changed meanwhile may be missing in it.
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(())
}

/// `struct tcmsg`.
fn tc_message(ifindex: u32, handle: u32, parent: u32) -> Vec<u8> {
    // Family and padding, and information that nothing here needs.
    let words = [0, ifindex, handle, parent, 0];
    words.map(u32::to_ne_bytes).concat()
}

/// The body of a message about the clsact qdisc of an interface.
fn clsact(ifindex: u32, handle: u32) -> Vec<u8> {
    let mut body = tc_message(ifindex, handle, CLSACT);
    body.extend(attribute(KIND, b"clsact\0"));
    body
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_filter_that_is_cut_off_is_none_or_has_no_program() {
        let options = attribute(OPTIONS, &attribute(BPF_ID, &77_u32.to_ne_bytes()));
        let whole = body(9, 1, 1, &options);
        for length in 0..whole.len() {
            let found = filter(&whole[..length], 9);
            assert!(found.is_none_or(|it| it.program == 0), "{length}");
        }
    }

    #[test]
    fn a_change_names_clsact() {
        let body = clsact(9, 0);
        assert!(is_of(&body, 9));
        assert_eq!(u32_at(&body, 12), Some(CLSACT));
        let kinds: Vec<_> = attributes(&body[BODY..]).collect();
        assert_eq!(kinds, [(KIND, b"clsact\0".as_slice())]);
    }
}
