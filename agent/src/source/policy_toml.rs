//! Parses TOML policy files: `[[policy]]` tables to `model::Policy`.
//!
//! Checks each file by itself; conflicts between files (names used twice, unknown namespaces) are
//! left to `files`. All errors of a file are reported at once, each at the place of the value that
//! causes it.

use std::ops::Range;
use std::sync::Arc;

use ipnet::IpNet;
use toml::Spanned;

use super::cidr_block;
use super::document::{Document, SourceError, WarningKind};
use super::limits::{
    MAX_PEERS, MAX_PORTS, MAX_REQUIREMENTS, MAX_RULES, MAX_SELECTOR_VALUES, MAX_TESTS,
    MAX_TOML_POLICY_SIZE,
};
use super::policy_file::PolicyFragment;
use super::policy_raw::{RawFile, RawPeer, RawPolicy, RawRule, RawTest, Text};
use super::policy_scope;
use super::value;
use crate::model::selector::{Operator, Requirement};
use crate::model::{
    About, LabelSelector, NamespaceMatch, Origin, Peer, Peers, Policy, PolicyKind, PolicyName,
    PolicyTest, Ports, Rule, RuleAction, Scope, ServiceAccountName, Tier, Window,
};

/// Parses a policy file; an empty file has no policies.
///
/// # Errors
/// All errors of the file.
pub fn parse(file_name: &str, text: &str) -> Result<PolicyFragment, Vec<SourceError>> {
    let mut document =
        Document::new(file_name, text, MAX_TOML_POLICY_SIZE).map_err(|error| vec![error])?;
    let raw: RawFile = document.read().map_err(|error| vec![error])?;
    let policies: Vec<_> = raw
        .policy
        .into_iter()
        .filter_map(|raw| policy(&mut document, raw))
        .map(Arc::new)
        .collect();
    let warnings = document.close()?;
    Ok(PolicyFragment { policies, warnings })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

pub(super) fn parsed<T>(document: &mut Document<'_>, text: &Text) -> Option<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    document.accept(text.span(), text.get_ref().parse())
}

/// Parses a label selector and checks its limits.
pub(super) fn selector(document: &mut Document<'_>, text: &Text) -> Option<LabelSelector> {
    let selector: LabelSelector = parsed(document, text)?;
    let count = selector.requirements().len();
    if count > MAX_REQUIREMENTS {
        let message =
            format!("{count} requirements in a selector: expected at most {MAX_REQUIREMENTS}");
        document.refuse(text.span(), message);
        return None;
    }
    let values = |requirement: &Requirement| match requirement.operator() {
        Operator::In(values) | Operator::NotIn(values) => values.len(),
        Operator::Exists | Operator::DoesNotExist => 0,
    };
    let longest = selector.requirements().iter().map(values).max();
    if let Some(count) = longest.filter(|count| *count > MAX_SELECTOR_VALUES) {
        let message = format!("{count} values for a label: expected at most {MAX_SELECTOR_VALUES}");
        document.refuse(text.span(), message);
        return None;
    }
    Some(selector)
}

/// Checks the length of a list; the error is reported at the first item beyond the limit.
fn check_length<T>(
    document: &mut Document<'_>,
    what: &str,
    items: &[Spanned<T>],
    limit: usize,
) -> Option<()> {
    match items.get(limit) {
        None => Some(()),
        Some(beyond) => {
            let message = format!("{} {what}: expected at most {limit}", items.len());
            document.refuse(beyond.span(), message);
            None
        }
    }
}

fn free_text(document: &mut Document<'_>, text: Option<&Text>) -> Option<String> {
    let text = text?;
    document.accept(text.span(), value::free_text(text.get_ref()))
}

fn policy(document: &mut Document<'_>, raw: Spanned<RawPolicy>) -> Option<Policy> {
    let span = raw.span();
    let raw = raw.into_inner();
    let scope = policy_scope::scope(document, &span, &raw);
    let name: Option<PolicyName> = parsed(document, &raw.name);
    let subject = if let Some(subject) = &raw.subject {
        selector(document, subject)
    } else {
        let message = "a policy without subject: expected a label selector, \"\" selects all";
        document.refuse(span.clone(), message);
        None
    };
    let review_by = raw
        .review_by
        .and_then(|day| document.accept(day.span(), value::day(day.get_ref())));
    let ingress = rules(document, scope.as_ref(), Direction::Ingress, raw.ingress);
    let egress = rules(document, scope.as_ref(), Direction::Egress, raw.egress);
    check_length(document, "tests", &raw.test, MAX_TESTS)?;
    let tests = raw
        .test
        .into_iter()
        .filter_map(|test| policy_test(document, &test))
        .collect();
    Some(Policy {
        kind: PolicyKind::Ringfence,
        name: name?,
        scope: scope?,
        subject: subject?,
        about: About {
            owner: free_text(document, raw.owner.as_ref()),
            justification: free_text(document, raw.justification.as_ref()),
            ticket: free_text(document, raw.ticket.as_ref()),
            review_by,
        },
        ingress,
        egress,
        tests,
        origin: Origin {
            file: document.file().clone(),
            line: document.line(span.start),
        },
    })
}

fn rules(
    document: &mut Document<'_>,
    scope: Option<&Scope>,
    direction: Direction,
    raw: Option<Vec<Spanned<RawRule>>>,
) -> Option<Vec<Rule>> {
    let raw = raw?;
    check_length(document, "rules of one direction", &raw, MAX_RULES)?;
    Some(
        raw.into_iter()
            .filter_map(|raw| rule(document, scope, direction, raw))
            .collect(),
    )
}

fn rule(
    document: &mut Document<'_>,
    scope: Option<&Scope>,
    direction: Direction,
    raw: Spanned<RawRule>,
) -> Option<Rule> {
    let line = document.line(raw.span().start);
    let raw = raw.into_inner();
    let action = match &raw.action {
        Some(text) => action(document, scope, text),
        None => Some(RuleAction::Allow),
    };
    let (peers, misplaced, right, wrong) = match direction {
        Direction::Ingress => (raw.from, raw.to, "from", "to"),
        Direction::Egress => (raw.to, raw.from, "to", "from"),
    };
    if let Some(misplaced) = misplaced {
        let message = format!("{wrong} is not valid in this direction: expected {right}");
        document.refuse(misplaced.span(), message);
    }
    let peers = peers_of(document, scope, right, peers);
    let ports = ports_of(document, raw.ports);
    let window = window(document, raw.not_before.as_ref(), raw.expires.as_ref());
    Some(Rule {
        action: action?,
        peers: peers?,
        ports: ports?,
        window: window?,
        name: None,
        line,
    })
}

fn action(document: &mut Document<'_>, scope: Option<&Scope>, text: &Text) -> Option<RuleAction> {
    let action = document.accept(text.span(), value::action(text.get_ref()))?;
    let in_admin =
        |scope: &Scope| matches!(scope, Scope::Cluster { tier, .. } if *tier == Tier::Admin);
    if action == RuleAction::Pass && !scope.is_none_or(in_admin) {
        let message = "pass outside the admin tier: expected allow, deny or reject";
        document.refuse(text.span(), message);
    }
    Some(action)
}

fn peers_of(
    document: &mut Document<'_>,
    scope: Option<&Scope>,
    key: &str,
    raw: Option<Spanned<Vec<Spanned<RawPeer>>>>,
) -> Option<Peers> {
    let Some(raw) = raw else {
        return Some(Peers::Any);
    };
    if raw.get_ref().is_empty() {
        let message = format!("{key} is empty: expected a peer; omit {key} to match every peer");
        document.refuse(raw.span(), message);
    }
    check_length(document, "peers of one rule", raw.get_ref(), MAX_PEERS)?;
    let peers = raw
        .into_inner()
        .iter()
        .filter_map(|peer| peer_of(document, scope, peer))
        .collect();
    Some(Peers::Of(peers))
}

fn peer_of(
    document: &mut Document<'_>,
    scope: Option<&Scope>,
    raw: &Spanned<RawPeer>,
) -> Option<Peer> {
    let (span, raw) = (raw.span(), raw.get_ref());
    let has_workload_keys =
        raw.namespaces.is_some() || raw.pods.is_some() || raw.service_account.is_some();
    if let (Some(except), None) = (&raw.except, &raw.cidr) {
        document.refuse(
            except.span(),
            "except without cidr: expected the cidr that contains the exceptions",
        );
        return None;
    }
    match (&raw.cidr, &raw.entity) {
        (Some(cidr), entity) => {
            if has_workload_keys || entity.is_some() {
                refuse_combination(document, span, "cidr (with except)");
                return None;
            }
            cidr_peer(document, cidr, raw.except.as_ref())
        }
        (None, Some(entity)) => {
            if has_workload_keys {
                refuse_combination(document, span, "entity");
                return None;
            }
            document
                .accept(entity.span(), value::entity(entity.get_ref()))
                .map(Peer::Entity)
        }
        (None, None) if has_workload_keys => workload_peer(document, scope, raw),
        (None, None) => {
            document.refuse(
                span,
                "an empty peer: expected namespaces, pods, service-account, cidr or entity",
            );
            None
        }
    }
}

fn refuse_combination(document: &mut Document<'_>, span: Range<usize>, key: &str) {
    let message = format!(
        "{key} cannot be combined with other keys: expected a separate peer for each condition"
    );
    document.refuse(span, message);
}

fn workload_peer(
    document: &mut Document<'_>,
    scope: Option<&Scope>,
    raw: &RawPeer,
) -> Option<Peer> {
    let namespaces = match &raw.namespaces {
        Some(text) => selector(document, text).map(NamespaceMatch::Selector),
        None => scope.map(|scope| match scope {
            Scope::Namespace(own) => NamespaceMatch::Own(own.clone()),
            Scope::Cluster { .. } => NamespaceMatch::Selector(LabelSelector::everything()),
        }),
    };
    let pods = match &raw.pods {
        Some(text) => {
            let selector = selector(document, text);
            Some(selector?).filter(|selector| !selector.is_everything())
        }
        None => None,
    };
    let service_account = match &raw.service_account {
        Some(text) => Some(parsed::<ServiceAccountName>(document, text)?),
        None => None,
    };
    Some(Peer::Workloads {
        namespaces: namespaces?,
        pods,
        service_account,
    })
}

fn cidr_peer(
    document: &mut Document<'_>,
    cidr: &Text,
    except: Option<&Spanned<Vec<Text>>>,
) -> Option<Peer> {
    let net = masked(document, cidr)?;
    let mut exceptions = Vec::new();
    if let Some(except) = except {
        check_length(document, "exceptions", except.get_ref(), MAX_PEERS)?;
    }
    for text in except.map(Spanned::get_ref).into_iter().flatten() {
        let Some(exception) = masked(document, text) else {
            continue;
        };
        document.accept(text.span(), cidr_block::check_inside(net, exception));
        exceptions.push(exception);
    }
    Some(cidr_block::peer(net, exceptions))
}

fn masked(document: &mut Document<'_>, text: &Text) -> Option<IpNet> {
    let (net, had_host_bits) = document.accept(text.span(), value::cidr(text.get_ref()))?;
    if had_host_bits {
        let message = format!("{} has host bits set: taken as {net}", text.get_ref());
        document.warn(text.span(), WarningKind::HostBits, message);
    }
    Some(net)
}

fn ports_of(document: &mut Document<'_>, raw: Option<Spanned<Vec<Text>>>) -> Option<Ports> {
    let Some(raw) = raw else {
        return Some(Ports::Any);
    };
    if raw.get_ref().is_empty() {
        let message = "ports is empty: expected a port; omit ports to match every port";
        document.refuse(raw.span(), message);
    }
    check_length(document, "ports of one rule", raw.get_ref(), MAX_PORTS)?;
    let mut ports = Vec::with_capacity(raw.get_ref().len());
    for text in raw.get_ref() {
        ports.extend(document.accept(text.span(), value::port_match(text.get_ref())));
    }
    Some(Ports::Of(ports))
}

fn window(
    document: &mut Document<'_>,
    not_before: Option<&Spanned<toml::Value>>,
    expires: Option<&Spanned<toml::Value>>,
) -> Option<Window> {
    let mut time = |value: Option<&Spanned<toml::Value>>| match value {
        Some(value) => document
            .accept(value.span(), value::wall_time(value.get_ref()))
            .map(Some),
        None => Some(None),
    };
    let (start, end) = (time(not_before), time(expires));
    let window = Window {
        not_before: start?,
        expires: end?,
    };
    if let (Some(start), Some(end), Some(place)) = (window.not_before, window.expires, expires)
        && end <= start
    {
        let message = "the rule expires before it begins: expected expires after not-before";
        document.refuse(place.span(), message);
    }
    Some(window)
}

fn policy_test(document: &mut Document<'_>, raw: &Spanned<RawTest>) -> Option<PolicyTest> {
    let line = document.line(raw.span().start);
    let raw = raw.get_ref();
    let from = document.accept(raw.from.span(), value::test_end(raw.from.get_ref()));
    let to = document.accept(raw.to.span(), value::test_end(raw.to.get_ref()));
    let port = document.accept(raw.port.span(), value::test_port(raw.port.get_ref()));
    let expect = document.accept(raw.expect.span(), value::expectation(raw.expect.get_ref()));
    Some(PolicyTest {
        from: from?,
        to: to?,
        port: port?,
        expect: expect?,
        line,
    })
}

#[cfg(test)]
mod tests;
