//! What counts, and who has to yield.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::model::DEFAULT_BUDGET;
use crate::source::policy_toml;

fn policies(text: &str) -> PolicySet {
    PolicySet::build(policy_toml::parse("p.toml", text).unwrap().policies).unwrap()
}

/// The policies within budget, and those that are not, if these are in force before.
fn within_budget(
    proposed: &PolicySet,
    held: &PolicySet,
    budget: Needs,
) -> (PolicySet, Vec<OverBudget>) {
    // Held may be more than the budget is now.
    let mut store = PolicyStore::new(DEFAULT_BUDGET);
    let present = |set: &PolicySet| -> Vec<_> {
        let policies = set.policies.iter();
        let present = policies.map(|(id, policy)| (id.clone(), Some(Arc::clone(policy))));
        present.collect()
    };
    store.apply(present(held));
    assert_eq!(**store.in_force(), *held);
    store.budget = budget;
    let held = held.policies.keys();
    let gone = held.filter(|id| !proposed.policies.contains_key(*id));
    let gone = gone.map(|id| (id.clone(), None));
    store.apply(present(proposed).into_iter().chain(gone).collect());
    let over = store.over_budget().cloned().collect();
    (PolicySet::clone(store.in_force()), over)
}

/// A policy with so many rules, of one peer each.
fn policy(namespace: &str, name: &str, rules: usize) -> String {
    let head = format!(
        "[[policy]]\nname = \"{name}\"\nnamespace = \"{namespace}\"\nsubject = \"app=a\"\n"
    );
    head + &"[[policy.ingress]]\nfrom = [{ pods = \"app=b\" }]\n".repeat(rules)
}

const TEN: Needs = Needs {
    rules: 10,
    ..DEFAULT_BUDGET
};

fn names(set: &PolicySet) -> Vec<String> {
    set.iter()
        .map(|policy| {
            let rules = policy.ingress.as_ref().map_or(0, Vec::len);
            format!("{} {rules}", policy.id())
        })
        .collect()
}

fn refused(over: &[OverBudget]) -> Vec<String> {
    over.iter().map(|it| it.policy.id().to_string()).collect()
}

#[test]
fn needs_are_those_of_the_policy_as_written() {
    let of = |rules: &str| {
        let head = "[[policy]]\nname = \"a\"\nnamespace = \"shop\"\nsubject = \"app=a\"\n";
        let set = policies(&format!("{head}{rules}"));
        let needs = Needs::of(set.iter().next().unwrap());
        (needs.rules, needs.selectors, needs.cidrs, needs.rows)
    };
    assert_eq!(of("ingress = []\n"), (0, 1, 0, 0));
    let any = "[[policy.ingress]]\n";
    assert_eq!(of(any), (1, 1, 0, 1), "every peer and port");
    let peers = "[[policy.egress]]\nto = [{ pods = \"a=b\" }, { namespaces = \"c=d\", pods = \"e\" }, \
                 { cidr = \"10.0.0.0/8\", except = [\"10.1.0.0/16\", \"10.2.0.0/16\"] }, \
                 { entity = \"host\" }]\n";
    assert_eq!(of(peers), (1, 4, 3, 6));
    let ports = "ports = [\"tcp\", \"udp/53\", \"tcp/1-65535\", \"tcp/1024-2047\", \"http\"]\n";
    assert_eq!(
        of(&format!("{peers}{ports}")),
        (1, 4, 3, 6 * (1 + 1 + 16 + 1 + 1))
    );
}

#[test]
fn of_new_policies_the_first_by_name_are_within_budget_and_other_namespaces_are_not_concerned() {
    let text = policy("shop", "a", 6) + &policy("shop", "b", 6) + &policy("shop", "c", 4);
    let proposed = policies(&(text + &policy("lab", "z", 10)));
    let (within, over) = within_budget(&proposed, &PolicySet::default(), TEN);
    assert_eq!(names(&within), ["lab/z 10", "shop/a 6", "shop/c 4"]);
    assert_eq!(refused(&over), ["shop/b"]);
    assert_eq!(
        over[0].to_string(),
        "policy shop/b exceeds the budget of its namespace, which would need 12 rules, 14 selectors, 0 \
         prefixes and 12 rows, and may 10 rules, 8192 selectors, 12288 prefixes and 49152 rows: it is not in \
         force, and its subjects are locked down where the namespace is in enforce mode; expected fewer, or more under [budgets] in the configuration"
    );
}

#[test]
fn what_is_in_force_stays_and_a_larger_version_is_refused() {
    let held = policies(&(policy("shop", "m", 6) + &policy("shop", "n", 4)));
    let proposed =
        policies(&(policy("shop", "a", 1) + &policy("shop", "m", 6) + &policy("shop", "n", 5)));
    let (within, over) = within_budget(&proposed, &held, TEN);
    assert_eq!(names(&within), ["shop/m 6", "shop/n 4"]);
    assert_eq!(refused(&over), ["shop/a", "shop/n"]);
    assert!(!over[0].has_earlier && over[1].has_earlier);
    // A smaller one makes room, and one that is gone too.
    let smaller = policies(&(policy("shop", "m", 5) + &policy("shop", "n", 5)));
    assert_eq!(within_budget(&smaller, &held, TEN).1, []);
    let shrunk =
        policies(&(policy("shop", "a", 1) + &policy("shop", "m", 5) + &policy("shop", "n", 4)));
    assert_eq!(
        within_budget(&shrunk, &held, TEN).1,
        [],
        "whatever the names"
    );
    let gone = policies(&(policy("shop", "a", 6) + &policy("shop", "n", 4)));
    assert_eq!(within_budget(&gone, &held, TEN).1, []);
}

#[test]
fn a_namespace_beyond_its_budget_may_shrink() {
    let held = policies(&(policy("shop", "m", 12) + &policy("shop", "n", 4)));
    let smaller = policies(&(policy("shop", "m", 11) + &policy("shop", "n", 4)));
    let (within, over) = within_budget(&smaller, &held, TEN);
    assert_eq!((names(&within), over), (names(&smaller), vec![]));
    let larger = policies(&(policy("shop", "m", 12) + &policy("shop", "n", 5)));
    assert_eq!(refused(&within_budget(&larger, &held, TEN).1), ["shop/n"]);
}

/// The policies within budget, looking at all of them, and those that are not. Of a policy that is not, the
/// version in force stays.
fn of_all(proposed: &PolicySet, held: &PolicySet, budget: Needs) -> (PolicySet, Vec<PolicyId>) {
    let mut used: BTreeMap<&NamespaceName, Needs> = BTreeMap::new();
    let mut ids: Vec<(&PolicyId, &Arc<Policy>)> = proposed.policies.iter().collect();
    for (id, _) in &ids {
        if let (Some(namespace), Some(before)) = (&id.namespace, held.policies.get(*id)) {
            let sum = used.entry(namespace).or_default();
            *sum = sum.plus(Needs::of(before));
        }
    }
    let frees = |id: &PolicyId, policy: &Policy| {
        let before = held.policies.get(id);
        before.is_some_and(|before| Needs::of(policy).is_within(Needs::of(before)))
    };
    ids.sort_by_key(|(id, policy)| !frees(id, policy));
    let (mut set, mut refused) = (PolicySet::default(), Vec::new());
    for (id, policy) in ids {
        let before = held.policies.get(id);
        let sum = used.entry(id.namespace.as_ref().unwrap()).or_default();
        let own = before.map_or_else(Needs::default, |before| Needs::of(before));
        let needs = sum.minus(own).plus(Needs::of(policy));
        if before == Some(policy) || needs.may_follow(*sum, budget) {
            *sum = needs;
            set.policies.insert(id.clone(), Arc::clone(policy));
            continue;
        }
        refused.push(id.clone());
        if let Some(before) = before {
            set.policies.insert(id.clone(), Arc::clone(before));
        }
    }
    refused.sort();
    (set, refused)
}

#[test]
fn after_any_changes_the_policies_are_those_that_looking_at_all_of_them_gives() {
    let change = (
        0..2_usize,
        0..4_usize,
        prop::option::weighted(0.7, 0..8_usize),
    );
    let counts = std::cell::Cell::new((0_usize, 0_usize));
    proptest!(crate::oracle::cases(300), |(steps in vec(vec(change, 1..4), 1..12))| {
        let mut store = PolicyStore::new(TEN);
        let (mut proposed, mut held) = (PolicySet::default(), PolicySet::default());
        for step in steps {
            let mut changes = BTreeMap::new();
            for (namespace, name, rules) in step {
                let text = policy(["shop", "lab"][namespace], ["a", "b", "c", "d"][name], rules.unwrap_or(0));
                let new = Arc::clone(policies(&text).iter().next().unwrap());
                changes.insert(new.id(), rules.map(|_| new));
            }
            for (id, new) in &changes {
                match new {
                    Some(new) => proposed.policies.insert(id.clone(), Arc::clone(new)),
                    None => proposed.policies.remove(id),
                };
            }
            store.apply(changes.into_iter().collect());
            let (set, refused) = of_all(&proposed, &held, TEN);
            prop_assert_eq!(&**store.in_force(), &set);
            let over: Vec<PolicyId> = store.over_budget().map(|it| it.policy.id()).collect();
            prop_assert_eq!(&over, &refused);
            let (steps, beyond) = counts.get();
            counts.set((steps + 1, beyond + usize::from(!refused.is_empty())));
            held = set;
        }
    });
    let (steps, beyond) = counts.get();
    assert!(
        beyond * 10 > steps,
        "{beyond} of {steps} steps were beyond the budget"
    );
}
