//! Large frames: headers outside the linear data, and packets that the kernel segments.

use ringfence_common::drop_reason::DropReason::{ExtensionHeaders, IpLength, Policy, TcpHeader};

use crate::attack::builder::CaseBuilder;
use crate::attack::case::{Expect, Offload};
use crate::attack::craft::{self, AFTER_IP4, AFTER_IP6, IP, flag};
use crate::attack::family::{ANY, ANY6, Family, Member};
use crate::attack::fixture::protocol;

/// So large that most of the frame is in page fragments.
const LARGE: usize = 8800;

/// Frames near the MTU of 9000.
pub(super) const FRAMES: Family = Family {
    name: "large-frames",
    members: &[
        Member::new("to a denied port", ANY, |s| {
            let port = s.denied_port();
            let frame = large(s, port);
            s.deny(Policy, frame);
        }),
        Member::new("to an allowed port", ANY, |s| {
            let frame = large(s, s.allowed_port(protocol::TCP));
            s.permit(frame);
        }),
        Member::new("a denied port behind long headers", ANY6, |s| {
            let port = s.denied_port();
            let frame = behind_long_headers(s, port);
            s.deny(Policy, frame);
        }),
        Member::new("an allowed port behind long headers", ANY6, |s| {
            let frame = behind_long_headers(s, s.allowed_port(protocol::TCP));
            s.permit(frame);
        }),
        Member::new("nine long headers", ANY6, |s| {
            let mut payload = Vec::new();
            for index in 0..9 {
                payload.extend(craft::extension(
                    if index == 8 { protocol::TCP } else { 60 },
                    100,
                ));
            }
            payload.extend(craft::tcp(s.port, s.allowed_port(protocol::TCP), flag::SYN));
            s.deny(ExtensionHeaders, s.frame(60, &payload));
        }),
        Member::new("a length beyond the frame", ANY, |s| {
            let frame = large(s, s.allowed_port(protocol::TCP));
            let at = if s.v6 { IP + 4 } else { IP + 2 };
            s.deny(IpLength, craft::with_bytes(frame, at, &[0x23, 0x28]));
        }),
        Member::new("a denied packet with an allowed one behind it", ANY, |s| {
            let port = s.denied_port();
            let mut frame = s.datagram(port);
            frame.resize(4100, 0);
            frame.extend(s.datagram(s.allowed_port(protocol::UDP)));
            s.deny(Policy, frame);
        }),
    ],
};

fn large(s: &mut CaseBuilder<'_>, port: u16) -> Vec<u8> {
    let mut segment = craft::tcp(s.port, port, flag::SYN);
    segment.resize(LARGE - s.rng.below(4000), 0x5a);
    s.frame(protocol::TCP, &segment)
}

/// TCP behind four destination options headers of up to two kilobytes, far outside the linear data.
fn behind_long_headers(s: &mut CaseBuilder<'_>, port: u16) -> Vec<u8> {
    let mut payload = Vec::new();
    for index in 0..4 {
        let words = s.rng.between(150, 255).to_be_bytes()[1];
        payload.extend(craft::extension(
            if index == 3 { protocol::TCP } else { 60 },
            words,
        ));
    }
    payload.extend(craft::tcp(s.port, port, flag::SYN));
    s.frame(60, &payload)
}

/// Frames with a `virtio_net_hdr`.
pub(super) const OFFLOAD: Family = Family {
    name: "segmentation-offload",
    members: &[
        Member::new("TCP to a denied port", ANY, |s| {
            let port = s.denied_port();
            send_gso_tcp(s, Expect::Denied(Some(Policy)), port);
        }),
        Member::new("TCP to an allowed port", ANY, |s| {
            send_gso_tcp(s, Expect::Permitted, s.allowed_port(protocol::TCP));
        }),
        Member::new("UDP to a denied port", ANY, |s| {
            let port = s.denied_port();
            send_gso_udp(s, Expect::Denied(Some(Policy)), port);
        }),
        Member::new("UDP to an allowed port", ANY, |s| {
            send_gso_udp(s, Expect::Permitted, s.allowed_port(protocol::UDP));
        }),
        Member::new("a checksum to be completed, denied port", ANY, |s| {
            let port = s.denied_port();
            let frame = s.datagram(port);
            let offload = checksum_offload(s, 6);
            s.send_offloaded(Expect::Denied(Some(Policy)), frame, offload);
        }),
        Member::new("a checksum to be completed, allowed port", ANY, |s| {
            let frame = s.datagram(s.allowed_port(protocol::UDP));
            let offload = checksum_offload(s, 6);
            s.send_offloaded(Expect::Permitted, frame, offload);
        }),
        Member::new("length zero without segmentation", ANY, |s| {
            let at = if s.v6 { IP + 4 } else { IP + 2 };
            let frame = craft::with_bytes(
                s.segment(s.allowed_port(protocol::TCP), flag::SYN),
                at,
                &[0, 0],
            );
            let reason = if s.v6 { TcpHeader } else { IpLength };
            s.send_offloaded(Expect::Denied(Some(reason)), frame, Offload::default());
        }),
        Member::new("length zero, too short to be segmented", ANY, |s| {
            let at = if s.v6 { IP + 4 } else { IP + 2 };
            let frame = s.segment(s.allowed_port(protocol::TCP), flag::SYN);
            let frame = craft::with_bytes(frame, at, &[0, 0]);
            let reason = if s.v6 { TcpHeader } else { IpLength };
            let offload = gso_tcp(s);
            s.send_offloaded(Expect::Denied(Some(reason)), frame, offload);
        }),
        Member::new("in an allowed connection, another port", ANY, |s| {
            s.connect();
            let port = s.denied_port();
            send_gso_tcp(s, Expect::Denied(Some(Policy)), port);
        }),
    ],
};

/// `VIRTIO_NET_HDR_GSO_…`.
const TCPV4: u8 = 1;
const TCPV6: u8 = 4;
const UDP_L4: u8 = 5;

fn checksum_offload(s: &CaseBuilder<'_>, offset: u16) -> Offload {
    let start = if s.v6 { AFTER_IP6 } else { AFTER_IP4 };
    Offload {
        checksum: Some((u16::try_from(start).unwrap_or(0), offset)),
        ..Offload::default()
    }
}

fn send_gso_tcp(s: &mut CaseBuilder<'_>, expect: Expect, port: u16) {
    let mut segment = craft::tcp(s.port, port, flag::ACK);
    segment.resize(20 + 5000, 0x5a);
    let frame = s.frame(protocol::TCP, &segment);
    let offload = gso_tcp(s);
    s.send_offloaded(expect, frame, offload);
}

fn gso_tcp(s: &CaseBuilder<'_>) -> Offload {
    let start = if s.v6 { AFTER_IP6 } else { AFTER_IP4 };
    Offload {
        segment: 1000,
        kind: if s.v6 { TCPV6 } else { TCPV4 },
        headers: u16::try_from(start + 20).unwrap_or(0),
        ..checksum_offload(s, 16)
    }
}

fn send_gso_udp(s: &mut CaseBuilder<'_>, expect: Expect, port: u16) {
    let frame = s.frame(protocol::UDP, &craft::udp(s.port, port, &[0x5a; 5000]));
    let start = if s.v6 { AFTER_IP6 } else { AFTER_IP4 };
    let offload = Offload {
        segment: 1000,
        kind: UDP_L4,
        headers: u16::try_from(start + 8).unwrap_or(0),
        ..checksum_offload(s, 6)
    };
    s.send_offloaded(expect, frame, offload);
}
