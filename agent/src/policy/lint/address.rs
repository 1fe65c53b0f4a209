//! Rules by address: ranges that are too wide, that contain the metadata service, that use an
//! internal address as an identity, or that cover only one address family.
//!
//! Invariant: a range gets the most specific of the first three codes: every address, then the
//! metadata service, then width and internal space, which are independent.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ringfence_common::mode::Direction;

use super::code::LintCode;
use super::finding::{Finding, Place, places_in};
use super::population::Population;
use super::range;
use crate::model::{Peer, Peers, Rule, RuleAction, special_range_of};

const METADATA_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// The longest prefix lengths that count as wide.
const WIDE_V4: u8 = 8;
const WIDE_V6: u8 = 24;

pub(super) fn lint(place: &Place<'_>, population: Option<&Population<'_>>) -> Vec<Finding> {
    let mut found: BTreeMap<LintCode, String> = BTreeMap::new();
    for (net, except) in cidrs(place.rule) {
        for (code, what) in classify(place, net, except, population) {
            found.entry(code).or_insert(what);
        }
    }
    let mut findings: Vec<Finding> = found
        .iter()
        .map(|(code, what)| place.finding(*code, what))
        .collect();
    findings.extend(one_family(place));
    findings
}

fn cidrs(rule: &Rule) -> impl Iterator<Item = (&IpNet, &[IpNet])> {
    let peers = match &rule.peers {
        Peers::Of(peers) => peers.as_slice(),
        Peers::Any | Peers::NoPeer => &[],
    };
    peers.iter().filter_map(|peer| match peer {
        Peer::Cidr { net, except } => Some((net, except.as_slice())),
        Peer::Workloads { .. } | Peer::Entity(_) => None,
    })
}

fn classify(
    place: &Place<'_>,
    net: &IpNet,
    except: &[IpNet],
    population: Option<&Population<'_>>,
) -> Vec<(LintCode, String)> {
    // The metadata service only receives connections; it opens none.
    let is_destination = place.direction == Direction::Egress;
    let metadata = metadata_in(net, except).filter(|_| is_destination);
    if place.rule.action != RuleAction::Allow {
        // A deny rule for the metadata service uses its address; it is not a workload's.
        let aims_at_metadata = metadata.is_some() && (is_host(net) || is_link_local(net));
        if aims_at_metadata {
            return Vec::new();
        }
        return internal(net, except, population).into_iter().collect();
    }
    if net.prefix_len() == 0 {
        let mut what = format!("allows {net}, which contains every workload and node");
        if metadata.is_some() {
            what.push_str(", and the cloud's metadata service");
        }
        return vec![(LintCode::AnyAddress, what)];
    }
    if let Some(address) = metadata {
        let what = format!("allows {net}, which contains the metadata address {address}");
        return vec![(LintCode::MetadataAddress, what)];
    }
    let mut found: Vec<_> = internal(net, except, population).into_iter().collect();
    if is_wide(net) {
        let what = format!("allows {net}, a large part of all addresses");
        found.push((LintCode::WideCidr, what));
    }
    found
}

fn is_wide(net: &IpNet) -> bool {
    net.prefix_len()
        <= if net.addr().is_ipv6() {
            WIDE_V6
        } else {
            WIDE_V4
        }
}

fn is_host(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// The metadata address that a rule for this range matches. One that is link-local is matched by rules that
/// name its range.
fn metadata_in(net: &IpNet, except: &[IpNet]) -> Option<IpAddr> {
    let mut addresses = [IpAddr::V4(METADATA_V4), IpAddr::V6(METADATA_V6)].into_iter();
    addresses.find(|address| {
        let special = special_range_of(*address);
        let is_named = special.is_none_or(|special| special.contains(net));
        is_named && range::holds(net, except, *address)
    })
}

const fn v4(a: u8, b: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), length))
}

const fn v6(first: u16, length: u8) -> IpNet {
    let address = Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0);
    IpNet::V6(Ipv6Net::new_assert(address, length))
}

const LINK_LOCAL: [IpNet; 2] = [v4(169, 254, 16), v6(0xfe80, 10)];

/// Ranges that belong to different machines in every network.
const INTERNAL: [(IpNet, &str); 5] = [
    (v4(10, 0, 8), "private space (RFC 1918)"),
    (v4(172, 16, 12), "private space (RFC 1918)"),
    (v4(192, 168, 16), "private space (RFC 1918)"),
    (v4(100, 64, 10), "shared space (RFC 6598)"),
    (v6(0xfc00, 7), "unique local space (RFC 4193)"),
];

fn is_link_local(net: &IpNet) -> bool {
    LINK_LOCAL.iter().any(|space| space.contains(net))
}

fn internal_space(net: &IpNet) -> Option<&'static str> {
    if is_link_local(net) {
        return Some("link-local space (RFC 3927, RFC 4291)");
    }
    let found = INTERNAL.iter().find(|(space, _)| space.contains(net));
    found.map(|(_, name)| *name)
}

fn internal(
    net: &IpNet,
    except: &[IpNet],
    population: Option<&Population<'_>>,
) -> Option<(LintCode, String)> {
    if let Some(space) = internal_space(net) {
        let what = format!("names {net} in {space}: an address, not an identity");
        return Some((LintCode::InternalCidr, what));
    }
    if net.prefix_len() == 0 {
        return None;
    }
    let workload = population?.workload_in(net, except)?;
    let what = format!("names {net}, where workload {workload} runs: an address, not an identity");
    Some((LintCode::InternalCidr, what))
}

/// The counterpart may be another rule of the policy with the same content for the other family.
fn one_family(place: &Place<'_>) -> Option<Finding> {
    let families = |rule: &Rule| {
        let has = |is_v6: bool| cidrs(rule).any(|(net, _)| net.addr().is_ipv6() == is_v6);
        (has(false), has(true))
    };
    let (present, absent) = match families(place.rule) {
        (true, false) => ("IPv4", "IPv6"),
        (false, true) => ("IPv6", "IPv4"),
        (true, true) | (false, false) => return None,
    };
    let mine = families(place.rule);
    let has_twin = places_in(place.policy, place.direction).any(|other| {
        let (rule, own) = (other.rule, place.rule);
        let (has_v4, has_v6) = families(rule);
        rule.action == own.action
            && rule.ports == own.ports
            && rule.window == own.window
            && (has_v4 || mine.0)
            && (has_v6 || mine.1)
    });
    (!has_twin).then(|| {
        let what = format!("has {present} ranges only, and none for {absent}");
        place.finding(LintCode::OneFamily, &what)
    })
}
