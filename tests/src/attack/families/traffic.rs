//! Frames of real traffic, to where policy allows none: the seeds of the mutations that are nearest to what a
//! stack accepts.

use ringfence_common::drop_reason::DropReason::{OrphanFragment, Policy, SpoofedSource, Vlan};

use crate::attack::builder::CaseBuilder;
use crate::attack::case::Expect;
use crate::attack::craft::IP;
use crate::attack::family::{ANY, Family, Member, OUT};
use crate::attack::fixture::{self, protocol};
use crate::attack::traffic::{FRAMES, Part, Recorded};

/// Recorded frames between other ends.
pub(super) const RECORDED: Family = Family {
    name: "real-traffic",
    members: &[
        Member::new("to a denied port", ANY, |s| {
            let ports = (s.port, s.denied_port());
            send(s, Recorded::has_ports, ports, Expect::Denied(Some(Policy)));
        }),
        Member::new("of a server, without a connection", ANY, |s| {
            let ports = (s.allowed_port(protocol::TCP), s.port);
            let answers = |it: &Recorded| it.has_ports() && !it.from_client;
            send(s, answers, ports, Expect::Denied(Some(Policy)));
        }),
        Member::new("to a denied port next to a connection", ANY, |s| {
            s.connect();
            let ports = (s.port, s.denied_port());
            let segments = |it: &Recorded| it.protocol == protocol::TCP;
            send(s, segments, ports, Expect::Denied(Some(Policy)));
        }),
        Member::new("in a connection", ANY, |s| {
            s.connect();
            let ports = (s.port, s.allowed_port(protocol::TCP));
            let segments = |it: &Recorded| it.protocol == protocol::TCP && it.from_client;
            send(s, segments, ports, Expect::Permitted);
        }),
        Member::new("to an allowed port", ANY, |s| {
            let ports = (s.port, s.allowed_port(protocol::UDP));
            let datagrams = |it: &Recorded| it.protocol == protocol::UDP && it.has_ports();
            send(s, datagrams, ports, Expect::Permitted);
        }),
        Member::new("later fragments", ANY, |s| {
            let later = |it: &Recorded| it.part == Part::Later;
            send(s, later, (0, 0), Expect::Denied(Some(OrphanFragment)));
        }),
        Member::new("of another workload", OUT, |s| {
            let Some(recorded) = choose(s, |_| true) else {
                return;
            };
            let from = fixture::other_workload(s.v6);
            let ports = (s.port, s.allowed_port(recorded.protocol));
            let frame = recorded.between(from, s.peer, ports);
            match recorded.offload() {
                Some(offload) => {
                    s.send_offloaded(Expect::Denied(Some(SpoofedSource)), frame, offload);
                }
                None => s.deny(SpoofedSource, frame),
            }
        }),
        Member::new("with a tag", ANY, |s| {
            let Some(recorded) = choose(s, |it| it.has_ports() && it.offload().is_none()) else {
                return;
            };
            let (from, to) = s.ends();
            let ports = (s.port, s.allowed_port(recorded.protocol));
            let mut frame = recorded.between(from, to, ports);
            let tag = [0x81, 0, 0, s.rng.byte()];
            frame.splice(IP - 2..IP - 2, tag);
            s.deny(Vlan, frame);
        }),
    ],
};

fn send(
    s: &mut CaseBuilder<'_>,
    wanted: impl Fn(&Recorded) -> bool,
    ports: (u16, u16),
    expect: Expect,
) {
    let Some(recorded) = choose(s, wanted) else {
        return;
    };
    let (from, to) = s.ends();
    let frame = recorded.between(from, to, ports);
    match recorded.offload() {
        Some(offload) => s.send_offloaded(expect, frame, offload),
        None => s.send(expect, frame),
    }
}

/// One of the frames of this IP version.
fn choose(
    s: &mut CaseBuilder<'_>,
    wanted: impl Fn(&Recorded) -> bool,
) -> Option<&'static Recorded> {
    let all: Vec<_> = FRAMES
        .iter()
        .filter(|it| it.v6 == s.v6 && wanted(it))
        .collect();
    all.get(s.rng.below(all.len())).copied()
}
