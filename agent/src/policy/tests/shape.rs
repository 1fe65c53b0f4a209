//! The rows of chosen tables: how ranges split, what a class repeats, what is timed.

use std::{collections::BTreeSet, sync::Arc};

use ringfence_common::{
    ids::{ClassId, RuleSlot, TableId},
    mode::{Direction, Verdict},
    net::Port,
    policy::{PolicyKey, PolicyRow},
};

use crate::{
    model::{Entity, Peer, RuleAction, WallTime, Window},
    oracle::{BOOT, NOW},
    plan::TableRows,
    policy::{
        Clock, Fence, TableSpec,
        digest::Digest,
        ports::PortRange,
        rows::{Peers, add_classes, for_anyone},
        selector::{Requirement, Selector},
        table::{FenceRule, Stage},
    },
};

const CLOCK: Clock = Clock {
    now: NOW,
    boot: BOOT,
};

fn world() -> Selector {
    Selector::new(Requirement {
        ends_tunnels: false,
        unnamed: false,
        peer: Some(Peer::Entity(Entity::World)),
        declares: None,
    })
}

fn tcp(first: u16, last: u16) -> Option<BTreeSet<PortRange>> {
    Some(BTreeSet::from([PortRange {
        protocol: 6,
        first,
        last,
    }]))
}

fn rule(action: RuleAction, slot: u32) -> FenceRule {
    let slot = RuleSlot(slot);
    FenceRule {
        stage: Stage::Namespace,
        policy: 0,
        action,
        slot,
        peers: None,
        ports: None,
        window: Window::default(),
    }
}

/// The ingress rows of a table with these rules, in the order of their keys.
fn ingress(rules: Vec<FenceRule>) -> Vec<(u32, u32, u8, u16, PolicyRow)> {
    let ingress = Fence {
        tunnels: None,
        isolated: true,
        has_policies: true,
        rules,
    };
    let spec = TableSpec::new(ingress, Fence::default(), &CLOCK);
    let matched: [Digest; 1] = [world().digest];
    let class = Peers {
        id: ClassId(7),
        matched: &matched,
    };
    let mut table = for_anyone(TableId(1), &spec);
    add_classes(&mut table, (TableId(1), &spec), &[class].into_iter());
    let keys = |((bits, key), row): (&(u32, PolicyKey), &PolicyRow)| {
        (key.class.0, *bits, key.protocol, key.port.number(), *row)
    };
    let of_ingress =
        |((_, key), _): &(&(u32, PolicyKey), &PolicyRow)| key.direction == Direction::Ingress as u8;
    let mut rows: Vec<_> = table.iter().filter(of_ingress).map(keys).collect();
    rows.sort_by_key(|(class, bits, protocol, port, _)| (*class, *bits, *protocol, *port));
    rows
}

/// The rows of all periods of a table's any-class ingress for every protocol.
fn courses(rules: Vec<FenceRule>) -> impl Iterator<Item = PolicyRow> {
    let ingress = Fence {
        tunnels: None,
        isolated: true,
        has_policies: true,
        rules,
    };
    let spec = TableSpec::new(ingress, Fence::default(), &CLOCK);
    let table = for_anyone(TableId(1), &spec);
    (0..).map_while(move |step| {
        let key = PolicyKey {
            table: TableId(1),
            class: ClassId::ANY,
            direction: Direction::Ingress as u8 + step * PolicyKey::PERIOD,
            protocol: 0,
            port: Port::NONE,
        };
        table.get(&(PolicyKey::ANY_PROTOCOL_BITS, key)).copied()
    })
}

fn lasting(verdict: Verdict, slot: u32) -> PolicyRow {
    PolicyRow::lasting(verdict, RuleSlot(slot))
}

const DEFAULT_ROW: (u32, u32, u8, u16, PolicyRow) = (
    0,
    72,
    0,
    0,
    PolicyRow::lasting(Verdict::Deny, RuleSlot::DEFAULT_DENY),
);

#[test]
fn a_range_becomes_the_fewest_aligned_blocks() {
    let allow = lasting(Verdict::Allow, 20);
    let odd = FenceRule {
        ports: tcp(9000, 9010),
        ..rule(RuleAction::Allow, 20)
    };
    let blocks = [(93, 9000), (95, 9008), (96, 9010)];
    let mut wanted = vec![DEFAULT_ROW];
    wanted.extend(blocks.map(|(bits, port)| (0, bits, 6, port, allow)));
    assert_eq!(ingress(vec![odd]), wanted);

    let all = FenceRule {
        ports: tcp(0, u16::MAX),
        ..rule(RuleAction::Allow, 20)
    };
    assert_eq!(ingress(vec![all]), [DEFAULT_ROW, (0, 80, 6, 0, allow)]);

    // Most ports are allowed, so the two others are the exceptions.
    let most = FenceRule {
        ports: tcp(2, u16::MAX),
        ..rule(RuleAction::Allow, 20)
    };
    assert_eq!(
        ingress(vec![most]),
        [
            DEFAULT_ROW,
            (0, 80, 6, 0, allow),
            (0, 95, 6, 0, DEFAULT_ROW.4)
        ]
    );

    let last = FenceRule {
        ports: tcp(u16::MAX, u16::MAX),
        ..rule(RuleAction::Allow, 20)
    };
    assert_eq!(
        ingress(vec![last]),
        [DEFAULT_ROW, (0, 96, 6, u16::MAX, allow)]
    );
}

#[test]
fn a_class_has_rows_only_where_it_differs() {
    let peers = Some(vec![world()]);
    let one = FenceRule {
        peers: peers.clone(),
        ports: tcp(443, 443),
        ..rule(RuleAction::Allow, 20)
    };
    let everyone = FenceRule {
        ports: tcp(80, 80),
        ..rule(RuleAction::Allow, 21)
    };
    let (own, any) = (lasting(Verdict::Allow, 20), lasting(Verdict::Allow, 21));
    assert_eq!(
        ingress(vec![one, everyone.clone()]),
        [DEFAULT_ROW, (0, 96, 6, 80, any), (7, 96, 6, 443, own)]
    );

    // A rule for every protocol hides the any-class rows, so the class repeats them.
    let all = FenceRule {
        peers,
        ..rule(RuleAction::Allow, 20)
    };
    let found = ingress(vec![everyone, all]);
    let wanted = [
        DEFAULT_ROW,
        (0, 96, 6, 80, any),
        (7, 72, 0, 0, own),
        (7, 96, 6, 80, any),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_timed_rule_says_what_comes_after_it() {
    let at = |seconds: i64| Some(WallTime(NOW.0 + seconds * 1_000_000_000));
    let window = Window {
        not_before: None,
        expires: at(60),
    };
    let grant = FenceRule {
        window,
        ..rule(RuleAction::Allow, 20)
    };
    let end = BOOT + 60_000_000_000;
    let after = (Verdict::Deny, RuleSlot::DEFAULT_DENY);
    let row = PolicyRow::until((Verdict::Allow, RuleSlot(20)), end, after);
    assert_eq!(ingress(vec![grant.clone()]), [(0, 72, 0, 0, row)]);

    // Two deny windows ahead: each change after the first has a row of its own.
    let ban = |start, end| FenceRule {
        window: Window {
            not_before: at(start),
            expires: at(end),
        },
        ..rule(RuleAction::Deny, 21)
    };
    let rules = vec![ban(10, 20), ban(30, 40), grant];
    let found: Vec<(u64, u32)> = courses(rules)
        .map(|row| ((row.valid_until - BOOT) / 1_000_000_000, row.then_rule.0))
        .collect();
    assert_eq!(found, [(10, 21), (20, 20), (30, 21), (40, 20), (60, 1)]);

    // A change to the same outcome is not a change.
    let idle = FenceRule {
        window: Window {
            not_before: None,
            expires: at(5),
        },
        ..rule(RuleAction::Allow, 22)
    };
    let found = ingress(vec![rule(RuleAction::Allow, 20), idle]);
    assert_eq!(found, [(0, 72, 0, 0, lasting(Verdict::Allow, 20))]);
}

#[test]
fn raw_protocols_out_of_an_open_workload_are_denied() {
    let spec = TableSpec::default();
    let table: Arc<TableRows> = Arc::new(for_anyone(TableId(1), &spec));
    let egress = |bits| {
        let mut of_bits: Vec<_> = table
            .iter()
            .filter(|((b, key), _)| *b == bits && key.direction == Direction::Egress as u8)
            .map(|((_, key), row)| (key.protocol, row.verdict, row.rule))
            .collect();
        of_bits.sort_by_key(|(protocol, ..)| *protocol);
        of_bits
    };
    assert_eq!(
        egress(72),
        [(0, Verdict::Deny as u8, RuleSlot::RAW_PROTOCOL)]
    );
    let plain: Vec<u8> = egress(80).iter().map(|(protocol, ..)| *protocol).collect();
    assert_eq!(plain, [1, 6, 17, 58, 132]);
}
