//! Why a flow is allowed or denied, as a person would find out: policy by policy, rule by rule.
//!
//! Invariants: works on the model alone and compiles nothing, so it costs one walk over the
//! policies' subjects; says the same verdict and names the same rule as the compiled rows; a rule
//! said not to match does not match. Modes are for the caller to add.

mod advice;
mod flow_side;
mod miss;
mod port;
mod render;
mod report;
mod rfc3339;
mod rule_order;
mod snippet;

#[cfg(test)]
mod tests;

use ringfence_common::mode::{Direction, Verdict};

use super::{
    evaluate::{Query, QueryError},
    flow::{Flow, Party},
    table::Stage,
};
use crate::model::{Inventory, PolicySet, WallTime};
use flow_side::{FlowSide, PartyKind, port_text};
pub use miss::Miss;
pub use render::render;
pub use report::{
    Advice, Decider, Explanation, Live, Side, Speaks, Standing, Tried, Way, Who, WhoKind,
};
use rule_order::{Asked, Hearing, Imagined, Outcome, tier_text};

/// How many rules that do not match, and how many policies, are listed unless all are.
pub const NEAREST: usize = 10;

/// Explains one flow; `all` lists every rule that was tried, not only the nearest.
///
/// # Errors
/// When the query names what does not exist.
pub fn explain(
    inventory: &Inventory,
    policies: &PolicySet,
    now: WallTime,
    query: &Query,
    all: bool,
) -> Result<Explanation, QueryError> {
    let flow = Flow::of(query, inventory)?;
    let case = Case {
        inventory,
        policies,
        now,
        flow: &flow,
        all,
    };
    let egress = case.side(&flow.from, &flow.to, Direction::Egress);
    let ingress = case.side(&flow.to, &flow.from, Direction::Ingress);
    Ok(Explanation {
        from: who(&flow.from, inventory),
        to: who(&flow.to, inventory),
        port: port_text(&flow),
        at: rfc3339::text(now),
        verdict: egress.verdict.max(ingress.verdict),
        egress,
        ingress,
    })
}

fn who(party: &Party<'_>, inventory: &Inventory) -> Who {
    let (name, kind) = match PartyKind::of(party, inventory) {
        PartyKind::Workload(workload) => (workload.id.to_string(), WhoKind::Workload),
        PartyKind::Host(name) => (name.to_string(), WhoKind::Host),
        PartyKind::RemoteNode(name) => (name.to_string(), WhoKind::RemoteNode),
        PartyKind::World => ("world".to_owned(), WhoKind::World),
    };
    let address = party.address.to_string();
    Who {
        name,
        address,
        kind,
    }
}

struct Case<'a> {
    inventory: &'a Inventory,
    policies: &'a PolicySet,
    now: WallTime,
    flow: &'a Flow<'a>,
    all: bool,
}

impl<'a> Case<'a> {
    fn side(&self, own: &Party<'a>, other: &Party<'a>, direction: Direction) -> Side {
        if self.flow.is_to_itself() {
            return reserved(direction, "own-address");
        }
        let Some(subject) = own.workload else {
            return reserved(direction, "not-a-workload");
        };
        let stands = PartyKind::of(other, self.inventory);
        if direction == Direction::Ingress && matches!(stands, PartyKind::Host(_)) {
            return reserved(direction, "host-ingress");
        }
        let scene = FlowSide {
            inventory: self.inventory,
            now: self.now,
            direction,
            subject,
            other: stands,
            address: other.address,
            flow: self.flow,
        };
        self.heard(&Hearing::of(scene, self.policies))
    }

    fn heard(&self, hearing: &Hearing<'_>) -> Side {
        let direction = hearing.scene.direction;
        let (outcome, standings) = hearing.decide(&Imagined::default());
        let decider = match outcome {
            Outcome::Rule(place, _) => hearing.at(place),
            _ => None,
        };
        let unasked = |standing: &&Standing| **standing == Standing::Unasked;
        let (tried, left_out) = self.tried(hearing, &standings);
        let speaks = hearing.speakers.iter().map(|speaker| Speaks {
            policy: speaker.policy.id().to_string(),
            tier: tier_text(speaker.stage),
            isolates: speaker.stage == Stage::Namespace,
            asked: !(hearing.isolated && matches!(speaker.stage, Stage::Baseline(_))),
            place: speaker.policy.origin.to_string(),
        });
        let listed = if self.all { usize::MAX } else { NEAREST };
        Side {
            direction,
            verdict: outcome.verdict(),
            rule: match (outcome, decider) {
                (Outcome::DefaultDeny, _) => "default-deny".to_owned(),
                (Outcome::DefaultAllow, _) => "default-allow".to_owned(),
                (Outcome::RawProtocol, _) => "raw-protocol".to_owned(),
                (Outcome::Rule(..), rule) => {
                    rule.map(|rule| rule.name(direction)).unwrap_or_default()
                }
            },
            policy: decider.map(|rule| rule.policy.id().to_string()),
            decider: decider.map(decider_view),
            policies: speaks.take(listed).collect(),
            policies_left_out: hearing.speakers.len().saturating_sub(listed),
            tried,
            left_out,
            unasked: standings.iter().filter(unasked).count(),
            advice: advice::advice(hearing, outcome),
            live: None,
        }
    }

    /// The rules that were asked, and how many that missed are not listed.
    fn tried(&self, hearing: &Hearing<'_>, standings: &[Standing]) -> (Vec<Tried>, usize) {
        let mut missed: Vec<&Asked<'_>> = hearing
            .asked
            .iter()
            .filter(|asked| standings.get(asked.place) == Some(&Standing::Missed))
            .collect();
        missed.sort_by_key(|asked| (advice::distance(asked), asked.place));
        let listed = if self.all { usize::MAX } else { NEAREST };
        let left_out: Vec<usize> = missed
            .iter()
            .skip(listed)
            .map(|asked| asked.place)
            .collect();
        let direction = hearing.scene.direction;
        let tried = hearing.asked.iter().zip(standings);
        let tried = tried
            .filter(|(asked, standing)| {
                **standing != Standing::Unasked && !left_out.contains(&asked.place)
            })
            .map(|(asked, standing)| Tried {
                tier: tier_text(asked.stage),
                policy: asked.policy.id().to_string(),
                rule: asked.name(direction),
                name: asked.rule.name.clone(),
                place: asked.origin(),
                action: asked.rule.action.to_string(),
                standing: *standing,
                misses: asked.misses.clone(),
            });
        (tried.collect(), left_out.len())
    }
}

fn decider_view(asked: &Asked<'_>) -> Decider {
    let about = &asked.policy.about;
    Decider {
        tier: tier_text(asked.stage),
        action: asked.rule.action.to_string(),
        name: asked.rule.name.clone(),
        place: asked.origin(),
        owner: about.owner.clone(),
        justification: about.justification.clone(),
        ticket: about.ticket.clone(),
        review_by: about.review_by.clone(),
        expires: asked.rule.window.expires.map(rfc3339::text),
    }
}

/// What is decided before policies are asked.
fn reserved(direction: Direction, rule: &str) -> Side {
    Side {
        direction,
        verdict: Verdict::Allow,
        rule: rule.to_owned(),
        policy: None,
        decider: None,
        policies: Vec::new(),
        policies_left_out: 0,
        tried: Vec::new(),
        left_out: 0,
        unasked: 0,
        advice: Advice::default(),
        live: None,
    }
}
