//! The smallest change that would give the opposite verdict at one end.
//!
//! Invariants: a way that changes rules was tried on the rules at hand and gives that verdict at
//! this end; tiers are respected, so that nobody is sent to write a rule that is never asked. The
//! other end has to agree by itself. Relabelling may also change which policies select a workload;
//! that is said, not computed.

use ringfence_common::mode::{Direction, Verdict};

use super::{
    super::table::Stage,
    flow_side::FlowSide,
    miss::Miss,
    report::{Advice, Way},
    rule_order::{Asked, Hearing, Imagined, Outcome},
    snippet,
};
use crate::model::RuleAction;

/// More rules than these to take away are no small change.
const MOST_REMOVALS: usize = 5;

/// How to get the opposite verdict.
pub(super) fn advice(hearing: &Hearing<'_>, outcome: Outcome) -> Advice {
    match outcome.verdict() {
        Verdict::Deny => to_allow(hearing, outcome),
        Verdict::Allow => to_deny(hearing, outcome),
    }
}

/// How far a rule is from matching: first by conditions, then by how hard they are to change.
pub(super) fn distance(asked: &Asked<'_>) -> (usize, usize) {
    let hardness = asked.misses.iter().map(|miss| match miss {
        Miss::Nobody => 100,
        Miss::Port { .. }
        | Miss::Protocol { .. }
        | Miss::Undeclared { .. }
        | Miss::Elsewhere { .. } => 1,
        Miss::NotBegun { .. } | Miss::Lapsed { .. } => 2,
        _ => 3,
    });
    (asked.misses.len(), hardness.sum())
}

fn to_allow(hearing: &Hearing<'_>, outcome: Outcome) -> Advice {
    let mut advice = Advice::default();
    let stage = match outcome {
        Outcome::Rule(place, _) => hearing.at(place).map(|asked| asked.stage),
        _ => None,
    };
    match stage {
        Some(Stage::Admin(priority)) => {
            advice.notes.push(format!(
                "the admin tier is asked first: no rule of a namespace helps, only one of the \
                 admin tier{}",
                before(priority)
            ));
            advice.ways.extend(without(hearing, Verdict::Allow));
        }
        Some(Stage::Namespace) => {
            let note = "deny beats allow in the namespace tier: a further allow rule does not help";
            advice.notes.push(note.to_owned());
            advice.ways.extend(without(hearing, Verdict::Allow));
        }
        Some(Stage::Baseline(_)) => {
            advice.ways.push(add(hearing, RuleAction::Allow));
            advice.ways.extend(without(hearing, Verdict::Allow));
        }
        None if outcome == Outcome::RawProtocol => {
            let note = "tunnels and raw protocols need an explicit rule on the way out";
            advice.notes.push(note.to_owned());
            advice.ways.push(add(hearing, RuleAction::Allow));
        }
        None => {
            advice.ways.extend(nearest(hearing));
            advice.ways.push(add(hearing, RuleAction::Allow));
        }
    }
    advice
}

fn to_deny(hearing: &Hearing<'_>, outcome: Outcome) -> Advice {
    let mut advice = Advice::default();
    let decider = match outcome {
        Outcome::Rule(place, _) => hearing.at(place),
        _ => None,
    };
    advice.ways.extend(without(hearing, Verdict::Deny));
    match decider.map(|asked| asked.stage) {
        Some(Stage::Admin(priority)) => {
            advice.notes.push(
                "the admin tier is asked first: a deny rule of a namespace is not asked".to_owned(),
            );
            advice.ways.push(Way {
                steps: vec![format!(
                    "add a deny rule to an admin policy of priority {priority} or lower:"
                )],
                snippet: snippet::rule(&hearing.scene, RuleAction::Deny, false),
            });
        }
        _ => advice.ways.push(add(hearing, RuleAction::Deny)),
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

/// A new rule in the namespace tier, where every rule speaks.
fn add(hearing: &Hearing<'_>, action: RuleAction) -> Way {
    let scene = &hearing.scene;
    let (direction, id) = (scene.direction.name(), &scene.subject.id);
    let kind = if action == RuleAction::Allow {
        format!("{direction} rule")
    } else {
        format!("{direction} {action} rule")
    };
    let mut steps = vec![format!(
        "add an {kind} to a policy of namespace {} that selects {id}:",
        id.namespace
    )];
    if !hearing.isolated {
        steps.push(format!(
            "(it isolates: whatever else {id} {} needs a rule, too)",
            if scene.direction == Direction::Egress {
                "sends"
            } else {
                "receives"
            }
        ));
    }
    Way {
        steps,
        snippet: snippet::rule(scene, action, true),
    }
}

/// Rules to take away until the verdict is the wanted one, with the rule to mend if nothing else
/// is in the way then.
fn without(hearing: &Hearing<'_>, wanted: Verdict) -> Option<Way> {
    let mut imagined = Imagined::default();
    let mut steps = Vec::new();
    loop {
        match hearing.decide(&imagined).0 {
            outcome if outcome.verdict() == wanted => break,
            Outcome::Rule(place, _) if imagined.gone.len() < MOST_REMOVALS => {
                let asked = hearing.at(place)?;
                steps.push(format!(
                    "remove or narrow {}",
                    asked.title(hearing.scene.direction)
                ));
                if wanted == Verdict::Deny {
                    steps.extend(last_of_its_kind(asked, hearing.scene.direction));
                }
                imagined.gone.insert(place);
            }
            Outcome::DefaultDeny => {
                let (_, mend) = mendable(hearing, &mut imagined)?;
                steps.extend(mend);
                break;
            }
            _ => return None,
        }
    }
    (!steps.is_empty()).then_some(Way {
        steps,
        snippet: Vec::new(),
    })
}

/// What to keep when a policy loses the rule that makes it isolate.
fn last_of_its_kind(asked: &Asked<'_>, direction: Direction) -> Option<String> {
    let rules = asked.policy.rules(direction)?;
    let isolates = asked.stage == Stage::Namespace && rules.len() == 1;
    isolates.then(|| {
        format!(
            "(keep {} = [] there, or the policy no longer isolates)",
            direction.name()
        )
    })
}

/// The allow rule that is nearest to matching, and what to change.
fn nearest(hearing: &Hearing<'_>) -> Option<Way> {
    let (asked, steps) = mendable(hearing, &mut Imagined::default())?;
    let relabels = asked.misses.iter().any(|miss| {
        matches!(
            miss,
            Miss::Label { .. } | Miss::NamespaceLabel { .. } | Miss::ServiceAccount { .. }
        )
    });
    let mut steps = steps;
    if relabels {
        steps.push("(labels also choose which policies select a workload)".to_owned());
    }
    Some(Way {
        steps,
        snippet: Vec::new(),
    })
}

fn mendable<'h, 'a>(
    hearing: &'h Hearing<'a>,
    imagined: &mut Imagined,
) -> Option<(&'h Asked<'a>, Vec<String>)> {
    let mut candidates: Vec<&Asked<'a>> = hearing
        .asked
        .iter()
        .filter(|asked| asked.allows() && !asked.misses.is_empty())
        .filter(|asked| !asked.misses.contains(&Miss::Nobody))
        .collect();
    candidates.sort_by_key(|asked| (distance(asked), asked.place));
    for asked in candidates {
        imagined.mended = Some(asked.place);
        if hearing.decide(imagined).0.verdict() == Verdict::Allow {
            return Some((asked, mend_all(&hearing.scene, asked)));
        }
    }
    imagined.mended = None;
    None
}

/// What to do about every miss of a rule; a further peer makes up for all of the present one.
fn mend_all(scene: &FlowSide<'_>, asked: &Asked<'_>) -> Vec<String> {
    let foreign = asked.misses.iter().any(wants_another_peer);
    let mut steps: Vec<String> = Vec::new();
    for miss in &asked.misses {
        let made_up_for = foreign && is_about_peer(miss) && !wants_another_peer(miss);
        let step = mend(scene, asked, miss);
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
            | Miss::OutsideCidr { .. }
            | Miss::Entity { .. }
    )
}

const fn is_about_peer(miss: &Miss) -> bool {
    matches!(
        miss,
        Miss::Label { .. } | Miss::NamespaceLabel { .. } | Miss::ServiceAccount { .. }
    ) || wants_another_peer(miss)
}

/// What to do about one miss.
fn mend(scene: &FlowSide<'_>, asked: &Asked<'_>, miss: &Miss) -> String {
    let title = asked.title(scene.direction);
    let key = snippet::peers_key(scene.direction);
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
            format!("take {except} out of the except of {cidr} in {title}")
        }
        Miss::Nobody
        | Miss::NotAWorkload { .. }
        | Miss::Namespace { .. }
        | Miss::OutsideCidr { .. }
        | Miss::Entity { .. } => {
            let peer = snippet::peer(scene, is_of_namespace(asked, scene));
            format!("add {peer} to {key} of {title}")
        }
        Miss::Protocol { actual, .. }
        | Miss::Port { actual, .. }
        | Miss::Undeclared { actual, .. }
        | Miss::Elsewhere { actual, .. } => format!("add port {actual} to {title}"),
        Miss::NotBegun { not_before } => {
            format!("move not-before of {title} from {not_before} to now or earlier")
        }
        Miss::Lapsed { expires } => format!("move expires of {title} from {expires} to later"),
    }
}

fn is_of_namespace(asked: &Asked<'_>, scene: &FlowSide<'_>) -> bool {
    asked.policy.id().namespace.as_ref() == Some(&scene.subject.id.namespace)
}

fn relabel(who: &str, key: &str, remedy: Option<&str>) -> String {
    match remedy {
        Some(label) => format!("label {who} {label}"),
        None => format!("remove label {key} of {who}"),
    }
}
