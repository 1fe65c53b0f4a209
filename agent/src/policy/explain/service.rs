//! Explains a flow to a Service by its backends.
//!
//! Invariant: the verdict is that of the compiled rows: allowed if every backend that the port may lead to is, at its
//! own port. The sender's end decides about the packet to the Service, each backend's end about what arrives there.

use ringfence_common::{
    drop_reason::DropReason,
    mode::{Direction, Verdict},
};

use super::{
    BackendStanding, Backends, Case, Explanation, PartyKind, Side, port_text, reserved, rfc3339,
    who,
};
use crate::{
    model::{Service, ServicePort},
    policy::flow::{Flow, Party, Register as _},
};

/// The most backends that are listed.
const LISTED: usize = 10;

impl Case<'_> {
    pub(super) fn of_service(&self, service: &Service) -> Explanation {
        let through = self.flow.to.address;
        let port = ServicePort {
            protocol: self.flow.protocol,
            port: self.flow.port,
        };
        let found = service.through(through).find(|(it, _)| *it == port);
        let backends = found.map(|(_, backends)| backends).unwrap_or_default();
        let count = backends.len();
        let mut listed: Vec<BackendStanding> = Vec::new();
        let mut sides: Vec<(Side, Side)> = Vec::new();
        for backend in backends {
            let flow = Flow {
                to: Party {
                    address: backend.address,
                    workload: self.inventory.owner(backend.address),
                },
                port: backend.port,
                ..*self.flow
            };
            let case = Case {
                flow: &flow,
                ..*self
            };
            // What a Service stands for is not translated once more.
            let is_service = matches!(
                PartyKind::of(&flow.to, self.inventory),
                PartyKind::Service(_)
            );
            let egress = case.side_by_policy(&flow.from, &flow.to, Direction::Egress);
            let is_unknown = backend.is_unknown() || is_service;
            let egress = if is_unknown || egress.rule == DropReason::UnknownPeer.name() {
                unknown(self.side_by_policy(&flow.from, &self.flow.to, Direction::Egress))
            } else {
                egress
            };
            let ingress = case.side(&flow.to, &flow.from, Direction::Ingress);
            let (egress_by, ingress_by) = (decided_by(&egress), decided_by(&ingress));
            let known = listed.iter_mut().find(|it| {
                let same = it.egress == egress.verdict && it.ingress == ingress.verdict;
                same && it.egress_by == egress_by && it.ingress_by == ingress_by
            });
            if let Some(known) = known {
                known.alike += 1;
                continue;
            }
            listed.push(BackendStanding {
                who: who(&flow.to, self.inventory),
                port: port_text(&flow),
                egress: egress.verdict,
                egress_by,
                ingress: ingress.verdict,
                ingress_by,
                alike: 1,
            });
            sides.push((egress, ingress));
        }
        listed.truncate(LISTED);
        let (egress, ingress): (Vec<Side>, Vec<Side>) = sides.into_iter().unzip();
        let egress = self.together(egress);
        let denies = ingress.iter().position(|it| it.verdict == Verdict::Deny);
        let ingress = ingress.into_iter().nth(denies.unwrap_or(0));
        let ingress = ingress
            .unwrap_or_else(|| reserved(Direction::Ingress, Verdict::Allow, "not-a-workload"));
        Explanation {
            from: who(&self.flow.from, self.inventory),
            to: who(&self.flow.to, self.inventory),
            port: port_text(self.flow),
            at: rfc3339::text(self.now),
            verdict: egress.verdict.max(ingress.verdict),
            egress,
            ingress,
            service: Some(Backends { listed, count }),
        }
    }

    /// The sender's end by what it says of each backend.
    fn together(&self, mut sides: Vec<Side>) -> Side {
        let is_mixed = sides.windows(2).any(|pair| match pair {
            [one, other] => one.verdict != other.verdict,
            _ => false,
        });
        if is_mixed {
            return Side {
                policies: sides.swap_remove(0).policies,
                ..reserved(Direction::Egress, Verdict::Deny, "service-mixed")
            };
        }
        if !sides.is_empty() {
            return sides.swap_remove(0);
        }
        // Nothing is behind the port: only rules for every peer match.
        let (from, to) = (&self.flow.from, &self.flow.to);
        let side = self.side_by_policy(from, to, Direction::Egress);
        if side.verdict == Verdict::Deny || side.policies.is_empty() {
            return side;
        }
        Side {
            policies: side.policies,
            ..reserved(Direction::Egress, Verdict::Deny, "service-port")
        }
    }
}

/// The side of a backend of which nothing is known, by the policies that apply.
fn unknown(side: Side) -> Side {
    let is_isolated = side.policies.iter().any(|it| it.isolates);
    let rule = if is_isolated {
        "default-deny"
    } else {
        "service-port"
    };
    Side {
        policies: side.policies,
        policies_left_out: side.policies_left_out,
        ..reserved(Direction::Egress, Verdict::Deny, rule)
    }
}

/// `ingress[0] of shop/orders`, or a default's name.
fn decided_by(side: &Side) -> String {
    match &side.policy {
        Some(policy) => format!("{} of {policy}", side.rule),
        None => side.rule.clone(),
    }
}
