//! Messages and attributes of netlink, as bytes.
//!
//! Pure. Invariants: a message that is shorter than it says ends the list of messages, and an attribute
//! the list of attributes. Integers are in the machine's byte order. Numbers are those of
//! `<linux/netlink.h>`.

/// An error, or an acknowledgement.
pub(crate) const ERROR: u16 = 2;
/// The end of a list.
pub(crate) const DONE: u16 = 3;

/// A request that is acknowledged (`NLM_F_REQUEST` and `NLM_F_ACK`).
pub(crate) const CHANGE: u16 = 0x1 | 0x4;
/// The same, for something that must not be there yet (`NLM_F_EXCL` and `NLM_F_CREATE`).
pub(crate) const CREATE: u16 = CHANGE | 0x200 | 0x400;
/// A request for a list (`NLM_F_REQUEST` and `NLM_F_DUMP`).
pub(crate) const LIST: u16 = 0x1 | 0x300;
/// The flag of a list in whose course its subject changed (`NLM_F_DUMP_INTR`).
pub(crate) const INTERRUPTED: u16 = 0x10;

const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// The two highest bits of an attribute's type are flags.
const TYPE_MASK: u16 = 0x3fff;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// What it is.
    pub(crate) kind: u16,
    /// Its flags.
    pub(crate) flags: u16,
    /// What follows its header.
    pub(crate) body: &'a [u8],
}

impl Message<'_> {
    /// The error code of [`ERROR`] and [`DONE`]: an `errno`, or 0 for none.
    #[must_use]
    pub(crate) fn error(&self) -> i32 {
        let code = u32_at(self.body, 0).unwrap_or_default();
        code.cast_signed().saturating_neg()
    }
}

/// The messages of a datagram.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(datagram, 0)? as usize;
        let message = Message {
            kind: u16_at(datagram, 4)?,
            flags: u16_at(datagram, 6)?,
            body: datagram.get(HEADER..length)?,
        };
        datagram = datagram.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The types and values of attributes.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A message with this body.
#[must_use]
pub(crate) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    // Sequence number and port, which a socket for one request does not need.
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    message
}

/// An attribute, padded to a multiple of four bytes.
#[must_use]
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    let mut attribute = length.to_ne_bytes().to_vec();
    attribute.extend_from_slice(&kind.to_ne_bytes());
    attribute.extend_from_slice(value);
    attribute.resize(aligned(attribute.len()), 0);
    attribute
}

/// What a message is aligned to takes up.
#[must_use]
pub(crate) const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The text of an attribute, up to its first zero byte.
#[must_use]
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    let value = value.get(..end.unwrap_or(value.len()));
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

/// The number of two bytes at an offset.
#[must_use]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The number of four bytes at an offset.
#[must_use]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes_have_what_was_put_in() {
        let body = [attribute(1 | 0x8000, b"clsact\0"), attribute(2, &[])].concat();
        let bytes = [message(36, CREATE, &body), message(DONE, 0, &[0; 4])].concat();
        let found: Vec<Message<'_>> = messages(&bytes).collect();
        assert_eq!(
            (found.len(), found[0].kind, found[0].flags),
            (2, 36, CREATE)
        );
        let found: Vec<_> = attributes(found[0].body).collect();
        assert_eq!(found, [(1, b"clsact\0".as_slice()), (2, &[])]);
        assert_eq!(text(found[0].1), "clsact");
    }

    #[test]
    fn what_is_cut_off_ends_the_list() {
        let first = message(16, 0, &attribute(3, b"a\0"));
        let bytes = [first.clone(), first.clone()].concat();
        for end in 0..=bytes.len() {
            let whole = end / first.len();
            assert_eq!(messages(&bytes[..end]).count(), whole, "{end}");
        }
        let two = [attribute(3, b"ab"), attribute(4, b"cdef")].concat();
        // The padding of the first one may be missing, but not its value.
        let counts: Vec<usize> = (0..=two.len())
            .map(|end| attributes(&two[..end]).count())
            .collect();
        assert_eq!(counts, [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
        // A length of 0 must not be read for ever.
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }

    #[test]
    fn errors_have_a_code() {
        let busy = message(ERROR, 0, &(-16_i32).to_ne_bytes());
        assert_eq!(messages(&busy).next().map(|it| it.error()), Some(16));
        let done = message(DONE, 0, &0_i32.to_ne_bytes());
        assert_eq!(messages(&done).next().map(|it| it.error()), Some(0));
    }
}
