//! A test for each family: its members as they are, then cases around them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_testbed::attack::shot::Expect;
use ringfence_testbed::attack::{Arenas, FAMILIES, Family, Generator, attack};
use ringfence_testbed::eventually;

use crate::drops::{Drops, counted, since, told};
use crate::ground::{shared, turn};

const FRAMES: u64 = 10_000;
const SOON: Duration = Duration::from_secs(8);

fn seed() -> u64 {
    let given = std::env::var("RINGFENCE_ATTACK_SEED").ok();
    given
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_261_122)
}

fn assault(name: &str) -> Result<()> {
    let family = FAMILIES.iter().find(|family| family.name == name);
    let family = family.with_context(|| format!("no family {name}"))?;
    let arenas = shared()?;
    let mut arenas = turn(&arenas)?;
    members(&mut arenas, family)?;
    let share = FRAMES / u64::try_from(FAMILIES.len())?;
    let tally = attack(&mut arenas, family, share, seed())?;
    println!("{}", tally.row(name));
    ensure!(
        tally.is_good(),
        "seed {}\n{}\n{}",
        seed(),
        tally.row(name),
        tally.offences()
    );
    Ok(())
}

/// Every member as it is: the control delivers all of it, `enforce` what is permitted and `observe`
/// all, and both agents give the reasons that the members name.
fn members(arenas: &mut Arenas, family: &Family) -> Result<()> {
    let before = reasons(arenas)?;
    // Other frames than those that follow: a first fragment is remembered for half a minute.
    let mut generator = Generator::new(*family, !seed());
    let mut cases = Vec::new();
    while generator.has_members_left() {
        cases.push(generator.next_case());
    }
    let mut expected: BTreeMap<String, u64> = Drops::new();
    let (mut denied, mut unnamed) = (0, 0);
    for played in arenas.play(cases)? {
        let arrived = played.arrived;
        ensure!(
            arrived.control,
            "void, even the control loses it: {played:?}"
        );
        ensure!(arrived.observe, "observe drops: {played:?}");
        ensure!(!played.leaked() && !played.lost(), "{played:?}");
        if let Expect::Denied(reason) = played.shot.expect {
            denied += 1;
            match reason {
                Some(reason) => *expected.entry(reason.name().to_owned()).or_default() += 1,
                None => unnamed += 1,
            }
        }
    }
    let after = reasons(arenas)?;
    let [enforced, observed] = [0, 1].map(|index| since(&before[index], &after[index]));
    ensure!(
        enforced == observed,
        "enforce and observe give other reasons: {enforced:?}, {observed:?}"
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
            "'{reason}' was given {given} times, not {count}: {enforced:?}"
        );
    }
    for (agent, verdict) in [
        (&arenas.enforce.agent, "denied"),
        (&arenas.observe.agent, "would-deny"),
    ] {
        let agent = agent.as_ref().context("no agent")?;
        eventually(SOON, "every reason in the flow records", || {
            let told = told(agent, verdict)?;
            Ok(expected
                .keys()
                .all(|reason| told.contains(reason))
                .then_some(()))
        })
        .with_context(|| format!("{verdict}: {expected:?}"))?;
    }
    Ok(())
}

fn reasons(arenas: &Arenas) -> Result<[Drops; 2]> {
    let enforce = arenas.enforce.agent.as_ref().context("no agent")?;
    let observe = arenas.observe.agent.as_ref().context("no agent")?;
    Ok([counted(enforce, "dropped")?, counted(observe, "observed")?])
}

macro_rules! families {
    ($($test:ident = $name:literal,)*) => {
        $(
            #[test]
            fn $test() -> Result<()> {
                assault($name)
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
    special_destinations = "special-destinations",
    plainly_denied = "plainly-denied",
}
