//! A flow record as one line for people.
//!
//! Invariants: made only from the public JSON, so that it works with every agent version; missing
//! fields are left out; everything is escaped. Times are UTC.

use anyhow::{Context, Result};
use serde_json::Value;

use super::table::escape;

/// Renders a line of the flow stream.
pub(super) fn compact(line: &str) -> Result<String> {
    let line: Value =
        serde_json::from_str(line).context("the agent sent a flow that is not JSON")?;
    let time = clock(text(&line, "/time").unwrap_or_default());
    if let Some(lost) = text(&line, "/lost_events/num_events_lost") {
        return Ok(format!(
            "{time} LOST {} flow records: the reader is too slow",
            escape(lost)
        ));
    }
    let flow = line.get("flow").unwrap_or(&Value::Null);
    let mut parts = vec![
        time,
        verdict(flow),
        format!("{} → {}", end(flow, "source"), end(flow, "destination")),
    ];
    parts.extend(protocol(flow));
    let reply = flow
        .get("is_reply")
        .and_then(Value::as_bool)
        .unwrap_or_default();
    let direction = text(flow, "/traffic_direction")
        .unwrap_or_default()
        .to_ascii_lowercase();
    parts.push(format!(
        " {}{}",
        escape(&direction),
        if reply { " reply" } else { "" }
    ));
    parts.push(format!(" by {}", decider(flow)));
    let packets = extension(flow, "packets")
        .and_then(Value::as_u64)
        .unwrap_or(1);
    if packets > 1 {
        parts.push(format!(" {packets} packets"));
    }
    parts.extend(about(flow));
    Ok(parts.join(" "))
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn extension<'a>(flow: &'a Value, key: &str) -> Option<&'a Value> {
    flow.pointer("/extensions/value")?.get(key)
}

fn extension_text<'a>(flow: &'a Value, key: &str) -> Option<&'a str> {
    extension(flow, key).and_then(Value::as_str)
}

/// `12:03:11.123` of `2026-01-02T12:03:11.123456789Z`.
fn clock(time: &str) -> String {
    let clock = time.split_once('T').map_or(time, |(_, clock)| clock);
    escape(clock.get(..12).unwrap_or(clock))
}

fn verdict(flow: &Value) -> String {
    let word = extension_text(flow, "verdict")
        .or_else(|| text(flow, "/verdict"))
        .unwrap_or("?");
    format!("{:10}", escape(word).to_uppercase())
}

fn end(flow: &Value, side: &str) -> String {
    let of = |key: &str| text(flow, &format!("/{side}/{key}"));
    let ip = text(flow, &format!("/IP/{side}"));
    let port = flow
        .get("l4")
        .and_then(Value::as_object)
        .and_then(|l4| l4.values().next())
        .and_then(|l4| l4.get(format!("{side}_port")))
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    if let Some((namespace, name)) = of("namespace").zip(of("pod_name")) {
        return escape(&format!("{namespace}/{name}{port}"));
    }
    let service = |key: &str| text(flow, &format!("/{side}_service/{key}"));
    if let Some((namespace, name)) = service("namespace").zip(service("name")) {
        let ip = ip.unwrap_or("?");
        return escape(&format!("Service {namespace}/{name}{port} ({ip})"));
    }
    let address = match ip {
        Some(ip) if ip.contains(':') && !port.is_empty() => format!("[{ip}]{port}"),
        Some(ip) => format!("{ip}{port}"),
        None => "?".to_owned(),
    };
    let labels = flow
        .get(side)
        .and_then(|end| end.get("labels"))
        .and_then(Value::as_array);
    let reserved = labels
        .into_iter()
        .flatten()
        .find_map(|label| label.as_str()?.strip_prefix("reserved:"))
        .map(|name| format!(" ({name})"))
        .unwrap_or_default();
    escape(&format!("{address}{reserved}"))
}

fn protocol(flow: &Value) -> Option<String> {
    let summary = text(flow, "/Summary")?;
    let shown = match summary.strip_prefix("TCP Flags: ") {
        Some(flags) => format!("TCP {flags}"),
        None => summary.to_owned(),
    };
    Some(escape(shown.trim_end()))
}

fn decider(flow: &Value) -> String {
    let rule = extension_text(flow, "rule").unwrap_or("?");
    let decider = match extension_text(flow, "policy") {
        Some(policy) => format!("{policy} {rule}"),
        None => rule.to_owned(),
    };
    match extension_text(flow, "reason") {
        Some(reason) => escape(&format!("{decider} ({reason})")),
        None => escape(&decider),
    }
}

fn about(flow: &Value) -> Option<String> {
    let keys = [
        ("justification", "justification"),
        ("owner", "owner"),
        ("ticket", "ticket"),
        ("review by", "review_by"),
        ("expires", "expires"),
    ];
    let parts: Vec<_> = keys
        .into_iter()
        .filter_map(|(word, key)| Some(format!("{word} {}", escape(extension_text(flow, key)?))))
        .collect();
    (!parts.is_empty()).then(|| format!(" — {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use ringfence_common::event::FlowEvent;
    use ringfence_common::ids::IdentityId;
    use ringfence_common::mode::Action;

    use super::*;
    use crate::observe::flow::protocol;
    use crate::observe::flow::tests::{denied, event, event6, record};
    use crate::observe::hubble;

    fn shown(event: &FlowEvent) -> String {
        let mut line = Vec::new();
        hubble::write_line(&mut line, &record(event));
        compact(std::str::from_utf8(&line).unwrap()).unwrap()
    }

    #[test]
    fn a_denied_flow() {
        assert_eq!(
            shown(&denied(event(), Action::Drop)),
            "03:04:05.000 DENIED     shop/frontend-1:43210 → shop/db-1:5432 TCP SYN  egress  by \
             default-deny (policy)  3 packets"
        );
        assert!(shown(&denied(event6(), Action::Pass)).contains(" WOULD-DENY "));
    }

    #[test]
    fn an_allowed_flow_shows_its_rule_with_escaped_text() {
        assert_eq!(
            shown(&event()),
            "03:04:05.000 ALLOWED    shop/frontend-1:43210 → shop/db-1:5432 TCP SYN  egress  by \
             shop/frontend egress[0]  — justification reads \"orders\"\\u{1b}[2J\\u{202e}, owner \
             team-web, ticket SEC-1, review by 2027-02-01"
        );
    }

    #[test]
    fn ends_that_are_not_workloads_show_their_address() {
        let world = FlowEvent {
            peer: ringfence_common::net::Ip6::from_wire([0xfd; 16]),
            peer_identity: IdentityId::WORLD,
            from_workload: 0,
            ..event6()
        };
        let line = shown(&world);
        assert!(line.contains(" [fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:5432 (world) → shop/"));
        assert!(line.contains(" egress reply "), "{line}");
        let icmp = FlowEvent {
            protocol: protocol::ICMPV6,
            ..world
        };
        assert!(shown(&icmp).contains(":fdfd (world) → shop/frontend-1 ICMPv6 EchoReply "));
    }

    #[test]
    fn a_service_is_shown_with_its_address() {
        let line = r#"{"flow":{"IP":{"destination":"10.96.0.7"},"l4":{"TCP":{"destination_port":80}},
            "destination_service":{"name":"db","namespace":"shop"}}}"#;
        let shown = compact(line).unwrap();
        assert!(
            shown.contains("→ Service shop/db:80 (10.96.0.7)"),
            "{shown}"
        );
    }

    #[test]
    fn gaps_and_unknown_lines() {
        let mut line = Vec::new();
        hubble::write_lost(&mut line, 7, "n", jiff::Timestamp::UNIX_EPOCH);
        let line = compact(std::str::from_utf8(&line).unwrap()).unwrap();
        assert_eq!(
            line,
            "00:00:00.000 LOST 7 flow records: the reader is too slow"
        );
        assert!(compact("{}").is_ok());
        assert!(compact("{\"flow\":[1]}").is_ok());
        assert!(compact("nonsense").is_err());
    }
}
