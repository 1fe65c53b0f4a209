use super::*;
use crate::source::policy_toml;

/// Policies of these namespaces and names, each with rules for so many ports.
fn set(policies: &[(&str, &str, usize)]) -> PolicySet {
    let text: String = policies
        .iter()
        .map(|(namespace, name, ports)| {
            let scope = match *namespace {
                "" => "scope = \"cluster\"\ntier = \"admin\"\npriority = 5".to_owned(),
                namespace => format!("namespace = \"{namespace}\""),
            };
            let ports: Vec<String> = (1..=*ports).map(|port| format!("\"tcp/{port}\"")).collect();
            format!(
                "[[policy]]\nname = \"{name}\"\n{scope}\nsubject = \"\"\n\
                 [[policy.ingress]]\nports = [{}]\n",
                ports.join(", ")
            )
        })
        .collect();
    let fragment = policy_toml::parse("p.toml", &text).unwrap();
    PolicySet::build(fragment.policies).unwrap()
}

fn rows(policies: &PolicySet) -> u64 {
    policies.iter().map(|policy| Needs::of(policy).rows).sum()
}

/// What is in force and what has no room where so many rows fit.
fn chosen(in_force: &PolicySet, desired: &PolicySet, room: u64) -> Option<(String, String)> {
    let chosen = choose(in_force, desired, |policies| rows(policies) <= room)?;
    assert!(rows(&chosen.policies) <= room);
    let in_force: Vec<String> = chosen
        .policies
        .iter()
        .map(|policy| format!("{}:{}", policy.id(), Needs::of(policy).rows))
        .collect();
    let without_room: Vec<String> = chosen
        .without_room
        .iter()
        .map(|it| {
            let state = if it.has_earlier { "earlier" } else { "none" };
            format!("{} {state}", it.policy.id())
        })
        .collect();
    Some((in_force.join(" "), without_room.join(", ")))
}

#[test]
fn a_namespace_that_asks_for_too_much_keeps_no_other_out() {
    let greedy: Vec<String> = (0..9).map(|number| format!("p{number}")).collect();
    let mut desired: Vec<(&str, &str, usize)> =
        greedy.iter().map(|name| ("a", &**name, 20)).collect();
    desired.extend([("b", "p", 5), ("c", "p", 5), ("d", "p", 5)]);
    // At a start nothing is in force.
    let (in_force, without_room) = chosen(&PolicySet::default(), &set(&desired), 60).unwrap();
    assert_eq!(in_force, "a/p0:20 a/p1:20 b/p:5 c/p:5 d/p:5");
    assert!(without_room.starts_with("a/p"), "{without_room}");
    assert!(!without_room.contains("b/p"), "{without_room}");
}

#[test]
fn what_is_in_force_makes_no_room_for_what_is_new() {
    let in_force = set(&[("a", "p", 30), ("b", "q", 10)]);
    let desired = set(&[("a", "p", 30), ("b", "q", 12), ("b", "r", 1), ("c", "s", 9)]);
    assert_eq!(
        chosen(&in_force, &desired, 43).unwrap(),
        ("a/p:30 b/q:12 b/r:1".to_owned(), "c/s none".to_owned()),
        "the smallest namespace first, by all that it asks for"
    );
    assert_eq!(
        chosen(&in_force, &desired, 41).unwrap(),
        (
            "a/p:30 b/q:10 b/r:1".to_owned(),
            "c/s none, b/q earlier".to_owned()
        )
    );
}

#[test]
fn a_removed_policy_is_not_in_force() {
    let in_force = set(&[("a", "p", 30), ("b", "q", 10)]);
    let desired = set(&[("b", "q", 35)]);
    let expected = ("b/q:35".to_owned(), String::new());
    assert_eq!(chosen(&in_force, &desired, 40), Some(expected));
}

#[test]
fn policies_of_the_cluster_come_first() {
    let desired = set(&[("", "guard", 40), ("a", "p", 5)]);
    let (in_force, _) = chosen(&PolicySet::default(), &desired, 40).unwrap();
    assert_eq!(in_force, "guard:40");
}

#[test]
fn if_not_even_what_is_in_force_fits_there_is_no_choice() {
    let in_force = set(&[("a", "p", 30)]);
    assert_eq!(chosen(&in_force, &in_force, 29), None);
}

#[test]
fn a_namespace_with_many_policies_has_a_limited_number_of_trials() {
    let names: Vec<String> = (0..500).map(|number| format!("p{number:03}")).collect();
    let desired: Vec<_> = names.iter().map(|name| ("a", &**name, 2)).collect();
    let mut trials = 0;
    let chosen = choose(&PolicySet::default(), &set(&desired), |policies| {
        trials += 1;
        rows(policies) <= 600
    });
    let chosen = chosen.unwrap();
    assert!(trials <= MAX_TRIALS + 1, "{trials}");
    assert!(chosen.policies.len() >= 250, "{}", chosen.policies.len());
    assert_eq!(chosen.policies.len() + chosen.without_room.len(), 500);
}
