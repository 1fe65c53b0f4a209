//! Two workloads that send between the same two ports: what policy allows one of them passes at
//! both ends, whatever the other did before.

use ringfence_common::mode::Mode;

use super::{PROTOCOLS, fence, flow, other, packet};
use crate::fence::{Arriving, FRIEND, Leaving, OTHER_IDENTITY, OTHERS, RULE, any_protocol};

#[test]
fn the_open_direction_of_the_same_ports_passes_when_the_other_is_shut() {
    for (protocol, ..) in PROTOCOLS {
        for v6 in [false, true] {
            let flow = flow(v6, 5060);
            // At the end that opened the flow, and at the end that shuts it.
            for originator in [Leaving, Arriving] {
                let back = other(originator);
                let [first, answer] = [originator, back].map(|way| packet(&flow, way, protocol));
                let mut fence = fence();
                fence.govern(originator, true, true);
                for (way, frame) in [(originator, &first), (back, &answer), (originator, &first)] {
                    fence.passes(way, frame, "both directions are open");
                }
                fence.govern(originator, false, true);
                for _ in 0..3 {
                    fence.passes(back, &answer, "the direction that is still open");
                    assert!(
                        !fence.allows(Mode::Enforce, originator, &first),
                        "what is shut"
                    );
                }
                fence.govern(originator, true, true);
                fence.passes(originator, &first, "open again");
            }
        }
    }
}

#[test]
fn a_flow_that_was_only_observed_does_not_shut_the_other_direction() {
    for (protocol, ..) in PROTOCOLS {
        for v6 in [false, true] {
            let flow = flow(v6, 5060);
            for originator in [Leaving, Arriving] {
                let back = other(originator);
                let [first, answer] = [originator, back].map(|way| packet(&flow, way, protocol));
                let mut fence = fence();
                fence.govern(originator, false, true);
                fence.set_mode(Mode::Observe);
                assert!(
                    !fence.allows(Mode::Observe, originator, &first),
                    "would be denied"
                );
                assert!(
                    fence.allows(Mode::Observe, back, &answer),
                    "is allowed by itself"
                );
                fence.set_mode(Mode::Enforce);
                fence.passes(back, &answer, "in enforce, too");
                fence.passes(originator, &first, "now a reply");

                // Without a packet of the other side in observe.
                fence.clear_flows();
                fence.set_mode(Mode::Observe);
                assert!(
                    !fence.allows(Mode::Observe, originator, &first),
                    "would be denied"
                );
                fence.set_mode(Mode::Enforce);
                assert!(
                    !fence.allows(Mode::Enforce, originator, &first),
                    "is denied"
                );
                fence.passes(back, &answer, "the first packet of the other side");
                fence.passes(originator, &first, "its reply");
            }
        }
    }
}

#[test]
fn a_flow_with_the_former_owner_of_an_address_does_not_shut_the_other_direction() {
    for (protocol, ..) in PROTOCOLS {
        for v6 in [false, true] {
            let flow = flow(v6, 8301);
            for originator in [Leaving, Arriving] {
                let back = other(originator);
                let [first, answer] = [originator, back].map(|way| packet(&flow, way, protocol));
                let mut fence = fence();
                let direction = |way| match way {
                    Leaving => ringfence_common::mode::Direction::Egress,
                    _ => ringfence_common::mode::Direction::Ingress,
                };
                // The new owner may only send, or be sent to, in the other direction.
                fence.govern(originator, true, false);
                let in_force = super::table(originator == Leaving, originator == Arriving);
                let row = ringfence_common::policy::PolicyRow::lasting(
                    ringfence_common::mode::Verdict::Allow,
                    RULE,
                );
                fence.put_row(any_protocol(in_force, OTHERS, direction(back)), row);
                fence.passes(originator, &first, "with the former owner");
                fence.passes(back, &answer, "its reply");

                let address = FRIEND.ip(v6);
                let relabel = ringfence::plan::Action::PutAddress(address, OTHER_IDENTITY);
                fence.write(relabel);
                fence.write(ringfence::plan::Action::BumpEpoch(address));
                fence.passes(back, &answer, "control: a relabelled peer, by itself");
                assert!(
                    !fence.allows(Mode::Enforce, originator, &first),
                    "and not as its reply"
                );

                fence.change_owner(address);
                assert!(
                    !fence.allows(Mode::Enforce, originator, &first),
                    "denied to the new owner"
                );
                fence.passes(back, &answer, "allowed to the new owner");
                fence.passes(originator, &first, "a reply to it");
            }
        }
    }
}
