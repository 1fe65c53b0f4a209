//! Rejected packets of a node that routes: unicast IPv6 in both directions, which a router forwards.

use super::{About, forge, reject, rejected, with_data, without_reset};
use crate::attack::family::{ANY6, Family, Member};
use crate::attack::fixture::protocol;

pub(in crate::attack::families) const ROUTED: Family = Family {
    name: "routed-rejects",
    members: &[
        Member::new("a SYN", ANY6, |s| rejected(s, protocol::TCP)),
        Member::new("a datagram", ANY6, |s| rejected(s, protocol::UDP)),
        Member::new("an echo request", ANY6, |s| rejected(s, s.icmp())),
        Member::new("another protocol", ANY6, |s| {
            let payload = s.rng.bytes(8);
            reject(s, 253, &payload);
        }),
        Member::new("a forged reset about nothing", ANY6, |s| {
            forge(s, About::Nothing, protocol::TCP, |_, frame| frame);
        }),
        Member::new("a forged error about nothing", ANY6, |s| {
            let number = without_reset(s);
            forge(s, About::Nothing, number, |_, frame| frame);
        }),
        Member::new("a reset a second time", ANY6, |s| {
            forge(s, About::Rejected, protocol::TCP, |_, frame| frame);
        }),
        Member::new("an error a second time, with data", ANY6, |s| {
            let number = without_reset(s);
            forge(s, About::Rejected, number, with_data);
        }),
        Member::new("control: an allowed datagram", ANY6, |s| {
            let port = s.allowed_port(protocol::UDP);
            s.permit(s.datagram(port));
        }),
    ],
};
