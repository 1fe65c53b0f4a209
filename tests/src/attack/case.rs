//! One frame with its expected result, and the sequence of frames of a case.

use ringfence_common::drop_reason::DropReason;

use super::fixture::Direction;

/// The expected result of a frame where policy is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It arrives.
    Permitted,
    /// It does not arrive; with the drop reason, if the case specifies it.
    Denied(Option<DropReason>),
}

/// Whether the sender gets a reject packet where policy is enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rejected {
    /// It gets none.
    #[default]
    No,
    /// It gets one, unless the fence has sent as many as it may.
    Yes,
    /// It may get the one that is [permitted](super::rejection::permitted), if there is one.
    Unknown,
}

/// How the kernel is asked to segment a frame and to complete a checksum (`PACKET_VNET_HDR`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Bytes of payload of each segment, 0 for no segmentation.
    pub segment: u16,
    /// `VIRTIO_NET_HDR_GSO_…`.
    pub kind: u8,
    /// Length of all headers.
    pub headers: u16,
    /// The start of the checksummed data, and the offset of the checksum from there; `None` if the
    /// checksum is complete.
    pub checksum: Option<(u16, u16)>,
}

impl Offload {
    /// The `virtio_net_hdr` in front of the frame.
    #[must_use]
    pub fn header(&self) -> [u8; 10] {
        let (start, offset) = self.checksum.unwrap_or_default();
        let words = [self.headers, self.segment, start, offset].map(u16::to_ne_bytes);
        let [[a, b], [c, d], [e, f], [g, h]] = words;
        let flags = u8::from(self.checksum.is_some());
        [flags, self.kind, a, b, c, d, e, f, g, h]
    }
}

/// One frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestFrame {
    /// Its direction.
    pub direction: Direction,
    /// The bytes, starting with the Ethernet header.
    pub bytes: Vec<u8>,
    /// Set for frames that the kernel segments or completes.
    pub offload: Option<Offload>,
    /// The expected result.
    pub expect: Expect,
    /// Whether a reject packet is expected.
    pub rejected: Rejected,
}

impl TestFrame {
    /// Whether the kernel segments the frame: it ignores the request if one segment holds all of
    /// the payload.
    #[must_use]
    pub fn is_segmented(&self) -> bool {
        self.offload.is_some_and(|offload| {
            let one = usize::from(offload.headers) + usize::from(offload.segment);
            offload.segment != 0 && self.bytes.len() > one
        })
    }

    /// Whether it is an IP packet to its own source address.
    fn is_to_its_source(&self) -> bool {
        let ends = match self.bytes.get(12..14) {
            Some([0x08, 0x00]) => self.bytes.get(26..34),
            Some([0x86, 0xdd]) => self.bytes.get(22..54),
            _ => None,
        };
        ends.is_some_and(|ends| {
            let (from, to) = ends.split_at(ends.len() / 2);
            from == to
        })
    }
}

/// Frames in order; earlier frames set up the state that later ones attack.
#[derive(Clone, Debug)]
pub struct Case {
    /// The member of its family that built the case.
    pub member: &'static str,
    /// Whether the last frame was mutated, and its expected result computed by the model.
    pub mutated: bool,
    /// The frames.
    pub frames: Vec<TestFrame>,
}

impl Case {
    /// Whether a frame goes to its own source address. Such cases share their ends with each other,
    /// as other cases do not: a first fragment of one would let a later fragment of another pass.
    #[must_use]
    pub fn shares_its_ends(&self) -> bool {
        self.frames.iter().any(TestFrame::is_to_its_source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::craft;
    use crate::attack::fixture::{other_workload, protocol, workload};

    fn test_frame(bytes: Vec<u8>, offload: Option<Offload>) -> TestFrame {
        TestFrame {
            direction: Direction::Out,
            bytes,
            offload,
            expect: Expect::Permitted,
            rejected: Rejected::No,
        }
    }

    #[test]
    fn a_frame_that_fits_into_one_segment_is_not_segmented() {
        let offload = Offload {
            segment: 1000,
            headers: 42,
            ..Offload::default()
        };
        for (length, segment, segmented) in
            [(1042, 1000, false), (1043, 1000, true), (9000, 0, false)]
        {
            let offload = Offload { segment, ..offload };
            let frame = test_frame(vec![0; length], Some(offload));
            assert_eq!(frame.is_segmented(), segmented, "{length}");
        }
        assert!(!test_frame(vec![0; 9000], None).is_segmented());
    }

    #[test]
    fn cases_between_a_workload_and_itself_are_known() {
        for v6 in [false, true] {
            for (to, shares) in [(workload(v6), true), (other_workload(v6), false)] {
                let bytes = craft::ip_frame(workload(v6), to, protocol::UDP, b"payload");
                let case = Case {
                    member: "member",
                    mutated: false,
                    frames: vec![test_frame(bytes, None)],
                };
                assert_eq!(case.shares_its_ends(), shares);
            }
        }
    }
}
