//! The smallest change that would give the opposite verdict at one end.
//!
//! Invariants: advice that changes rules was rules against the given rules and yields that verdict
//! at this end. Tiers are respected, so no advice adds a rule that is never evaluated. The other
//! end must agree separately. Relabelling may also change which policies select a workload; the
//! advice says so, but does not compute it.

use ringfence_common::mode::{Direction, Verdict};

use super::{
    super::table::Stage,
    flow_side::FlowSide,
    miss::Miss,
    report::{Advice, Alternative},
    rule_order::{Hypothesis, Outcome, RankedRule, RuleOrder},
    snippet,
};
use crate::model::{Ports, RuleAction};

/// Removing more rules than this is not a small change.
const MOST_REMOVALS: usize = 5;

/// How to get the opposite verdict.
pub(super) fn advice(order: &RuleOrder<'_>, outcome: Outcome) -> Advice {
    match outcome.verdict() {
        Verdict::Deny => to_allow(order, outcome),
        Verdict::Allow => to_deny(order, outcome),
    }
}

/// How far a rule is from matching: first by the number of conditions, then by how hard they are to
/// change.
pub(super) fn distance(ranked: &RankedRule<'_>) -> (usize, usize) {
    let hardness = ranked.misses.iter().map(|miss| match miss {
        Miss::UnknownPeer => 100,
        Miss::Port { .. }
        | Miss::Protocol { .. }
        | Miss::Undeclared { .. }
        | Miss::Tunnel { .. }
        | Miss::Elsewhere { .. } => 1,
        Miss::NotYetValid { .. } | Miss::Lapsed { .. } => 2,
        _ => 3,
    });
    (ranked.misses.len(), hardness.sum())
}

fn to_allow(order: &RuleOrder<'_>, outcome: Outcome) -> Advice {
    let mut advice = Advice::default();
    let stage = match outcome {
        Outcome::Rule(place, _) => order.at(place).map(|ranked| ranked.stage),
        _ => None,
    };
    match stage {
        Some(Stage::Admin(priority)) => {
            advice.notes.push(format!(
                "the admin tier is evaluated first: no rule of a namespace helps, only one of the \
                 admin tier{}",
                before(priority)
            ));
            advice.alternatives.extend(without(order, Verdict::Allow));
        }
        Some(Stage::Namespace) => {
            let note = "deny beats allow in the namespace tier: a further allow rule does not help";
            advice.notes.push(note.to_owned());
            advice.alternatives.extend(without(order, Verdict::Allow));
        }
        Some(Stage::Baseline(_)) => {
            advice.alternatives.push(add(order, RuleAction::Allow));
            advice.alternatives.extend(without(order, Verdict::Allow));
        }
        None if outcome == Outcome::NodeTunnel => {
            let note = "no default allows what leads into a tunnel of a node";
            advice.notes.push(note.to_owned());
            advice.alternatives.push(add(order, RuleAction::Allow));
        }
        None if outcome == Outcome::RawProtocol => {
            let note = "tunnels and raw protocols need an explicit rule on the alternative out";
            advice.notes.push(note.to_owned());
            advice.alternatives.push(add(order, RuleAction::Allow));
        }
        None => {
            advice.alternatives.extend(nearest(order));
            advice.alternatives.push(add(order, RuleAction::Allow));
        }
    }
    advice
}

fn to_deny(order: &RuleOrder<'_>, outcome: Outcome) -> Advice {
    let mut advice = Advice::default();
    let decider = match outcome {
        Outcome::Rule(place, _) => order.at(place),
        _ => None,
    };
    advice.alternatives.extend(without(order, Verdict::Deny));
    match decider.map(|ranked| ranked.stage) {
        Some(Stage::Admin(priority)) => {
            advice.notes.push(
                "the admin tier is evaluated first: a deny rule of a namespace is not evaluated"
                    .to_owned(),
            );
            advice.alternatives.push(Alternative {
                steps: vec![format!(
                    "add a deny rule to an admin policy of priority {priority} or lower:"
                )],
                snippet: snippet::rule(&order.flow_side, RuleAction::Deny, false),
            });
        }
        _ => advice.alternatives.push(add(order, RuleAction::Deny)),
    }
    advice
}

fn before(priority: u16) -> String {
    if priority == 0 {
        " itself, at priority 0".to_owned()
    } else {
        format!(" before priority {priority}")
    }
}

/// A new rule in the namespace tier, where all matching rules are combined.
fn add(order: &RuleOrder<'_>, action: RuleAction) -> Alternative {
    let flow_side = &order.flow_side;
    let (direction, id) = (flow_side.direction.name(), &flow_side.subject.id);
    let kind = if action == RuleAction::Allow {
        format!("{direction} rule")
    } else {
        format!("{direction} {action} rule")
    };
    let mut steps = vec![format!(
        "add an {kind} to a policy of namespace {} that selects {id}:",
        id.namespace
    )];
    if !order.isolated {
        steps.push(format!(
            "(it isolates: whatever else {id} {} needs a rule, too)",
            if flow_side.direction == Direction::Egress {
                "sends"
            } else {
                "receives"
            }
        ));
    }
    Alternative {
        steps,
        snippet: snippet::rule(flow_side, action, true),
    }
}

/// Rules to remove until the verdict is the wanted one, with the rule to change if nothing else
/// prevents it then.
fn without(order: &RuleOrder<'_>, wanted: Verdict) -> Option<Alternative> {
    let mut hypothesis = Hypothesis::default();
    let mut steps = Vec::new();
    loop {
        match order.decide(&hypothesis).0 {
            outcome if outcome.verdict() == wanted => break,
            Outcome::Rule(place, _) if hypothesis.removed.len() < MOST_REMOVALS => {
                let ranked = order.at(place)?;
                steps.push(format!(
                    "remove or narrow {}",
                    ranked.title(order.flow_side.direction)
                ));
                if wanted == Verdict::Deny {
                    steps.extend(last_of_its_kind(ranked, order.flow_side.direction));
                }
                hypothesis.removed.insert(place);
            }
            Outcome::DefaultDeny => {
                let (_, resolve_miss) = resolvable(order, &mut hypothesis)?;
                steps.extend(resolve_miss);
                break;
            }
            _ => return None,
        }
    }
    (!steps.is_empty()).then_some(Alternative {
        steps,
        snippet: Vec::new(),
    })
}

/// What to keep when a policy loses the rule that makes it isolate.
fn last_of_its_kind(ranked: &RankedRule<'_>, direction: Direction) -> Option<String> {
    let rules = ranked.policy.rules(direction)?;
    let isolates = ranked.stage == Stage::Namespace && rules.len() == 1;
    isolates.then(|| {
        format!(
            "(keep {} = [] there, or the policy no longer isolates)",
            direction.name()
        )
    })
}

/// The allow rule that is nearest to matching, and what to change.
fn nearest(order: &RuleOrder<'_>) -> Option<Alternative> {
    let (ranked, steps) = resolvable(order, &mut Hypothesis::default())?;
    // The advice to add a rule says the same.
    if ranked.misses.iter().any(|miss| needs_a_rule(ranked, miss)) {
        return None;
    }
    let relabels = ranked.misses.iter().any(|miss| {
        matches!(
            miss,
            Miss::Label { .. } | Miss::NamespaceLabel { .. } | Miss::ServiceAccount { .. }
        )
    });
    let mut steps = steps;
    if relabels {
        steps.push("(labels also choose which policies select a workload)".to_owned());
    }
    Some(Alternative {
        steps,
        snippet: Vec::new(),
    })
}

fn resolvable<'h, 'a>(
    order: &'h RuleOrder<'a>,
    hypothesis: &mut Hypothesis,
) -> Option<(&'h RankedRule<'a>, Vec<String>)> {
    let mut candidates: Vec<&RankedRule<'a>> = order
        .rules
        .iter()
        .filter(|ranked| ranked.allows() && !ranked.misses.is_empty())
        .filter(|ranked| !ranked.misses.contains(&Miss::UnknownPeer))
        .collect();
    candidates.sort_by_key(|ranked| (distance(ranked), ranked.rank));
    for ranked in candidates {
        hypothesis.matching = Some(ranked.rank);
        if order.decide(hypothesis).0.verdict() == Verdict::Allow {
            return Some((ranked, resolve_all(&order.flow_side, ranked)));
        }
    }
    hypothesis.matching = None;
    None
}

/// Whether only another rule can resolve a miss: ports would narrow a rule that has none.
fn needs_a_rule(ranked: &RankedRule<'_>, miss: &Miss) -> bool {
    matches!(
        (miss, &ranked.rule.ports),
        (Miss::Tunnel { .. }, Ports::Any)
    )
}

/// How to resolve every miss of a rule; one more peer resolves all misses of the present one.
fn resolve_all(flow_side: &FlowSide<'_>, ranked: &RankedRule<'_>) -> Vec<String> {
    let foreign = ranked.misses.iter().any(wants_another_peer);
    let mut steps: Vec<String> = Vec::new();
    for miss in &ranked.misses {
        let made_up_for = foreign && is_about_peer(miss) && !wants_another_peer(miss);
        let step = resolve_miss(flow_side, ranked, miss);
        if !made_up_for && !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps
}

const fn wants_another_peer(miss: &Miss) -> bool {
    matches!(
        miss,
        Miss::NotAWorkload { .. }
            | Miss::Namespace { .. }
            | Miss::AService { .. }
            | Miss::OutsideCidr { .. }
            | Miss::Unnamed { .. }
            | Miss::Entity { .. }
    )
}

const fn is_about_peer(miss: &Miss) -> bool {
    matches!(
        miss,
        Miss::Label { .. } | Miss::NamespaceLabel { .. } | Miss::ServiceAccount { .. }
    ) || wants_another_peer(miss)
}

/// How to resolve one miss.
fn resolve_miss(flow_side: &FlowSide<'_>, ranked: &RankedRule<'_>, miss: &Miss) -> String {
    let title = ranked.title(flow_side.direction);
    let key = snippet::peers_key(flow_side.direction);
    match miss {
        Miss::Label {
            who, key, remedy, ..
        } => relabel(who, key, remedy.as_deref()),
        Miss::NamespaceLabel {
            namespace,
            key,
            remedy,
            ..
        } => relabel(&format!("namespace {namespace}"), key, remedy.as_deref()),
        Miss::ServiceAccount { who, wanted, .. } => {
            format!("run {who} as service account {wanted}")
        }
        Miss::InExcept { cidr, except, .. } => {
            format!("remove {except} from the except list of {cidr} in {title}")
        }
        Miss::UnknownPeer
        | Miss::NotAWorkload { .. }
        | Miss::Namespace { .. }
        | Miss::AService { .. }
        | Miss::OutsideCidr { .. }
        | Miss::Unnamed { .. }
        | Miss::Entity { .. } => {
            let peer = snippet::peer(flow_side, is_of_namespace(ranked, flow_side));
            format!("add {peer} to {key} of {title}")
        }
        Miss::Tunnel { actual } if needs_a_rule(ranked, miss) => {
            format!("add a rule with the peers of {title} that names {actual} alone")
        }
        Miss::Protocol { actual, .. }
        | Miss::Port { actual, .. }
        | Miss::Undeclared { actual, .. }
        | Miss::Tunnel { actual }
        | Miss::Elsewhere { actual, .. } => format!("add port {actual} to {title}"),
        Miss::NotYetValid { not_before } => {
            format!("move not-before of {title} from {not_before} to now or earlier")
        }
        Miss::Lapsed { expires } => format!("move expires of {title} from {expires} to later"),
    }
}

fn is_of_namespace(ranked: &RankedRule<'_>, flow_side: &FlowSide<'_>) -> bool {
    ranked.policy.id().namespace.as_ref() == Some(&flow_side.subject.id.namespace)
}

fn relabel(who: &str, key: &str, remedy: Option<&str>) -> String {
    match remedy {
        Some(label) => format!("label {who} {label}"),
        None => format!("remove label {key} of {who}"),
    }
}
