//! What the rows say of a flow's first packet, in both directions and families.

use ringfence::plan::Action;
use ringfence_common::{
    drop_reason::DropReason,
    ids::{ClassId, IdentityId, NamespaceSlot, RuleSlot, TableId},
    mode::{Direction, Mode, Verdict},
    policy::{PolicyKey, PolicyRow},
};
use ringfence_testbed::eventually;

use crate::fence::{
    Arriving, Both, Dropped, FRIEND, FRIENDS, Fence, FromNode, IFINDEX, LOCAL, Leaving, OTHER,
    Passed, RULE, STRANGER, TABLE, Way, exact, key, protocol,
};
use crate::frames::{ACK, PSH, SCTP, SYN, TCP, Talk, UDP, echo, frame, icmp_of};

const WAYS: [(Way, Direction); 2] = [(Leaving, Direction::Egress), (Arriving, Direction::Ingress)];

/// The first packet of a flow: from port 40000 to the given one.
fn first(way: Way, v6: bool, peer: Both, number: u8, port: u16) -> Vec<u8> {
    let (local, remote) = if way == Leaving {
        (40000, port)
    } else {
        (port, 40000)
    };
    let talk = Talk {
        v6,
        local: (LOCAL, local),
        peer: (peer, remote),
    };
    if way == Leaving {
        talk.out(number, SYN)
    } else {
        talk.back(number, SYN)
    }
}

fn lasting(verdict: Verdict, rule: u32) -> PolicyRow {
    PolicyRow::lasting(verdict, RuleSlot(rule))
}

#[test]
fn nothing_passes_by_default() {
    let mut fence = Fence::new();
    for v6 in [false, true] {
        for (way, _) in WAYS {
            for number in [TCP, UDP, SCTP, 47] {
                let frame = first(way, v6, FRIEND, number, 80);
                fence.refuses(way, &frame, DropReason::Policy, "default deny");
            }
            let (from, to) = match way {
                Leaving => (LOCAL, FRIEND),
                _ => (FRIEND, LOCAL),
            };
            let ping = frame(from.ip(v6), to.ip(v6), icmp_of(v6), &echo(v6, 9));
            fence.refuses(way, &ping, DropReason::Policy, "default deny of echo");
        }
    }
    assert!(fence.hits(RuleSlot::DEFAULT_DENY) >= 20);
}

#[test]
fn a_row_allows_its_direction_protocol_and_port_only() {
    for (way, direction) in WAYS {
        let mut fence = Fence::new();
        fence.allow(direction, TCP, 443);
        for v6 in [false, true] {
            fence.passes(
                way,
                &first(way, v6, FRIEND, TCP, 443),
                "what the row allows",
            );
            let other = if way == Leaving { Arriving } else { Leaving };
            for (way, peer, number, port, what) in [
                (way, FRIEND, TCP, 444, "another port"),
                (way, FRIEND, UDP, 443, "another protocol"),
                (way, OTHER, TCP, 443, "another class"),
                (other, FRIEND, TCP, 443, "the other direction"),
            ] {
                let frame = first(way, v6, peer, number, port);
                fence.refuses(way, &frame, DropReason::Policy, what);
            }
        }
        assert_eq!(fence.hits(RULE), 2, "once for each family");
    }
}

#[test]
fn a_row_denies_what_a_wider_one_allows() {
    for (way, direction) in WAYS {
        let mut fence = Fence::new();
        fence.allow_friends();
        let deny = lasting(Verdict::Deny, 41);
        fence.put(exact(TABLE, FRIENDS, direction, TCP, 22), deny);
        for v6 in [false, true] {
            let frame = first(way, v6, FRIEND, TCP, 22);
            fence.refuses(way, &frame, DropReason::Policy, "denied by its row");
            fence.passes(
                way,
                &first(way, v6, FRIEND, TCP, 23),
                "control: beside the row",
            );
        }
        assert!(fence.hits(RuleSlot(41)) >= 4);
    }
}

#[test]
fn a_wide_row_of_the_class_beats_a_narrow_one_of_any_class() {
    for (way, direction) in WAYS {
        let mut fence = Fence::new();
        let any = exact(TABLE, ClassId::ANY, direction, TCP, 80);
        fence.put(any, lasting(Verdict::Allow, 41));
        let own = protocol(TABLE, FRIENDS, direction, TCP);
        fence.put(own, lasting(Verdict::Deny, 42));
        for v6 in [false, true] {
            let frame = first(way, v6, FRIEND, TCP, 80);
            fence.refuses(way, &frame, DropReason::Policy, "the class's own row");
            fence.passes(
                way,
                &first(way, v6, OTHER, TCP, 80),
                "control: the any-class row",
            );
        }
        assert!(fence.hits(RuleSlot(42)) >= 4);
        assert_eq!(fence.hits(RuleSlot(41)), 2);
    }
}

#[test]
fn the_longest_port_prefix_decides() {
    for (way, direction) in WAYS {
        let mut fence = Fence::new();
        // tcp/8080-8087 allowed, of which 8082-8083 denied, of which 8083 allowed.
        for (bits, port, verdict) in [
            (13, 8080, Verdict::Allow),
            (15, 8082, Verdict::Deny),
            (16, 8083, Verdict::Allow),
        ] {
            let (_, row) = exact(TABLE, FRIENDS, direction, TCP, port);
            fence.put((PolicyKey::PROTOCOL_BITS + bits, row), lasting(verdict, 40));
        }
        for v6 in [false, true] {
            for port in 8078..8090 {
                let frame = first(way, v6, FRIEND, TCP, port);
                if matches!(port, 8080 | 8081 | 8083..=8087) {
                    fence.passes(way, &frame, &format!("port {port}"));
                } else {
                    fence.refuses(way, &frame, DropReason::Policy, &format!("port {port}"));
                }
            }
        }
    }
}

#[test]
fn doubt_is_a_deny() {
    for (way, direction) in WAYS {
        let mut fence = Fence::new();
        let any = key(TABLE, ClassId::ANY, direction);
        fence.put(any, lasting(Verdict::Allow, 41));
        for v6 in [false, true] {
            let stranger = first(way, v6, STRANGER, TCP, 80);
            let reason = DropReason::UnknownPeer;
            fence.refuses(
                way,
                &stranger,
                reason,
                "a peer in no map, though all may pass",
            );
            fence.passes(
                way,
                &first(way, v6, OTHER, TCP, 80),
                "control: a known peer",
            );
        }
        for table in [TableId::NONE, TableId(99)] {
            fence.edit(|endpoint| endpoint.table = table);
            for v6 in [false, true] {
                let frame = first(way, v6, FRIEND, TCP, 80);
                fence.refuses(way, &frame, DropReason::NoPolicyRow, "a table without rows");
            }
        }
    }
}

#[test]
fn a_prefix_identifies_and_an_exact_address_beats_it() {
    let mut fence = Fence::new();
    for (way, direction) in WAYS {
        let allow = lasting(Verdict::Allow, 41);
        fence.put(key(TABLE, ClassId(8), direction), allow);
        for v6 in [false, true] {
            let stranger = first(way, v6, STRANGER, TCP, 80);
            fence.refuses(way, &stranger, DropReason::UnknownPeer, "before");
        }
    }
    for prefix in ["192.0.0.0/16", "2001:db8::/32"] {
        fence.write(Action::PutPrefix(prefix.parse().unwrap(), IdentityId(30)));
    }
    for prefix in ["192.0.2.0/24", "2001:db8::/64"] {
        fence.write(Action::PutPrefix(prefix.parse().unwrap(), IdentityId(31)));
    }
    fence.write(Action::SetClass(IdentityId(31), ClassId(8)));
    for (way, _) in WAYS {
        for v6 in [false, true] {
            fence.passes(way, &first(way, v6, STRANGER, TCP, 80), "the longer prefix");
        }
    }
    for v6 in [false, true] {
        fence.write(Action::PutAddress(STRANGER.ip(v6), IdentityId(30)));
    }
    for (way, _) in WAYS {
        for v6 in [false, true] {
            let frame = first(way, v6, STRANGER, TCP, 81);
            fence.refuses(way, &frame, DropReason::Policy, "the exact address");
        }
    }
}

#[test]
fn the_node_and_the_own_address_need_no_rule() {
    let mut fence = Fence::new();
    for v6 in [false, true] {
        let probe = first(Arriving, v6, STRANGER, TCP, 80);
        fence.refuses(
            Arriving,
            &probe,
            DropReason::UnknownPeer,
            "control: from elsewhere",
        );
    }
    drop(fence);
    let mut fence = Fence::new();
    for v6 in [false, true] {
        let talk = Talk {
            v6,
            local: (LOCAL, 80),
            peer: (STRANGER, 40000),
        };
        fence.passes(FromNode, &talk.back(TCP, SYN), "a socket of this node");
        fence.passes(Leaving, &talk.out(TCP, SYN | ACK), "the answer to it");
        let own = Talk {
            v6,
            local: (LOCAL, 80),
            peer: (LOCAL, 40000),
        };
        fence.passes(Leaving, &own.out(TCP, SYN), "to the own address");
        fence.passes(Way::Hairpin, &own.back(TCP, SYN | ACK), "and back from it");
    }
    assert_eq!(fence.hits(RuleSlot::HOST_INGRESS), 2);
    assert_eq!(fence.hits(RuleSlot::OWN_ADDRESS), 2);
}

#[test]
fn a_timed_row_lapses_on_time_under_a_live_flow() {
    for v6 in [false, true] {
        for (way, direction) in WAYS {
            let mut fence = Fence::new();
            let until = fence.now() + 150_000_000;
            let row = PolicyRow::until(
                (Verdict::Allow, RULE),
                until,
                (Verdict::Deny, RuleSlot::DEFAULT_DENY),
            );
            fence.put(exact(TABLE, FRIENDS, direction, TCP, 80), row);
            let talk = if way == Leaving {
                Talk {
                    v6,
                    local: (LOCAL, 40000),
                    peer: (FRIEND, 80),
                }
            } else {
                Talk {
                    v6,
                    local: (LOCAL, 80),
                    peer: (FRIEND, 40000),
                }
            };
            let mut passed = 0;
            let mut next = [talk.out(TCP, SYN), talk.back(TCP, SYN)]
                .into_iter()
                .skip(usize::from(way != Leaving));
            let mut opening = next.next();
            eventually(
                std::time::Duration::from_secs(5),
                "the end of the grant",
                || {
                    // The clock is read on both sides of the packet, so that a slow machine only
                    // blurs the moment, never the verdict.
                    let before = fence.now();
                    let fate = match opening.take() {
                        Some(frame) => fence.run(way, &frame),
                        None if passed % 2 == 1 && way == Leaving => {
                            fence.arriving(&talk.back(TCP, ACK | PSH))
                        }
                        None if passed % 2 == 1 => fence.leaving(&talk.out(TCP, ACK | PSH)),
                        None if way == Leaving => fence.leaving(&talk.out(TCP, ACK)),
                        None => fence.arriving(&talk.back(TCP, ACK)),
                    };
                    let after = fence.now();
                    assert!(after >= until || fate == Passed, "{way:?}: ended too early");
                    assert!(
                        before < until || fate == Dropped,
                        "{way:?}: outlived its time"
                    );
                    passed += u32::from(fate == Passed);
                    Ok((fate == Dropped).then_some(()))
                },
            )
            .unwrap();
            for frame in [talk.out(TCP, ACK), talk.back(TCP, ACK)]
                .iter()
                .zip([Leaving, Arriving])
            {
                fence.refuses(frame.1, frame.0, DropReason::Policy, "after the grant");
            }
        }
    }
}

#[test]
fn a_row_may_also_begin_to_allow() {
    let mut fence = Fence::new();
    let now = fence.now();
    let deny = (Verdict::Deny, RuleSlot::DEFAULT_DENY);
    let lapsed = PolicyRow::until(deny, now, (Verdict::Allow, RULE));
    let ahead = PolicyRow::until(deny, u64::MAX - 1, (Verdict::Allow, RULE));
    fence.put(exact(TABLE, FRIENDS, Direction::Egress, TCP, 80), lapsed);
    fence.put(exact(TABLE, FRIENDS, Direction::Egress, TCP, 81), ahead);
    for v6 in [false, true] {
        fence.passes(
            Leaving,
            &first(Leaving, v6, FRIEND, TCP, 80),
            "its time has come",
        );
        let frame = first(Leaving, v6, FRIEND, TCP, 81);
        fence.refuses(Leaving, &frame, DropReason::Policy, "its time lies ahead");
    }
}

#[test]
fn lockdown_drops_everything() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow_friends();
        let talk = Talk {
            v6,
            local: (LOCAL, 40000),
            peer: (FRIEND, 80),
        };
        fence.passes(Leaving, &talk.out(TCP, SYN), "control: allowed");
        fence.passes(Arriving, &talk.back(TCP, SYN | ACK), "control: its answer");
        for by_endpoint in [false, true] {
            if by_endpoint {
                fence.set_mode(Mode::Observe);
                fence.edit(|endpoint| endpoint.mode_override = Mode::Lockdown as u8);
            } else {
                fence.set_mode(Mode::Lockdown);
            }
            let (dropped, _) = fence.count(DropReason::Lockdown);
            let new = first(Leaving, v6, FRIEND, UDP, 53);
            for (way, frame) in [
                (Leaving, talk.out(TCP, ACK)),
                (Arriving, talk.back(TCP, ACK)),
                (Leaving, new),
                (FromNode, first(Arriving, v6, STRANGER, TCP, 80)),
            ] {
                assert_eq!(fence.run(way, &frame), Dropped, "{way:?}");
            }
            assert_eq!(fence.count(DropReason::Lockdown).0, dropped + 4);
        }
        fence.edit(|endpoint| endpoint.mode_override = 0);
        fence.set_mode(Mode::Enforce);
        fence.passes(Leaving, &talk.out(TCP, ACK), "control: after the lockdown");
    }
}

#[test]
fn an_unknown_endpoint_follows_the_nodes_default() {
    let mut fence = Fence::new();
    fence.allow_friends();
    fence.write(Action::DeleteEndpoint(IFINDEX));
    let slot = NamespaceSlot::NODE_DEFAULT;
    for v6 in [false, true] {
        for (way, _) in WAYS {
            let frame = first(way, v6, FRIEND, TCP, 80);
            // `observe` of the endpoint's former namespace does not count.
            fence.set_mode(Mode::Observe);
            for (mode, fate) in [
                (Mode::Enforce, Dropped),
                (Mode::Lockdown, Dropped),
                (Mode::Observe, Passed),
            ] {
                fence.write(Action::SetMode(slot, mode));
                let before = fence.count(DropReason::UnknownEndpoint);
                assert_eq!(fence.run(way, &frame), fate, "{way:?} in {mode:?}");
                let after = fence.count(DropReason::UnknownEndpoint);
                let counted = (after.0 - before.0, after.1 - before.1);
                let expected = if fate == Passed { (0, 1) } else { (1, 0) };
                assert_eq!(counted, expected, "{way:?} in {mode:?}");
            }
        }
    }
    assert_eq!(fence.reasons().len(), 1);
}
