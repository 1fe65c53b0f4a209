use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::oracle::cases;

fn workload(id: &str) -> Claimant {
    Claimant::Workload(id.parse().unwrap())
}

fn recency(is_running: bool, created: i64, uid: &str) -> Recency {
    Recency {
        is_running,
        created,
        uid: Arc::from(uid),
        has_lapsed: false,
    }
}

fn claim(claimant: &Claimant, confirmation: Confirmation, recency: Option<Recency>) -> Claim {
    Claim {
        claimant: claimant.clone(),
        confirmation,
        recency,
    }
}

#[test]
fn the_claim_that_this_node_confirms_wins_in_any_order() {
    let node = Claimant::Node(NodeName::new("n").unwrap());
    let (a, b) = (workload("shop/a"), workload("shop/b"));
    use Confirmation::{Endpoint, Host, None as Nothing};
    for (claims, owner) in [
        ([(&a, Nothing), (&b, Nothing), (&node, Nothing)], None),
        ([(&a, Endpoint), (&b, Nothing), (&node, Nothing)], Some(&a)),
        ([(&a, Endpoint), (&b, Endpoint), (&node, Nothing)], None),
        ([(&a, Endpoint), (&b, Endpoint), (&node, Host)], Some(&node)),
    ] {
        for turn in 0..3 {
            let mut claims: Vec<_> = claims
                .iter()
                .map(|(who, of)| claim(who, *of, None))
                .collect();
            claims.rotate_left(turn);
            let dispute = Dispute::new(claims);
            assert_eq!(dispute.owner(), owner, "{dispute:?}");
            assert_eq!(dispute.claimants(), [a.clone(), b.clone(), node.clone()]);
            assert!(!dispute.is_by_recency());
        }
    }
}

#[test]
fn of_remote_claims_the_one_that_runs_and_is_newest_wins() {
    let (a, b) = (workload("shop/a"), workload("shop/b"));
    let of = |one: Option<Recency>, other: Option<Recency>| {
        let claims = [(&a, one), (&b, other)];
        let claims = claims.map(|(who, recency)| claim(who, Confirmation::None, recency));
        let dispute = Dispute::new(claims.into());
        assert_eq!(dispute.is_by_recency(), dispute.owner().is_some());
        dispute.owner().cloned()
    };
    let old = || Some(recency(true, 1, "z"));
    assert_eq!(of(old(), Some(recency(true, 2, "a"))), Some(b.clone()));
    assert_eq!(of(old(), Some(recency(false, 2, "a"))), Some(a.clone()));
    assert_eq!(of(old(), Some(recency(true, 1, "y"))), Some(a.clone()));
    // What does not say how recent it is decides nothing, and leaves nothing decided.
    assert_eq!(of(old(), None), None);
    assert_eq!(of(old(), old()), None);
}

fn any_claims() -> impl Strategy<Value = Vec<Claim>> {
    use Confirmation::{Endpoint, Host, None as Nothing};
    let confirmation = prop_oneof![6 => Just(Nothing), 1 => Just(Endpoint), 1 => Just(Host)];
    let about = prop_oneof![
        6 => (any::<bool>(), 0..3_i64).prop_map(Some),
        1 => Just(None),
    ];
    vec((confirmation, about), 2..6).prop_map(|claims| {
        let claims = claims.into_iter().enumerate();
        let claims = claims.map(|(number, (confirmation, about))| {
            let about = about.map(|(runs, created)| recency(runs, created, &number.to_string()));
            claim(&workload(&format!("shop/w{number}")), confirmation, about)
        });
        claims.collect()
    })
}

#[test]
fn the_order_of_claims_does_not_matter_and_no_local_claim_yields() {
    proptest!(cases(500), |(claims in any_claims())| {
        let expected = Dispute::new(claims.clone());
        for turn in 0..claims.len() {
            let mut turned = claims.clone();
            turned.rotate_left(turn);
            turned.swap(0, claims.len() - 1);
            prop_assert_eq!(&Dispute::new(turned), &expected);
        }
        let of = |who: &Claimant| claims.iter().find(|claim| claim.claimant == *who);
        if let Some(owner) = expected.owner().and_then(of) {
            let most = claims.iter().map(|claim| claim.confirmation).max();
            prop_assert_eq!(Some(owner.confirmation), most);
        }
    });
}
