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
