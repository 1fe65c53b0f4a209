//! Explains why a flow is allowed or denied: policy by policy, rule by rule.
//!
//! Invariants: works on the model and compiles nothing, so it costs one walk over the policies'
//! subjects. It reports the same verdict and rule as the compiled rows. A rule reported as not
//! matching does not match. The caller adds modes.

mod advice;
mod flow_side;
mod miss;
mod port;
mod render;
mod report;
mod rfc3339;
mod rule_order;
mod service;
mod snippet;

#[cfg(test)]
mod tests;

use ringfence_common::{
    drop_reason::DropReason,
    mode::{Direction, Verdict},
};

use super::{
    evaluate::{Query, QueryError},
    flow::{Flow, Party},
    table::Stage,
};
use crate::model::{Inventory, PolicySet, WallTime, special_range_name};
use flow_side::{FlowSide, PartyKind, port_text};
pub use miss::Miss;
pub use render::render;
pub use report::{
    Advice, Alternative, BackendStanding, Backends, Decider, Explanation, Live, PolicyStanding,
    RuleStanding, Side, Standing, Who, WhoKind,
};
use rule_order::{Hypothesis, Outcome, RankedRule, RuleOrder, tier_text};

/// How many rules that do not match, and how many policies, are listed by default.
pub const NEAREST: usize = 10;

/// Explains one flow; `all` lists every rule instead of the nearest ones.
///
/// # Errors
/// If the query names something that does not exist.
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
    if let PartyKind::Service(service) = PartyKind::of(&flow.to, inventory)
        && !flow.is_to_itself()
    {
        return Ok(case.of_service(service));
    }
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
        service: None,
    })
}

fn who(party: &Party<'_>, inventory: &Inventory) -> Who {
    let (name, kind) = match PartyKind::of(party, inventory) {
        PartyKind::Workload(workload) => (workload.id.to_string(), WhoKind::Workload),
        PartyKind::Host(name) => (name.to_string(), WhoKind::Host),
        PartyKind::RemoteNode(name) => (name.to_string(), WhoKind::RemoteNode),
        PartyKind::World => ("world".to_owned(), WhoKind::World),
        PartyKind::Special(range) => {
            let name = special_range_name(&range).to_owned();
            (name, WhoKind::Special)
        }
        PartyKind::Cluster => ("cluster".to_owned(), WhoKind::Cluster),
        PartyKind::Service(service) => (service.id.to_string(), WhoKind::Service),
        PartyKind::Unknown => ("unknown".to_owned(), WhoKind::Unknown),
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
            return reserved(direction, Verdict::Allow, "own-address");
        }
        self.side_by_policy(own, other, direction)
    }

    /// A side of a flow that may be one of a workload to itself, through a Service.
    fn side_by_policy(&self, own: &Party<'a>, other: &Party<'a>, direction: Direction) -> Side {
        let Some(subject) = own.workload else {
            return reserved(direction, Verdict::Allow, "not-a-workload");
        };
        let stands = PartyKind::of(other, self.inventory);
        if direction == Direction::Ingress && matches!(stands, PartyKind::Host(_)) {
            return reserved(direction, Verdict::Allow, "host-ingress");
        }
        if matches!(stands, PartyKind::Unknown) {
            return reserved(direction, Verdict::Deny, DropReason::UnknownPeer.name());
        }
        let flow_side = FlowSide {
            inventory: self.inventory,
            now: self.now,
            direction,
            subject,
            other: stands,
            address: other.address,
            flow: self.flow,
        };
        self.policies(&RuleOrder::of(flow_side, self.policies))
    }

    fn policies(&self, order: &RuleOrder<'_>) -> Side {
        let direction = order.flow_side.direction;
        let (outcome, standings) = order.decide(&Hypothesis::default());
        let decider = match outcome {
            Outcome::Rule(place, _) => order.at(place),
            _ => None,
        };
        let not_evaluated = |standing: &&Standing| **standing == Standing::NotEvaluated;
        let (rules, rules_left_out) = self.rules(order, &standings);
        let applies = order
            .policies_in_order
            .iter()
            .map(|applicable| PolicyStanding {
                policy: applicable.policy.id().to_string(),
                tier: tier_text(applicable.stage),
                isolates: applicable.stage == Stage::Namespace,
                evaluated: !(order.isolated && matches!(applicable.stage, Stage::Baseline(_))),
                location: applicable.policy.origin.to_string(),
            });
        let listed = if self.all { usize::MAX } else { NEAREST };
        Side {
            direction,
            verdict: outcome.verdict(),
            rule: match (outcome, decider) {
                (Outcome::DefaultDeny, _) => "default-deny".to_owned(),
                (Outcome::DefaultAllow, _) => "default-allow".to_owned(),
                (Outcome::RawProtocol, _) => "raw-protocol".to_owned(),
                (Outcome::NodeTunnel, _) => "node-tunnel".to_owned(),
                (Outcome::Rule(..), rule) => {
                    rule.map(|rule| rule.name(direction)).unwrap_or_default()
                }
            },
            policy: decider.map(|rule| rule.policy.id().to_string()),
            decider: decider.map(decider_view),
            policies: applies.take(listed).collect(),
            policies_left_out: order.policies_in_order.len().saturating_sub(listed),
            rules,
            rules_left_out,
            not_evaluated: standings.iter().filter(not_evaluated).count(),
            advice: advice::advice(order, outcome),
            live: None,
        }
    }

    /// The evaluated rules, and the number of non-matching rules that are not listed.
    fn rules(&self, order: &RuleOrder<'_>, standings: &[Standing]) -> (Vec<RuleStanding>, usize) {
        let mut missed: Vec<&RankedRule<'_>> = order
            .rules
            .iter()
            .filter(|ranked| standings.get(ranked.rank) == Some(&Standing::NoMatch))
            .collect();
        missed.sort_by_key(|ranked| (advice::distance(ranked), ranked.rank));
        let listed = if self.all { usize::MAX } else { NEAREST };
        let rules_left_out: Vec<usize> = missed
            .iter()
            .skip(listed)
            .map(|ranked| ranked.rank)
            .collect();
        let direction = order.flow_side.direction;
        let rules = order.rules.iter().zip(standings);
        let rules = rules
            .filter(|(ranked, standing)| {
                **standing != Standing::NotEvaluated && !rules_left_out.contains(&ranked.rank)
            })
            .map(|(ranked, standing)| RuleStanding {
                tier: tier_text(ranked.stage),
                policy: ranked.policy.id().to_string(),
                rule: ranked.name(direction),
                name: ranked.rule.name.clone(),
                location: ranked.origin(),
                action: ranked.rule.action.to_string(),
                standing: *standing,
                misses: ranked.misses.clone(),
            });
        (rules.collect(), rules_left_out.len())
    }
}

fn decider_view(ranked: &RankedRule<'_>) -> Decider {
    let about = &ranked.policy.about;
    Decider {
        tier: tier_text(ranked.stage),
        action: ranked.rule.action.to_string(),
        name: ranked.rule.name.clone(),
        location: ranked.origin(),
        owner: about.owner.clone(),
        justification: about.justification.clone(),
        ticket: about.ticket.clone(),
        review_by: about.review_by.clone(),
        expires: ranked.rule.window.expires.map(rfc3339::text),
    }
}

/// Verdicts that are made before policies are evaluated.
fn reserved(direction: Direction, verdict: Verdict, rule: &str) -> Side {
    Side {
        direction,
        verdict,
        rule: rule.to_owned(),
        policy: None,
        decider: None,
        policies: Vec::new(),
        policies_left_out: 0,
        rules: Vec::new(),
        rules_left_out: 0,
        not_evaluated: 0,
        advice: Advice::default(),
        live: None,
    }
}
