//! Placeholders in policy text: addresses, networks that contain them, and times.
//!
//! `${ip4:x/b}` `${ip6:ext}` `${ip4net:x/b/24}` `${now+10s}` `${now-3600s}`. A placeholder without
//! a value is an error.

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::cluster::Cluster;
use super::duration;
use super::port::Family;

/// The text with all placeholders replaced, at the time `now`.
pub(super) fn fill_in(text: &str, cluster: &Cluster, now: Timestamp) -> Result<String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (placeholder, after) = after.split_once('}').with_context(|| {
            let start: String = after.chars().take(20).collect();
            format!("placeholder \"${{{start}\" does not end")
        })?;
        filled.push_str(before);
        let value = value(placeholder, cluster, now);
        filled.push_str(&value.with_context(|| format!("placeholder \"${{{placeholder}}}\""))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value(placeholder: &str, cluster: &Cluster, now: Timestamp) -> Result<String> {
    if let Some(offset) = placeholder.strip_prefix("now") {
        return Ok(time(offset, now)?.to_string());
    }
    let (kind, what) = placeholder.split_once(':').context("unknown placeholder")?;
    let address = |family, end: &str| cluster.address(&end.parse()?, family);
    match kind {
        "ip4" => Ok(address(Family::V4, what)?.to_string()),
        "ip6" => Ok(address(Family::V6, what)?.to_string()),
        "ip4net" | "ip6net" => {
            let (end, length) = what.rsplit_once('/').context("expected e.g. x/b/24")?;
            let family = if kind == "ip4net" {
                Family::V4
            } else {
                Family::V6
            };
            let network = IpNet::new(address(family, end)?, length.parse()?)?;
            Ok(network.trunc().to_string())
        }
        _ => bail!("unknown placeholder"),
    }
}

fn time(offset: &str, now: Timestamp) -> Result<Timestamp> {
    let (sign, span) = match (offset.strip_prefix('+'), offset.strip_prefix('-')) {
        (Some(span), _) => (1, span),
        (_, Some(span)) => (-1, span),
        (None, None) if offset.is_empty() => return Ok(now),
        (None, None) => bail!("expected e.g. now+10s"),
    };
    let span = SignedDuration::try_from(duration::parse(span)?)?;
    let time = now.checked_add(span * sign)?;
    // Milliseconds are precise enough and keep the text short.
    Ok(Timestamp::from_millisecond(time.as_millisecond())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::case::{Case, Delta};
    use crate::conformance::cluster::HostAddresses;

    fn filled(text: &str) -> Result<String> {
        let case = Case {
            name: "c".to_owned(),
            delta: Delta::default(),
            steps: Vec::new(),
        };
        let cluster = Cluster::new(&case, HostAddresses::PLACEHOLDER)?;
        fill_in(text, &cluster, "2026-01-02T03:04:05.678912Z".parse()?)
    }

    #[test]
    fn every_placeholder_has_its_value() {
        for (text, expected) in [
            ("nothing $ { to } fill", "nothing $ { to } fill"),
            ("a ${ip4:x/a}/32 b", "a 100.64.1.1/32 b"),
            ("${ip4:x/b}${ip6:x/b}", "100.64.1.22001:db8:64:1::2"),
            ("${ip4:ext} ${ip6:node}", "100.96.0.1 2001:db8:120::1"),
            ("${ip4net:z/c/24}", "100.64.1.0/24"),
            ("${ip6net:ext/48}", "2001:db8:96::/48"),
            ("${ip4net:ext/0}", "0.0.0.0/0"),
            ("${now+10s}", "2026-01-02T03:04:15.678Z"),
            ("${now-3600s}", "2026-01-02T02:04:05.678Z"),
            ("${now+1d}", "2026-01-03T03:04:05.678Z"),
        ] {
            assert_eq!(filled(text).unwrap(), expected);
        }
    }

    #[test]
    fn placeholders_without_a_value_are_errors() {
        for bad in [
            "${ip4:x/q}",
            "${ip4:unknown}",
            "${ip5:x/a}",
            "${ip4net:x/a}",
            "${ip4net:x/a/33}",
            "${now*2}",
            "${now+10}",
            "${}",
            "${ip4:x/a",
        ] {
            let error = filled(bad).unwrap_err().to_string();
            assert!(error.contains("placeholder"), "{error}");
        }
    }
}
