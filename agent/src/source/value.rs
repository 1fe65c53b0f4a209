//! Parsers for the values inside TOML strings: ports, address ranges, times.
//!
//! They convert text to values; each error says what was expected. The caller adds the place.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::Value;

use ringfence_common::mode::Verdict;

use super::limits::{MAX_FREE_TEXT, MAX_RULE_NAME};
use crate::model::inventory::unusable_reason;
use crate::model::quote::is_deceptive;
use crate::model::{
    Entity, NameError, PortMatch, PortName, Protocol, RuleAction, TestEnd, Tier, WallTime,
    WorkloadId, quote,
};

/// An invalid value in a string: what is wrong and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

impl From<NameError> for ValueError {
    fn from(error: NameError) -> Self {
        Self(error.to_string())
    }
}

fn refuse<T>(message: impl Into<String>) -> Result<T, ValueError> {
    Err(ValueError(message.into()))
}

const PORT_FORMS: &str = "expected tcp/8080, tcp/9000-9010, tcp, icmp, protocol/47, http or \
                          tcp/http (also with udp and sctp)";

/// Parses one entry of `ports`.
///
/// # Errors
/// When it has none of the accepted forms.
pub fn port_match(text: &str) -> Result<PortMatch, ValueError> {
    let Some((protocol, rest)) = text.split_once('/') else {
        return bare_port(text);
    };
    if protocol == "protocol" {
        return raw_protocol(text, rest);
    }
    let Ok(protocol) = protocol.parse::<Protocol>() else {
        return refuse(format!(
            "unknown protocol in port {}: {PORT_FORMS}",
            quote(text)
        ));
    };
    if !protocol.has_ports() {
        return refuse(format!(
            "{protocol} has no ports but {} names one: expected {protocol} alone",
            quote(text)
        ));
    }
    if !rest.is_empty()
        && rest
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-')
    {
        return port_range(text, protocol, rest);
    }
    match PortName::new(rest) {
        Ok(name) => Ok(PortMatch::Named {
            protocol: Some(protocol),
            name,
        }),
        Err(_) => refuse(format!("bad port {}: {PORT_FORMS}", quote(text))),
    }
}

fn bare_port(text: &str) -> Result<PortMatch, ValueError> {
    if let Ok(protocol) = text.parse() {
        return Ok(PortMatch::Protocol(protocol));
    }
    match PortName::new(text) {
        Ok(name) => Ok(PortMatch::Named {
            protocol: None,
            name,
        }),
        Err(_) => refuse(format!("bad port {}: {PORT_FORMS}", quote(text))),
    }
}

fn raw_protocol(text: &str, number: &str) -> Result<PortMatch, ValueError> {
    let parsed = number
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| number.parse::<u8>());
    let Some(Ok(number)) = parsed else {
        return refuse(format!(
            "bad port {}: expected protocol/0 to protocol/255",
            quote(text)
        ));
    };
    match Protocol::from_number(number) {
        protocol @ Protocol::Number(_) => Ok(PortMatch::Protocol(protocol)),
        named @ (Protocol::Tcp | Protocol::Udp | Protocol::Sctp | Protocol::Icmp) => {
            refuse(format!("{} has a name: expected {named}", quote(text)))
        }
    }
}

fn port_range(text: &str, protocol: Protocol, range: &str) -> Result<PortMatch, ValueError> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (Some(first), Some(last)) = (port_number(first), port_number(last)) else {
        return refuse(format!(
            "bad port {}: expected numbers from 1 to 65535",
            quote(text)
        ));
    };
    if first > last {
        return refuse(format!(
            "port range {} is reversed: expected {protocol}/{last}-{first}",
            quote(text)
        ));
    }
    Ok(PortMatch::Range {
        protocol,
        first,
        last,
    })
}

fn port_number(text: &str) -> Option<u16> {
    text.parse()
        .ok()
        .filter(|&port| port != 0 && !text.starts_with('0'))
}

/// Parses the port a workload declares: `tcp/8080`.
///
/// # Errors
/// When it is anything but one port of a protocol that has ports.
pub fn declared_port(text: &str) -> Result<(Protocol, u16), ValueError> {
    match port_match(text)? {
        PortMatch::Range {
            protocol,
            first,
            last,
        } if first == last => Ok((protocol, first)),
        _ => refuse(format!(
            "{} is not one port: expected for example tcp/8080",
            quote(text)
        )),
    }
}

/// Parses the port of a policy test: one port, one name, or a protocol without ports.
///
/// # Errors
/// When it is anything else.
pub fn test_port(text: &str) -> Result<PortMatch, ValueError> {
    let port = port_match(text)?;
    let concrete = match &port {
        PortMatch::Range { first, last, .. } => first == last,
        PortMatch::Protocol(protocol) => !protocol.has_ports(),
        PortMatch::Named { .. } => true,
    };
    if concrete {
        return Ok(port);
    }
    refuse(format!(
        "{} is not one port: expected for example tcp/8080, http or icmp",
        quote(text)
    ))
}

/// Parses an end of a policy test: `namespace/workload` or an address.
///
/// # Errors
/// When it is neither.
pub fn test_end(text: &str) -> Result<TestEnd, ValueError> {
    if let Ok(address) = text.parse() {
        return Ok(TestEnd::Address(address));
    }
    match text.parse::<WorkloadId>() {
        Ok(id) => Ok(TestEnd::Workload(id)),
        Err(_) => refuse(format!(
            "{} is neither a workload nor an address: expected for example shop/orders-1 or \
             203.0.113.7",
            quote(text)
        )),
    }
}

/// Parses an address that a workload or node owns.
///
/// # Errors
/// When it is not an address, or one that no workload or node can own.
pub fn owned_address(text: &str) -> Result<IpAddr, ValueError> {
    let Ok(address) = text.parse() else {
        return refuse(format!(
            "{} is not an address: expected for example 10.1.0.3 or fd00:1::3",
            quote(text)
        ));
    };
    match unusable_reason(address) {
        None => Ok(address),
        Some(reason) => refuse(format!(
            "address {address} is {reason}: expected a unicast address of its own"
        )),
    }
}

/// Parses an address range; the second value is true if host bits were set, which are masked.
///
/// # Errors
/// When it is not a CIDR, or is a range of IPv4-mapped IPv6 addresses.
pub fn cidr(text: &str) -> Result<(IpNet, bool), ValueError> {
    let Ok(net) = text.parse::<IpNet>() else {
        return refuse(format!(
            "{} is not a CIDR: expected for example 203.0.113.0/24 or fd00::/8",
            quote(text)
        ));
    };
    let masked = net.trunc();
    if let IpNet::V6(v6) = masked
        && v6.prefix_len() >= 96
        && v6.addr().to_ipv4_mapped().is_some()
    {
        return refuse(format!(
            "{} contains IPv4-mapped IPv6 addresses: expected the IPv4 CIDR itself",
            quote(text)
        ));
    }
    Ok((masked, masked != net))
}

/// Parses the name of an entity.
///
/// # Errors
/// When there is no such entity.
pub fn entity(text: &str) -> Result<Entity, ValueError> {
    match text {
        "world" => Ok(Entity::World),
        "host" => Ok(Entity::Host),
        "remote-node" => Ok(Entity::RemoteNode),
        _ => refuse(format!(
            "unknown entity {}: expected world, host or remote-node",
            quote(text)
        )),
    }
}

/// Parses a rule's action.
///
/// # Errors
/// When there is no such action.
pub fn action(text: &str) -> Result<RuleAction, ValueError> {
    match text {
        "allow" => Ok(RuleAction::Allow),
        "deny" => Ok(RuleAction::Deny),
        "reject" => Ok(RuleAction::Reject),
        "pass" => Ok(RuleAction::Pass),
        _ => refuse(format!(
            "unknown action {}: expected allow, deny, reject or pass",
            quote(text)
        )),
    }
}

/// Parses the tier of a cluster policy.
///
/// # Errors
/// When it is neither admin nor baseline.
pub fn tier(text: &str) -> Result<Tier, ValueError> {
    match text {
        "admin" => Ok(Tier::Admin),
        "baseline" => Ok(Tier::Baseline),
        _ => refuse(format!(
            "unknown tier {}: expected admin or baseline",
            quote(text)
        )),
    }
}

/// Parses the verdict a policy test expects.
///
/// # Errors
/// When it is neither allow nor deny.
pub fn expectation(text: &str) -> Result<Verdict, ValueError> {
    match text {
        "allow" => Ok(Verdict::Allow),
        "deny" => Ok(Verdict::Deny),
        _ => refuse(format!(
            "unknown verdict {}: expected allow or deny",
            quote(text)
        )),
    }
}

const TIME_FORM: &str = "expected a time with an offset, for example 2026-12-01T00:00:00Z";

/// Parses a point in time: a TOML date-time with an offset, or the same as a string.
///
/// # Errors
/// When it is anything else, or outside the years 1678 to 2261.
pub fn wall_time(value: &Value) -> Result<WallTime, ValueError> {
    let text = match value {
        Value::Datetime(time) if time.offset.is_some() => time.to_string(),
        Value::Datetime(time) => return refuse(format!("{time} has no offset: {TIME_FORM}")),
        Value::String(text) => text.clone(),
        other => {
            return refuse(format!(
                "not a time but a value of type {}: {TIME_FORM}",
                other.type_str()
            ));
        }
    };
    let Ok(time) = text.parse::<jiff::Timestamp>() else {
        return refuse(format!("bad time {}: {TIME_FORM}", quote(&text)));
    };
    match i64::try_from(time.as_nanosecond()) {
        Ok(nanoseconds) => Ok(WallTime(nanoseconds)),
        Err(_) => refuse(format!(
            "time {} is out of range: expected a year from 1678 to 2261",
            quote(&text)
        )),
    }
}

/// Parses a day: a TOML local date, or the same as a string.
///
/// # Errors
/// When it is anything else.
pub fn day(value: &Value) -> Result<String, ValueError> {
    let text = match value {
        Value::Datetime(time) if time.time.is_none() => time.to_string(),
        Value::String(text) => text.clone(),
        _ => return refuse("not a day: expected a date without time, for example 2027-02-01"),
    };
    match text.parse::<jiff::civil::Date>() {
        Ok(day) => Ok(day.to_string()),
        Err(_) => refuse(format!(
            "bad day {}: expected for example 2027-02-01",
            quote(&text)
        )),
    }
}

/// Checks free text, such as a justification: its length is limited, and it may not contain
/// characters that change how other text is shown. Surrounding whitespace is removed.
///
/// # Errors
/// When it is too long or contains such a character.
pub fn free_text(text: &str) -> Result<String, ValueError> {
    bounded_text(text.trim_ascii(), MAX_FREE_TEXT)
}

/// Checks the name of a rule: its length is limited, and it may not contain characters that change
/// how other text is shown.
///
/// # Errors
/// When it is too long or contains such a character.
pub fn rule_name(text: &str) -> Result<String, ValueError> {
    bounded_text(text, MAX_RULE_NAME)
}

fn bounded_text(text: &str, limit: usize) -> Result<String, ValueError> {
    let breaks = ['\n', '\r', '\t'];
    if let Some(bad) = text
        .chars()
        .find(|&c| is_deceptive(c) && !breaks.contains(&c))
    {
        return refuse(format!(
            "the text contains {}: expected no control, bidirectional or zero-width characters",
            bad.escape_unicode()
        ));
    }
    let length = text.chars().count();
    if length > limit {
        return refuse(format!(
            "the text has {length} characters: expected at most {limit}"
        ));
    }
    Ok(text.to_owned())
}
