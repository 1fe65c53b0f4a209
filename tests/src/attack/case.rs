//! One frame with what should become of it, and the sequence of frames that makes a case.

use ringfence_common::drop_reason::DropReason;

use super::fixture::Direction;

/// What must become of a frame where policy is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It arrives.
    Permitted,
    /// It does not arrive; the reason, if the case knows it.
    Denied(Option<DropReason>),
}

/// How the sender asks the kernel to cut a frame, and to finish a checksum (`PACKET_VNET_HDR`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// Bytes of payload of each segment, 0 for none.
    pub segment: u16,
    /// `VIRTIO_NET_HDR_GSO_…`.
    pub kind: u8,
    /// Length of all headers.
    pub headers: u16,
    /// Where the sum starts, and the checksum's offset from there; none for a finished one.
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

/// One frame on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestFrame {
    /// Which way.
    pub direction: Direction,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Set for frames that the kernel is to cut.
    pub offload: Option<Offload>,
    /// What must become of it.
    pub expect: Expect,
}

/// Frames in order; the earlier ones prepare what the later ones abuse.
#[derive(Clone, Debug)]
pub struct Case {
    /// Which member of its family this is.
    pub member: &'static str,
    /// Whether the last frame was changed at random, and its expectation read from the frame.
    pub mutated: bool,
    /// The frames.
    pub frames: Vec<TestFrame>,
}
