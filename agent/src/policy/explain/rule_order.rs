//! The rules of one direction in the order in which they are asked, and who decides among them.
//!
//! Invariants: says what the compiled rows say, from the model alone. Admin and Baseline: policies
//! of one priority speak together, each with its first matching rule, and the strongest action
//! wins; the namespace tier: every matching rule speaks; Baseline is not asked after an isolating
//! policy.

use std::collections::BTreeSet;

use ringfence_common::mode::{Direction, Verdict};

use super::{
    super::table::Stage,
    flow_side::{FlowSide, is_raw},
    miss::{Miss, misses},
    report::Standing,
};
use crate::model::{Policy, PolicySet, Rule, RuleAction};

/// A policy that selects the subject and speaks about the direction.
pub(super) struct Speaker<'a> {
    pub(super) policy: &'a Policy,
    pub(super) stage: Stage,
}

/// A rule, and what of it does not match.
pub(super) struct Asked<'a> {
    /// Its place in the order.
    pub(super) place: usize,
    pub(super) policy: &'a Policy,
    /// The policy's place among the speakers.
    speaker: usize,
    pub(super) stage: Stage,
    pub(super) index: usize,
    pub(super) rule: &'a Rule,
    pub(super) misses: Vec<Miss>,
}

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The rule at this place of the order.
    Rule(usize, Verdict),
    DefaultDeny,
    DefaultAllow,
    RawProtocol,
}

impl Outcome {
    pub(super) const fn verdict(self) -> Verdict {
        match self {
            Self::Rule(_, verdict) => verdict,
            Self::DefaultAllow => Verdict::Allow,
            Self::DefaultDeny | Self::RawProtocol => Verdict::Deny,
        }
    }
}

/// A change to imagine: rules that are gone, and one that matches.
#[derive(Default)]
pub(super) struct Imagined {
    pub(super) gone: BTreeSet<usize>,
    pub(super) mended: Option<usize>,
}

/// Everything that is asked about one direction of a flow.
pub(super) struct Hearing<'a> {
    pub(super) scene: FlowSide<'a>,
    pub(super) speakers: Vec<Speaker<'a>>,
    pub(super) asked: Vec<Asked<'a>>,
    pub(super) isolated: bool,
}

impl<'a> Hearing<'a> {
    pub(super) fn of(scene: FlowSide<'a>, policies: &'a PolicySet) -> Self {
        let mut speakers: Vec<Speaker<'a>> = policies
            .iter()
            .filter(|policy| policy.rules(scene.direction).is_some())
            .filter(|policy| scene.inventory.is_subject(policy, scene.subject))
            .map(|policy| Speaker {
                policy,
                stage: Stage::of(policy),
            })
            .collect();
        let isolated = speakers.iter().any(|s| s.stage == Stage::Namespace);
        // Stable: within a stage, the order of the policies' names stays.
        speakers.sort_by_key(|speaker| speaker.stage);
        let mut asked = Vec::new();
        for (number, speaker) in speakers.iter().enumerate() {
            if isolated && matches!(speaker.stage, Stage::Baseline(_)) {
                continue;
            }
            let rules = speaker.policy.rules(scene.direction).unwrap_or_default();
            for (index, rule) in rules.iter().enumerate() {
                asked.push(Asked {
                    place: asked.len(),
                    policy: speaker.policy,
                    speaker: number,
                    stage: speaker.stage,
                    index,
                    rule,
                    misses: misses(&scene, rule),
                });
            }
        }
        Self {
            scene,
            speakers,
            asked,
            isolated,
        }
    }

    /// Who decides, and what becomes of each rule.
    pub(super) fn decide(&self, imagined: &Imagined) -> (Outcome, Vec<Standing>) {
        let mut standings = vec![Standing::Unasked; self.asked.len()];
        let mut passed: Option<Stage> = None;
        for stage in self.asked.chunk_by(|one, other| one.stage == other.stage) {
            let here = stage.first().map(|asked| asked.stage);
            if passed
                .zip(here)
                .is_some_and(|(one, other)| one.same_tier(other))
            {
                continue;
            }
            let Some(strongest) = strongest(stage, imagined, &mut standings) else {
                continue;
            };
            let standing = match strongest.rule.action.verdict() {
                Some(_) => Standing::Decides,
                None => Standing::Passes,
            };
            note(&mut standings, strongest, standing);
            match strongest.rule.action.verdict() {
                Some(verdict) => return (Outcome::Rule(strongest.place, verdict), standings),
                None => passed = here,
            }
        }
        (self.by_default(), standings)
    }

    fn by_default(&self) -> Outcome {
        if self.isolated {
            Outcome::DefaultDeny
        } else if self.scene.direction == Direction::Egress && is_raw(self.scene.flow.protocol) {
            Outcome::RawProtocol
        } else {
            Outcome::DefaultAllow
        }
    }

    /// The rule at a place of the order.
    pub(super) fn at(&self, place: usize) -> Option<&Asked<'a>> {
        self.asked.get(place)
    }
}

/// Of the rules of one stage that match, the first of the strongest action.
fn strongest<'s, 'a>(
    stage: &'s [Asked<'a>],
    imagined: &Imagined,
    standings: &mut [Standing],
) -> Option<&'s Asked<'a>> {
    let mut strongest: Option<&Asked<'a>> = None;
    let mut spoken = None;
    for asked in stage {
        let matches = (asked.misses.is_empty() || imagined.mended == Some(asked.place))
            && !imagined.gone.contains(&asked.place);
        if !matches {
            note(standings, asked, Standing::Missed);
        } else if asked.stage != Stage::Namespace && spoken == Some(asked.speaker) {
            note(standings, asked, Standing::Spoken);
        } else {
            spoken = Some(asked.speaker);
            note(standings, asked, Standing::Outweighed);
            if strongest.is_none_or(|best| asked.rule.action > best.rule.action) {
                strongest = Some(asked);
            }
        }
    }
    strongest
}

fn note(standings: &mut [Standing], asked: &Asked<'_>, standing: Standing) {
    if let Some(place) = standings.get_mut(asked.place) {
        *place = standing;
    }
}

impl Asked<'_> {
    /// `ingress[0]`.
    pub(super) fn name(&self, direction: Direction) -> String {
        format!("{}[{}]", direction.name(), self.index)
    }

    /// `file:line`.
    pub(super) fn origin(&self) -> String {
        format!("{}:{}", self.policy.origin.file, self.rule.line)
    }

    /// `ingress[0] of shop/orders (file:line)`.
    pub(super) fn title(&self, direction: Direction) -> String {
        format!(
            "{} of {} ({})",
            self.name(direction),
            self.policy.id(),
            self.origin()
        )
    }

    pub(super) fn allows(&self) -> bool {
        self.rule.action == RuleAction::Allow
    }
}

/// `admin 10`, `namespace` or `baseline 5`.
pub(super) fn tier_text(stage: Stage) -> String {
    match stage {
        Stage::Admin(priority) => format!("admin {priority}"),
        Stage::Namespace => "namespace".to_owned(),
        Stage::Baseline(priority) => format!("baseline {priority}"),
    }
}
