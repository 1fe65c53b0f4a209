//! TCP: headers that are too short, invalid flags, and segments that match no connection.

use ringfence_common::drop_reason::DropReason::{Policy, TcpFlags, TcpHeader};

use crate::attack::builder::CaseBuilder;
use crate::attack::craft::{
    self,
    flag::{ACK, FIN, PSH, RST, SYN, URG},
};
use crate::attack::family::{ANY, Family, IN, Member, OUT};
use crate::attack::fixture::{Direction, allowed_port, protocol};

/// Invalid data offsets.
pub(super) const HEADERS: Family = Family {
    name: "tcp-headers",
    members: &[
        Member::new("an offset under five", ANY, |s| {
            let words = s.rng.between(0, 4).to_be_bytes()[1];
            offset(s, words);
        }),
        Member::new("options past the packet", ANY, |s| {
            let words = s.rng.between(6, 15).to_be_bytes()[1];
            offset(s, words);
        }),
        Member::new("truncated", ANY, |s| {
            let segment = craft::tcp(s.port, s.allowed_port(protocol::TCP), SYN);
            let length = s.rng.below(20);
            s.deny(
                TcpHeader,
                s.frame(protocol::TCP, segment.get(..length).unwrap_or_default()),
            );
        }),
        Member::new("an offset under five, mid-connection", ANY, |s| {
            s.connect();
            let segment = craft::tcp(s.port, s.allowed_port(protocol::TCP), ACK);
            s.deny(
                TcpHeader,
                s.frame(protocol::TCP, &craft::with_bytes(segment, 12, &[4 << 4])),
            );
        }),
    ],
};

fn offset(s: &mut CaseBuilder<'_>, words: u8) {
    let segment = craft::tcp(s.port, s.allowed_port(protocol::TCP), SYN);
    s.deny(
        TcpHeader,
        s.frame(
            protocol::TCP,
            &craft::with_bytes(segment, 12, &[words << 4]),
        ),
    );
}

/// Combinations of flags.
pub(super) const FLAGS: Family = Family {
    name: "tcp-flags",
    members: &[
        Member::new("none", ANY, |s| flags(s, 0)),
        Member::new("XMAS", ANY, |s| flags(s, FIN | PSH | URG)),
        Member::new("all", ANY, |s| flags(s, 0xff)),
        Member::new("SYN and FIN", ANY, |s| flags(s, SYN | FIN)),
        Member::new("SYN and RST", ANY, |s| flags(s, SYN | RST)),
        Member::new("FIN alone", ANY, |s| flags(s, FIN)),
        Member::new("PSH alone", ANY, |s| flags(s, PSH)),
        Member::new("URG alone", ANY, |s| flags(s, URG)),
        Member::new("FIN and RST", ANY, |s| flags(s, FIN | RST | ACK)),
        Member::new("SYN, ACK and FIN", ANY, |s| flags(s, SYN | ACK | FIN)),
        Member::new("SYN, ACK and URG", ANY, |s| flags(s, SYN | ACK | URG)),
        Member::new("none, mid-connection", ANY, |s| {
            s.connect();
            flags(s, 0);
        }),
        Member::new("SYN and FIN, mid-connection", ANY, |s| {
            s.connect();
            flags(s, SYN | FIN);
        }),
        Member::new("FIN alone, mid-connection", ANY, |s| {
            s.connect();
            flags(s, FIN);
        }),
        Member::new("control: SYN with ECN bits", ANY, |s| {
            s.permit(s.segment(s.allowed_port(protocol::TCP), SYN | 0xc0));
        }),
    ],
};

fn flags(s: &mut CaseBuilder<'_>, flags: u8) {
    s.deny(TcpFlags, s.segment(s.allowed_port(protocol::TCP), flags));
}

/// Segments of no connection, after the pick-up window.
pub(super) const STATES: Family = Family {
    name: "tcp-states",
    members: &[
        Member::new("ACK to a denied port", ANY, |s| stray_segment(s, ACK)),
        Member::new("FIN to a denied port", ANY, |s| stray_segment(s, FIN | ACK)),
        Member::new("RST to a denied port", ANY, |s| stray_segment(s, RST)),
        Member::new("SYN+ACK to a denied port", ANY, |s| {
            stray_segment(s, SYN | ACK);
        }),
        Member::new(
            "an ACK reply first, from the other direction's port",
            ANY,
            |s| {
                unsolicited_reply(s, ACK);
            },
        ),
        Member::new("SYN+ACK first, from the other direction's port", ANY, |s| {
            unsolicited_reply(s, SYN | ACK);
        }),
        Member::new("RST first, from the other direction's port", ANY, |s| {
            unsolicited_reply(s, RST | ACK);
        }),
        Member::new("FIN first, from the other direction's port", ANY, |s| {
            unsolicited_reply(s, FIN | ACK);
        }),
        Member::new("simultaneous open against a denied SYN", ANY, |s| {
            let port = s.denied_port();
            s.deny(Policy, s.segment(port, SYN));
            let back = craft::tcp(port, s.port, SYN);
            s.deny_back(Policy, s.frame_back(protocol::TCP, &back));
            s.deny_back(
                Policy,
                s.frame_back(protocol::TCP, &craft::tcp(port, s.port, SYN | ACK)),
            );
        }),
        Member::new("simultaneous open against an allowed SYN", ANY, |s| {
            let port = s.allowed_port(protocol::TCP);
            s.permit(s.segment(port, SYN));
            let back = craft::tcp(port, s.port, SYN);
            s.deny_back(Policy, s.frame_back(protocol::TCP, &back));
        }),
        Member::new("a SYN from the responder", ANY, |s| {
            s.connect();
            let back = craft::tcp(s.allowed_port(protocol::TCP), s.port, SYN);
            s.deny_back(Policy, s.frame_back(protocol::TCP, &back));
        }),
        Member::new(
            "ports reused for a denied connection of the responder",
            ANY,
            |s| {
                s.connect();
                close(s);
                let back = craft::tcp(s.allowed_port(protocol::TCP), s.port, SYN);
                s.deny_back(Policy, s.frame_back(protocol::TCP, &back));
            },
        ),
        Member::new("the same ports to another peer", OUT, |s| {
            s.connect();
            s.peer = crate::attack::fixture::unlisted_host(s.v6);
            s.deny(Policy, s.segment(s.allowed_port(protocol::TCP), ACK));
        }),
        Member::new("the same ports from another peer", IN, |s| {
            s.direction = Direction::Out;
            s.connect();
            s.direction = Direction::In;
            s.peer = crate::attack::fixture::peer(s.v6, s.rng);
            let segment = craft::tcp(allowed_port(Direction::Out, protocol::TCP), s.port, ACK);
            s.deny(Policy, s.frame(protocol::TCP, &segment));
        }),
        Member::new("control: RST and FIN outside the TCP window", ANY, |s| {
            // The fence does not track sequence numbers; the ends validate them.
            s.connect();
            let flags = s.rng.choose(&[RST, FIN | ACK, RST | ACK], RST);
            let place = (0x7000_0000, 0x7000_0000);
            let segment =
                craft::tcp_with_sequence(s.port, s.allowed_port(protocol::TCP), flags, place);
            s.permit(s.frame(protocol::TCP, &segment));
        }),
        Member::new("control: ports reused", ANY, |s| {
            s.connect();
            close(s);
            s.connect();
        }),
    ],
};

/// A segment to a denied port, from a random port.
fn stray_segment(s: &mut CaseBuilder<'_>, flags: u8) {
    let port = s.denied_port();
    s.deny(Policy, s.segment(port, flags));
}

/// A segment that looks like a reply from the port that is allowed in the other direction.
fn unsolicited_reply(s: &mut CaseBuilder<'_>, flags: u8) {
    let from = allowed_port(s.direction.opposite(), protocol::TCP);
    s.deny(
        Policy,
        s.frame(protocol::TCP, &craft::tcp(from, s.port, flags)),
    );
}

/// Closes the connection with FINs from both ends.
fn close(s: &mut CaseBuilder<'_>) {
    let port = s.allowed_port(protocol::TCP);
    s.permit(s.segment(port, FIN | ACK));
    s.permit_back(s.frame_back(protocol::TCP, &craft::tcp(port, s.port, FIN | ACK)));
    s.permit(s.segment(port, ACK));
}
