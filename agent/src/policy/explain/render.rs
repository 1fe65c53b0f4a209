//! Renders an explanation as text.
//!
//! Invariants: a pure function. Every line is safe for a terminal, whatever files and authors
//! contain; free text by authors is quoted and bounded. Adds no facts to the explanation.

use ringfence_common::mode::Verdict;

use super::report::{
    Advice, Backends, Decider, Explanation, Live, RuleStanding, Side, Standing, Who, WhoKind,
};
use crate::model::{ModeName, quote, quote::sanitise};

/// The lines of an explanation, each with its newline.
#[must_use]
pub fn render(explanation: &Explanation) -> String {
    let Explanation {
        from,
        to,
        port,
        at,
        verdict,
        egress,
        ingress,
        service,
    } = explanation;
    let mut page = Page::default();
    page.line(
        0,
        &format!(
            "{} to {}, {port}: {}",
            who(from),
            who(to),
            verdict.name().to_uppercase()
        ),
    );
    page.line(0, &format!("as of {at}"));
    if let Some(backends) = service {
        backend_lines(&mut page, to, backends);
    }
    for (side, own) in [(egress, from), (ingress, to)] {
        page.blank();
        side_lines(&mut page, side, own);
        if side.verdict == *verdict {
            advice_lines(&mut page, &side.advice, side.verdict);
        }
    }
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, depth: usize, text: &str) {
        self.text.push_str(&"  ".repeat(depth));
        self.text.push_str(&sanitise(text));
        self.text.push('\n');
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }
}

fn who(who: &Who) -> String {
    let kind = match who.kind {
        WhoKind::Service => "Service ",
        _ => "",
    };
    format!("{kind}{} ({})", who.name, who.address)
}

fn backend_lines(page: &mut Page, service: &Who, backends: &Backends) {
    let count = backends.count;
    let name = &service.name;
    page.line(0, &format!("backends of {name} at this port: {count}"));
    for backend in &backends.listed {
        let (name, port) = (who(&backend.who), &backend.port);
        let (egress, by) = (backend.egress.name(), &backend.egress_by);
        let (ingress, its) = (backend.ingress.name(), &backend.ingress_by);
        let alike = match backend.alike {
            0 | 1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        page.line(
            1,
            &format!(
                "{name} at {port}{alike}: egress {egress} by {by}, ingress {ingress} by {its}"
            ),
        );
    }
    let shown: usize = backends.listed.iter().map(|it| it.alike).sum();
    if shown < count {
        page.line(1, &format!("and {} more", count - shown));
    }
}

fn side_lines(page: &mut Page, side: &Side, own: &Who) {
    let (direction, verdict) = (side.direction.name(), side.verdict.name());
    let by = match &side.policy {
        Some(policy) => format!("{} of {policy}", side.rule),
        None => side.rule.clone(),
    };
    let name = &own.name;
    page.line(0, &format!("{direction} of {name}: {verdict} by {by}"));
    if let Some(live) = &side.live {
        page.line(1, &live_words(live, side.verdict));
    }
    if let Some(words) = implicit_words(&side.rule, name) {
        page.line(1, &words);
        return;
    }
    if let Some(decider) = &side.decider {
        decider_lines(page, decider);
    }
    policy_lines(page, side);
    rule_lines(page, side);
    if let Some(words) = default_words(side, name) {
        page.line(1, words.as_str());
    }
}

/// Verdicts that are made without policies.
fn implicit_words(rule: &str, name: &str) -> Option<String> {
    Some(match rule {
        "own-address" => "traffic to an own address is always allowed; no policy applies".into(),
        "host-ingress" => {
            format!("it comes from a socket of {name}'s node, which is allowed before every policy")
        }
        "not-a-workload" => format!("{name} is not a workload, so no policy selects it"),
        _ => return None,
    })
}

fn default_words(side: &Side, name: &str) -> Option<String> {
    let direction = side.direction.name();
    Some(match side.rule.as_str() {
        "default-deny" => format!(
            "no rule decides, and the policies that isolate {direction} of {name} deny what none \
             allows"
        ),
        "default-allow" => format!("no rule decides, and no policy isolates {direction} of {name}"),
        "raw-protocol" => {
            format!("no rule decides; tunnels and raw protocols from {name} need an explicit rule")
        }
        "service-port" => format!(
            "the Service has no backend at this port, and {direction} of {name} has policies"
        ),
        "service-mixed" => format!(
            "some backends are allowed to {name} and some are not, and which one a connection gets is not known \
             before it is translated"
        ),
        "node-tunnel" => format!(
            "no rule decides; what leads into a tunnel of a node needs a rule for {name} that names it"
        ),
        _ => return None,
    })
}

fn live_words(live: &Live, verdict: Verdict) -> String {
    let Live {
        namespace,
        mode,
        attached,
    } = live;
    if !attached {
        return format!("not fenced by this agent; namespace {namespace} is in {mode} mode here");
    }
    match (mode, verdict) {
        (ModeName::Observe, Verdict::Deny) => {
            format!("namespace {namespace} observes: it would be dropped, and passes")
        }
        (ModeName::Observe, Verdict::Allow) => format!("namespace {namespace} observes: it passes"),
        (ModeName::Enforce, Verdict::Deny) => {
            format!("namespace {namespace} enforces: it is dropped")
        }
        (ModeName::Enforce, Verdict::Allow) => format!("namespace {namespace} enforces: it passes"),
        (ModeName::Lockdown, _) => {
            format!("namespace {namespace} is locked down: it is dropped whatever the verdict")
        }
    }
}

fn decider_lines(page: &mut Page, decider: &Decider) {
    let Decider {
        tier,
        action,
        name,
        location,
        ..
    } = decider;
    let name = name
        .as_ref()
        .map_or_else(String::new, |name| format!(" {}", quote(name)));
    page.line(
        1,
        &format!("decided by {location}:{name} {action} in tier {tier}"),
    );
    for (key, value) in [
        ("owner", &decider.owner),
        ("justification", &decider.justification),
        ("ticket", &decider.ticket),
        ("review by", &decider.review_by),
    ] {
        if let Some(value) = value {
            page.line(2, &format!("{key}: {}", quote(value)));
        }
    }
    if let Some(expires) = &decider.expires {
        page.line(2, &format!("expires: {expires}"));
    }
}

fn policy_lines(page: &mut Page, side: &Side) {
    let direction = side.direction.name();
    if side.policies.is_empty() {
        page.line(1, &format!("no policy applies to {direction}"));
        return;
    }
    page.line(1, &format!("policies that apply to {direction}:"));
    for policy in &side.policies {
        let isolates = match (policy.isolates, policy.evaluated) {
            (true, _) => ", isolates",
            (false, true) => "",
            (false, false) => ", not evaluated after one that isolates",
        };
        page.line(
            2,
            &format!(
                "{} ({}{isolates}), {}",
                policy.policy, policy.tier, policy.location
            ),
        );
    }
    if side.policies_left_out > 0 {
        page.line(2, &format!("and {} more", side.policies_left_out));
    }
}

fn rule_lines(page: &mut Page, side: &Side) {
    if !side.rules.is_empty() {
        page.line(1, "rules, in evaluation order:");
    }
    for rules in &side.rules {
        page.line(2, &tried_words(rules));
    }
    if side.rules_left_out > 0 {
        page.line(
            2,
            &format!(
                "{} more do not match and are further from it",
                side.rules_left_out
            ),
        );
    }
    if side.not_evaluated > 0 {
        page.line(2, &format!("{} more are not evaluated", side.not_evaluated));
    }
}

fn tried_words(rules: &RuleStanding) -> String {
    let RuleStanding {
        tier,
        policy,
        rule,
        name,
        location,
        action,
        standing,
        misses,
    } = rules;
    let name = name
        .as_ref()
        .map_or_else(String::new, |name| format!(" {}", quote(name)));
    let standing = match (standing, misses.as_slice()) {
        (Standing::NoMatch, [first]) => first.to_string(),
        (Standing::NoMatch, [first, rest @ ..]) => format!("{first} (and {} more)", rest.len()),
        (Standing::NoMatch | Standing::NotEvaluated, _) => "not asked".to_owned(),
        (Standing::Decides, _) => "matches and decides".to_owned(),
        (Standing::Passes, _) => "matches and skips the rest of its tier".to_owned(),
        (Standing::Outweighed, _) => {
            "matches, but a stronger or earlier rule of the same order decides".to_owned()
        }
        (Standing::Superseded, _) => "matches, but its policy has last_policy already".to_owned(),
    };
    format!("{tier}: {action} {rule} of {policy}{name} ({location}): {standing}")
}

fn advice_lines(page: &mut Page, advice: &Advice, verdict: Verdict) {
    let goal = match verdict {
        Verdict::Allow => "to deny it here:",
        Verdict::Deny => "to allow it here:",
    };
    if advice.notes.is_empty() && advice.alternatives.is_empty() {
        return;
    }
    page.line(1, goal);
    for note in &advice.notes {
        page.line(2, &format!("({note})"));
    }
    for (number, alternative) in advice.alternatives.iter().enumerate() {
        for (step, text) in alternative.steps.iter().enumerate() {
            let link = match (number, step) {
                (0, 0) => "",
                (_, 0) => "or ",
                _ if text.starts_with('(') => "",
                _ => "and ",
            };
            page.line(2, &format!("{link}{text}"));
        }
        for line in &alternative.snippet {
            page.line(4, line);
        }
    }
}
