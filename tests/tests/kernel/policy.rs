//! Policy decisions for the first packet of a flow, in both directions and families.

use ringfence::plan::Action;
use ringfence_common::{
    drop_reason::DropReason,
    ids::{ClassId, IdentityId, NamespaceSlot, RuleSlot, TableId},
    mode::{Direction, Mode, Verdict},
    policy::{PolicyKey, PolicyRow},
};
use ringfence_testbed::eventually;

use crate::fence::{
    Arriving, Dropped, DualStack, FRIEND, FRIENDS, Fence, FromHost, IFINDEX, LOCAL, Leaving, OTHER,
    Passed, RULE, TABLE, UNKNOWN_PEER, Way, any_port, any_protocol, exact,
};
use crate::frames::{ACK, Flow, PSH, SCTP, SYN, TCP, UDP, echo, frame, icmp_of};

const WAYS: [(Way, Direction); 2] = [(Leaving, Direction::Egress), (Arriving, Direction::Ingress)];

/// The first packet of a flow: from port 40000 to the given one.
fn first_packet(way: Way, v6: bool, peer: DualStack, protocol: u8, port: u16) -> Vec<u8> {
    let (local, remote) = if way == Leaving {
        (40000, port)
    } else {
        (port, 40000)
    };
    let flow = Flow {
        v6,
        local: (LOCAL, local),
        peer: (peer, remote),
    };
    if way == Leaving {
        flow.outbound(protocol, SYN)
    } else {
        flow.inbound(protocol, SYN)
    }
}

fn lasting(verdict: Verdict, rule: u32) -> PolicyRow {
    PolicyRow::lasting(verdict, RuleSlot(rule))
}

#[test]
fn the_default_is_deny() {
    let mut fence = Fence::new();
    for v6 in [false, true] {
        for (way, _) in WAYS {
            for protocol in [TCP, UDP, SCTP, 47] {
                let frame = first_packet(way, v6, FRIEND, protocol, 80);
                fence.denies(way, &frame, DropReason::Policy, "default deny");
            }
            let (from, to) = match way {
                Leaving => (LOCAL, FRIEND),
                _ => (FRIEND, LOCAL),
            };
            let ping = frame(from.ip(v6), to.ip(v6), icmp_of(v6), &echo(v6, 9));
            fence.denies(way, &ping, DropReason::Policy, "default deny of echo");
        }
    }
    assert!(fence.hits(RuleSlot::DEFAULT_DENY) >= 20);
}

#[test]
fn a_row_allows_only_its_class_direction_protocol_and_port() {
    for (way, direction) in WAYS {
        let mut fence = Fence::new();
        fence.allow(direction, TCP, 443);
        for v6 in [false, true] {
            fence.passes(
                way,
                &first_packet(way, v6, FRIEND, TCP, 443),
                "the row allows it",
            );
            let other = if way == Leaving { Arriving } else { Leaving };
            for (way, peer, protocol, port, what) in [
                (way, FRIEND, TCP, 444, "another port"),
                (way, FRIEND, UDP, 443, "another protocol"),
                (way, OTHER, TCP, 443, "another class"),
                (other, FRIEND, TCP, 443, "the other direction"),
            ] {
                let frame = first_packet(way, v6, peer, protocol, port);
                fence.denies(way, &frame, DropReason::Policy, what);
            }
        }
        assert_eq!(fence.hits(RULE), 2, "once for each family");
    }
}

#[test]
fn a_port_row_overrides_a_wider_row() {
    for (way, direction) in WAYS {
        let mut fence = Fence::new();
        fence.allow_friends();
        let deny = lasting(Verdict::Deny, 41);
        fence.put_row(exact(TABLE, FRIENDS, direction, TCP, 22), deny);
        for v6 in [false, true] {
            let frame = first_packet(way, v6, FRIEND, TCP, 22);
            fence.denies(way, &frame, DropReason::Policy, "denied by the port row");
            fence.passes(
                way,
                &first_packet(way, v6, FRIEND, TCP, 23),
                "control: another port",
            );
        }
        assert!(fence.hits(RuleSlot(41)) >= 4);
    }
}

#[test]
fn a_wide_row_of_the_class_overrides_a_port_row_of_any_class() {
    for (way, direction) in WAYS {
        let mut fence = Fence::new();
        let any = exact(TABLE, ClassId::ANY, direction, TCP, 80);
        fence.put_row(any, lasting(Verdict::Allow, 41));
        let own = any_port(TABLE, FRIENDS, direction, TCP);
        fence.put_row(own, lasting(Verdict::Deny, 42));
        for v6 in [false, true] {
            let frame = first_packet(way, v6, FRIEND, TCP, 80);
            fence.denies(way, &frame, DropReason::Policy, "the row of the class");
            fence.passes(
                way,
                &first_packet(way, v6, OTHER, TCP, 80),
                "control: the row of any class",
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
        // tcp/8080-8087 is allowed, within it 8082-8083 denied, within that 8083 allowed.
        for (bits, port, verdict) in [
            (13, 8080, Verdict::Allow),
            (15, 8082, Verdict::Deny),
            (16, 8083, Verdict::Allow),
        ] {
            let (_, row) = exact(TABLE, FRIENDS, direction, TCP, port);
            fence.put_row((PolicyKey::PROTOCOL_BITS + bits, row), lasting(verdict, 40));
        }
        for v6 in [false, true] {
            for port in 8078..8090 {
                let frame = first_packet(way, v6, FRIEND, TCP, port);
                if matches!(port, 8080 | 8081 | 8083..=8087) {
                    fence.passes(way, &frame, &format!("port {port}"));
                } else {
                    fence.denies(way, &frame, DropReason::Policy, &format!("port {port}"));
                }
            }
        }
    }
}

#[test]
fn unknown_peers_and_missing_rows_fail_closed() {
    for (way, direction) in WAYS {
        let mut fence = Fence::new();
        let any = any_protocol(TABLE, ClassId::ANY, direction);
        fence.put_row(any, lasting(Verdict::Allow, 41));
        for v6 in [false, true] {
            let unknown = first_packet(way, v6, UNKNOWN_PEER, TCP, 80);
            let reason = DropReason::UnknownPeer;
            fence.denies(
                way,
                &unknown,
                reason,
                "a peer in no map, though every class is allowed",
            );
            fence.passes(
                way,
                &first_packet(way, v6, OTHER, TCP, 80),
                "control: a known peer",
            );
        }
        for table in [TableId::NONE, TableId(99)] {
            fence.edit(|endpoint| endpoint.table = table);
            for v6 in [false, true] {
                let frame = first_packet(way, v6, FRIEND, TCP, 80);
                fence.denies(way, &frame, DropReason::NoPolicyRow, "a table without rows");
            }
        }
    }
}

#[test]
fn the_longest_prefix_gives_the_identity_unless_the_exact_address_is_known() {
    let mut fence = Fence::new();
    for (way, direction) in WAYS {
        let allow = lasting(Verdict::Allow, 41);
        fence.put_row(any_protocol(TABLE, ClassId(8), direction), allow);
        for v6 in [false, true] {
            let unknown = first_packet(way, v6, UNKNOWN_PEER, TCP, 80);
            fence.denies(way, &unknown, DropReason::UnknownPeer, "before");
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
            fence.passes(
                way,
                &first_packet(way, v6, UNKNOWN_PEER, TCP, 80),
                "the longer prefix",
            );
        }
    }
    for v6 in [false, true] {
        fence.write(Action::PutAddress(UNKNOWN_PEER.ip(v6), IdentityId(30)));
    }
    for (way, _) in WAYS {
        for v6 in [false, true] {
            let frame = first_packet(way, v6, UNKNOWN_PEER, TCP, 81);
            fence.denies(way, &frame, DropReason::Policy, "the exact address");
        }
    }
}

#[test]
fn packets_of_the_host_and_of_own_addresses_need_no_rule() {
    let mut fence = Fence::new();
    for v6 in [false, true] {
        let probe = first_packet(Arriving, v6, UNKNOWN_PEER, TCP, 80);
        fence.denies(
            Arriving,
            &probe,
            DropReason::UnknownPeer,
            "control: from elsewhere",
        );
    }
    drop(fence);
    let mut fence = Fence::new();
    for v6 in [false, true] {
        let flow = Flow {
            v6,
            local: (LOCAL, 80),
            peer: (UNKNOWN_PEER, 40000),
        };
        fence.passes(
            FromHost,
            &flow.inbound(TCP, SYN),
            "from a socket of the host",
        );
        fence.passes(Leaving, &flow.outbound(TCP, SYN | ACK), "the reply to it");
        let own = Flow {
            v6,
            local: (LOCAL, 80),
            peer: (LOCAL, 40000),
        };
        fence.passes(
            Way::Hairpin,
            &own.inbound(TCP, SYN),
            "from an own address, through a Service",
        );
    }
    assert_eq!(fence.hits(RuleSlot::HOST_INGRESS), 2);
    assert_eq!(fence.hits(RuleSlot::OWN_ADDRESS), 2);
}

#[test]
fn a_timed_row_ends_on_time_for_a_live_flow() {
    for v6 in [false, true] {
        for (way, direction) in WAYS {
            let mut fence = Fence::new();
            let until = fence.now() + 150_000_000;
            let row = PolicyRow::until(
                (Verdict::Allow, RULE),
                until,
                (Verdict::Deny, RuleSlot::DEFAULT_DENY),
            );
            fence.put_row(exact(TABLE, FRIENDS, direction, TCP, 80), row);
            let flow = if way == Leaving {
                Flow {
                    v6,
                    local: (LOCAL, 40000),
                    peer: (FRIEND, 80),
                }
            } else {
                Flow {
                    v6,
                    local: (LOCAL, 80),
                    peer: (FRIEND, 40000),
                }
            };
            let mut passed = 0;
            let mut next = [flow.outbound(TCP, SYN), flow.inbound(TCP, SYN)]
                .into_iter()
                .skip(usize::from(way != Leaving));
            let mut first = next.next();
            eventually(
                std::time::Duration::from_secs(5),
                "the end of the grant",
                || {
                    // The clock is read before and after the packet, so that a slow machine only
                    // blurs the time, never the verdict.
                    let before = fence.now();
                    let outcome = match first.take() {
                        Some(frame) => fence.run(way, &frame),
                        None if passed % 2 == 1 && way == Leaving => {
                            fence.arriving(&flow.inbound(TCP, ACK | PSH))
                        }
                        None if passed % 2 == 1 => fence.leaving(&flow.outbound(TCP, ACK | PSH)),
                        None if way == Leaving => fence.leaving(&flow.outbound(TCP, ACK)),
                        None => fence.arriving(&flow.inbound(TCP, ACK)),
                    };
                    let after = fence.now();
                    assert!(
                        after >= until || outcome == Passed,
                        "{way:?}: denied too early"
                    );
                    assert!(
                        before < until || outcome == Dropped,
                        "{way:?}: allowed too long"
                    );
                    passed += u32::from(outcome == Passed);
                    Ok((outcome == Dropped).then_some(()))
                },
            )
            .unwrap();
            for frame in [flow.outbound(TCP, ACK), flow.inbound(TCP, ACK)]
                .iter()
                .zip([Leaving, Arriving])
            {
                fence.denies(frame.1, frame.0, DropReason::Policy, "after the grant");
            }
        }
    }
}

#[test]
fn a_row_can_begin_to_allow_at_a_time() {
    let mut fence = Fence::new();
    let now = fence.now();
    let deny = (Verdict::Deny, RuleSlot::DEFAULT_DENY);
    let past = PolicyRow::until(deny, now, (Verdict::Allow, RULE));
    let future = PolicyRow::until(deny, u64::MAX - 1, (Verdict::Allow, RULE));
    fence.put_row(exact(TABLE, FRIENDS, Direction::Egress, TCP, 80), past);
    fence.put_row(exact(TABLE, FRIENDS, Direction::Egress, TCP, 81), future);
    for v6 in [false, true] {
        fence.passes(
            Leaving,
            &first_packet(Leaving, v6, FRIEND, TCP, 80),
            "after its start",
        );
        let frame = first_packet(Leaving, v6, FRIEND, TCP, 81);
        fence.denies(Leaving, &frame, DropReason::Policy, "before its start");
    }
}

#[test]
fn lockdown_drops_everything() {
    for v6 in [false, true] {
        let mut fence = Fence::new();
        fence.allow_friends();
        let flow = Flow {
            v6,
            local: (LOCAL, 40000),
            peer: (FRIEND, 80),
        };
        fence.passes(Leaving, &flow.outbound(TCP, SYN), "control: allowed");
        fence.passes(
            Arriving,
            &flow.inbound(TCP, SYN | ACK),
            "control: the reply",
        );
        for by_endpoint in [false, true] {
            if by_endpoint {
                fence.set_mode(Mode::Observe);
                fence.edit(|endpoint| endpoint.mode_override = Mode::Lockdown as u8);
            } else {
                fence.set_mode(Mode::Lockdown);
            }
            let (dropped, _) = fence.count(DropReason::Lockdown);
            let new = first_packet(Leaving, v6, FRIEND, UDP, 53);
            for (way, frame) in [
                (Leaving, flow.outbound(TCP, ACK)),
                (Arriving, flow.inbound(TCP, ACK)),
                (Leaving, new),
                (FromHost, first_packet(Arriving, v6, UNKNOWN_PEER, TCP, 80)),
            ] {
                assert_eq!(fence.run(way, &frame), Dropped, "{way:?}");
            }
            assert_eq!(fence.count(DropReason::Lockdown).0, dropped + 4);
        }
        fence.edit(|endpoint| endpoint.mode_override = 0);
        fence.set_mode(Mode::Enforce);
        fence.passes(
            Leaving,
            &flow.outbound(TCP, ACK),
            "control: after the lockdown",
        );
    }
}

#[test]
fn an_unknown_endpoint_has_the_default_mode_of_the_node() {
    let mut fence = Fence::new();
    fence.allow_friends();
    fence.write(Action::DeleteEndpoint(IFINDEX));
    let slot = NamespaceSlot::NODE_DEFAULT;
    for v6 in [false, true] {
        for (way, _) in WAYS {
            let frame = first_packet(way, v6, FRIEND, TCP, 80);
            // The mode of the endpoint's former namespace does not apply.
            fence.set_mode(Mode::Observe);
            for (mode, outcome) in [
                (Mode::Enforce, Dropped),
                (Mode::Lockdown, Dropped),
                (Mode::Observe, Passed),
            ] {
                fence.write(Action::SetMode(slot, mode));
                let before = fence.count(DropReason::UnknownEndpoint);
                assert_eq!(fence.run(way, &frame), outcome, "{way:?} in {mode:?}");
                let after = fence.count(DropReason::UnknownEndpoint);
                let counted = (after.0 - before.0, after.1 - before.1);
                let expected = if outcome == Passed { (0, 1) } else { (1, 0) };
                assert_eq!(counted, expected, "{way:?} in {mode:?}");
            }
        }
    }
    assert_eq!(fence.reasons().len(), 1);
}
