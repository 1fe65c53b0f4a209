//! A test for each family: its members first, then cases generated from them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::attack::case::Expect;
use ringfence_testbed::attack::{FAMILIES, Family, Generator, Networks, attack};
use ringfence_testbed::eventually;

use crate::drops::{Drops, difference, drop_counters, recorded_reasons};
use crate::shared::{lock, networks};

const FRAMES: u64 = 10_000;
const SOON: Duration = Duration::from_secs(8);

pub(crate) fn seed() -> u64 {
    let given = std::env::var("RINGFENCE_ATTACK_SEED").ok();
    given
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_261_122)
}

fn attack_with_family(name: &str) -> Result<()> {
    let family = FAMILIES.iter().find(|family| family.name == name);
    let family = family.with_context(|| format!("no family {name}"))?;
    let networks = networks()?;
    let mut networks = lock(&networks)?;
    members(&mut networks, family)?;
    let share = FRAMES / u64::try_from(FAMILIES.len())?;
    let tally = attack(&mut networks, family, share, seed())?;
    println!("{}", tally.row(name));
    if tally.rejects.rejected > 0 {
        println!("{}", tally.rejects);
        ensure!(tally.rejects.arrived > 0, "void: no reject packet arrived");
    }
    ensure!(
        tally.is_good(),
        "seed {}\n{}\n{}",
        seed(),
        tally.row(name),
        tally.failures_text()
    );
    Ok(())
}

/// Runs every member unmutated: the control delivers all frames, `enforce` the permitted ones and
/// `observe` all, and both agents report the drop reasons that the members expect.
pub(crate) fn members(networks: &mut Networks, family: &Family) -> Result<()> {
    let before = reasons(networks)?;
    // Another seed than for the generated cases: a first fragment is remembered for half a minute.
    let mut generator = Generator::new(*family, !seed());
    let mut cases = Vec::new();
    while generator.has_members_left() {
        cases.push(generator.next_case());
    }
    let mut expected: BTreeMap<String, u64> = Drops::new();
    let (mut denied, mut unnamed) = (0, 0);
    for result in networks.run(cases)? {
        let arrived = result.arrived;
        ensure!(
            arrived.control,
            "void: the control does not deliver it: {result:?}"
        );
        ensure!(arrived.observe, "observe drops: {result:?}");
        ensure!(!result.leaked() && !result.lost(), "{result:?}");
        ensure!(result.reject_fault().is_none(), "{result:?}");
        if let Expect::Denied(reason) = result.sent.expect {
            denied += 1;
            match reason {
                Some(reason) => *expected.entry(reason.name().to_owned()).or_default() += 1,
                None => unnamed += 1,
            }
        }
    }
    let after = reasons(networks)?;
    let [enforced, observed] = [0, 1].map(|index| difference(&before[index], &after[index]));
    ensure!(
        enforced == observed,
        "enforce and observe report different reasons: {enforced:?}, {observed:?}"
    );
    let total: u64 = enforced.values().sum();
    ensure!(
        total >= denied,
        "{total} of {denied} reported: {enforced:?}"
    );
    for (reason, count) in &expected {
        let given = enforced.get(reason).copied().unwrap_or_default();
        ensure!(
            (*count..=count + unnamed).contains(&given),
            "'{reason}' was reported {given} times, not {count}: {enforced:?}"
        );
    }
    for (agent, verdict) in [
        (&networks.enforce.agent, "denied"),
        (&networks.observe.agent, "would-deny"),
    ] {
        let agent = agent.as_ref().context("no agent")?;
        eventually(SOON, "every reason in the flow records", || {
            let recorded = recorded_reasons(agent, verdict)?;
            Ok(expected
                .keys()
                .all(|reason| recorded.contains(reason))
                .then_some(()))
        })
        .with_context(|| format!("{verdict}: {expected:?}"))?;
    }
    Ok(())
}

fn reasons(networks: &Networks) -> Result<[Drops; 2]> {
    let enforce = networks.enforce.agent.as_ref().context("no agent")?;
    let observe = networks.observe.agent.as_ref().context("no agent")?;
    Ok([
        drop_counters(enforce, "dropped")?,
        drop_counters(observe, "observed")?,
    ])
}

macro_rules! families {
    ($($test:ident = $name:literal,)*) => {
        $(
            #[test]
            fn $test() -> Result<()> {
                attack_with_family($name)
            }
        )*

        #[test]
        fn every_family_has_a_test() {
            let tested = [$($name),*];
            let all: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
            assert_eq!(tested.as_slice(), all);
        }
    };
}

families! {
    forged_source = "forged-source",
    forged_mid_flow = "forged-mid-flow",
    forged_mac = "forged-mac",
    arp = "arp",
    neighbours = "neighbours",
    router_messages = "router-messages",
    hidden_discovery = "hidden-discovery",
    discovery_smuggling = "discovery-smuggling",
    discovery_tunnel = "discovery-tunnel",
    listener_tunnel = "listener-tunnel",
    arp_tunnel = "arp-tunnel",
    duplicate_address = "duplicate-address",
    own_destination = "own-destination",
    node_address = "node-address",
    poisoned_conntrack = "poisoned-conntrack",
    dhcp = "dhcp",
    odd_ipv6_sources = "odd-ipv6-sources",
    tiny_fragments = "tiny-fragments",
    overlapping_fragments = "overlapping-fragments",
    orphan_fragments = "orphan-fragments",
    fragment_reuse = "fragment-reuse",
    fragment_headers = "fragment-headers",
    oversized_reassembly = "oversized-reassembly",
    extension_order = "extension-order",
    extension_lengths = "extension-lengths",
    icmp_errors = "icmp-errors",
    icmp_echo = "icmp-echo",
    path_mtu = "path-mtu",
    rejects = "rejects",
    tcp_states = "tcp-states",
    tcp_flags = "tcp-flags",
    tcp_headers = "tcp-headers",
    udp_replies = "udp-replies",
    vlan = "vlan",
    ethertypes = "ethertypes",
    ipv4_options = "ipv4-options",
    ip_headers = "ip-headers",
    ip_lengths = "ip-lengths",
    large_frames = "large-frames",
    segmentation_offload = "segmentation-offload",
    raw_protocols = "raw-protocols",
    tunnels = "tunnels",
    node_tunnel = "node-tunnel",
    special_destinations = "special-destinations",
    world_reach = "world-reach",
    plainly_denied = "plainly-denied",
    real_traffic = "real-traffic",
}
