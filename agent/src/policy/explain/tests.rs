//! Expected texts of explanations.

use std::sync::Arc;

use super::*;
use crate::{
    model::{ModeName, PolicySet},
    source::{inventory_toml, policy_toml, value},
};

mod service;

const INVENTORY: &str = r#"
[[namespace]]
name = "shop"
labels = { env = "prod" }
[[namespace]]
name = "lab"
labels = { env = "test" }
[[workload]]
name = "web"
namespace = "shop"
labels = { app = "web" }
addresses = ["10.1.0.2"]
[[workload]]
name = "api"
namespace = "shop"
labels = { app = "api" }
addresses = ["10.1.0.3"]
ports = { http = "tcp/8080" }
[[workload]]
name = "probe"
namespace = "lab"
addresses = ["10.1.0.4"]
[[node]]
name = "node-1"
addresses = ["10.0.0.1"]
local = true
[[node]]
name = "node-2"
addresses = ["10.0.0.2"]
"#;

/// 2026-10-01T00:00:00Z.
const NOW: WallTime = WallTime(1_790_812_800_000_000_000);

fn built(text: &str) -> Inventory {
    let fragment = inventory_toml::parse("inventory.toml", text).unwrap();
    Inventory::build(
        fragment.namespaces.into_iter().map(|d| d.item).collect(),
        fragment.workloads.into_iter().map(|d| d.item).collect(),
        fragment.nodes.into_iter().map(|d| d.item).collect(),
    )
    .unwrap()
}

fn set(text: &str) -> PolicySet {
    let fragment = policy_toml::parse("p.toml", text).unwrap();
    PolicySet::build(fragment.policies).unwrap()
}

fn explained(policies: &str, from: &str, to: &str, port: &str, all: bool) -> Explanation {
    let (inventory, policies) = (built(INVENTORY), set(policies));
    let query = Query {
        from: value::test_end(from).unwrap(),
        to: value::test_end(to).unwrap(),
        port: value::test_port(port).unwrap(),
        family: None,
    };
    explain(&inventory, &policies, NOW, &query, all).unwrap()
}

fn text(policies: &str, from: &str, to: &str, port: &str) -> String {
    render(&explained(policies, from, to, port, false))
}

const API: &str = r#"
[[policy]]
name = "api"
namespace = "shop"
subject = "app=api"
owner = "team-api"
justification = "the web needs it"
ticket = "SEC-1"
review-by = 2027-02-01
[[policy.ingress]]
from = [{ pods = "app=web" }]
ports = ["http"]
expires = 2026-12-01T00:00:00Z
[[policy.ingress]]
from = [{ cidr = "192.0.2.0/24", except = ["192.0.2.7/32"] }]
ports = ["tcp/443"]
[[policy.ingress]]
from = [{ namespaces = "env=test" }]
ports = ["tcp/8080"]
expires = 2026-01-01T00:00:00Z
"#;

const TIERS: &str = r#"
[[policy]]
name = "quarantine"
scope = "cluster"
tier = "admin"
priority = 10
subject = ""
[[policy.ingress]]
action = "pass"
from = [{ pods = "app=web" }]
[[policy.ingress]]
action = "deny"
from = [{ namespaces = "env" }]
[[policy]]
name = "late"
scope = "cluster"
tier = "admin"
priority = 20
subject = ""
[[policy.ingress]]
action = "deny"
[[policy]]
name = "floor"
scope = "cluster"
tier = "baseline"
priority = 5
subject = ""
[[policy.egress]]
action = "deny"
to = [{ entity = "world" }]
ports = ["tcp/25"]
"#;

#[test]
fn a_rule_that_allows_with_everything_about_its_policy() {
    assert_eq!(
        text(API, "shop/web", "shop/api", "http"),
        r#"shop/web (10.1.0.2) to shop/api (10.1.0.3), tcp/8080: ALLOW
as of 2026-10-01T00:00:00Z

egress of shop/web: allow by default-allow
  no policy applies to egress
  no rule decides, and no policy isolates egress of shop/web
  to deny it here:
    add an egress deny rule to a policy of namespace shop that selects shop/web:
    (it isolates: whatever else shop/web sends needs a rule, too)
        [[policy.egress]]
        action = "deny"
        to = [{ pods = "app=api" }]
        ports = ["tcp/8080"]

ingress of shop/api: allow by ingress[0] of shop/api
  decided by p.toml:10: allow in tier namespace
    owner: "team-api"
    justification: "the web needs it"
    ticket: "SEC-1"
    review by: "2027-02-01"
    expires: 2026-12-01T00:00:00Z
  policies that apply to ingress:
    shop/api (namespace, isolates), p.toml:2
  rules, in evaluation order:
    namespace: allow ingress[0] of shop/api (p.toml:10): matches and decides
    namespace: allow ingress[1] of shop/api (p.toml:14): 10.1.0.2 is not in 192.0.2.0/24 (and 1 more)
    namespace: allow ingress[2] of shop/api (p.toml:17): namespace shop has env=prod, required is env=test (and 1 more)
  to deny it here:
    remove or narrow ingress[0] of shop/api (p.toml:10)
    or add an ingress deny rule to a policy of namespace shop that selects shop/api:
        [[policy.ingress]]
        action = "deny"
        from = [{ pods = "app=web" }]
        ports = ["tcp/8080"]
"#
    );
}

#[test]
fn default_deny_with_the_nearest_rule() {
    let text = text(API, "shop/web", "shop/api", "tcp/81");
    let (_, ingress) = text.split_once("\n\ningress").unwrap();
    assert_eq!(
        ingress,
        r#" of shop/api: deny by default-deny
  policies that apply to ingress:
    shop/api (namespace, isolates), p.toml:2
  rules, in evaluation order:
    namespace: allow ingress[0] of shop/api (p.toml:10): port http of shop/api is tcp/8080, not tcp/81
    namespace: allow ingress[1] of shop/api (p.toml:14): 10.1.0.2 is not in 192.0.2.0/24 (and 1 more)
    namespace: allow ingress[2] of shop/api (p.toml:17): namespace shop has env=prod, required is env=test (and 2 more)
  no rule decides, and the policies that isolate ingress of shop/api deny what none allows
  to allow it here:
    add port tcp/81 to ingress[0] of shop/api (p.toml:10)
    or add an ingress rule to a policy of namespace shop that selects shop/api:
        [[policy.ingress]]
        from = [{ pods = "app=web" }]
        ports = ["tcp/81"]
"#
    );
}

#[test]
fn advice_for_an_admin_deny_names_no_namespace_rule() {
    let text = text(TIERS, "lab/probe", "shop/api", "tcp/8080");
    let (_, ingress) = text.split_once("\n\ningress").unwrap();
    assert_eq!(
        ingress,
        r#" of shop/api: deny by ingress[1] of quarantine
  decided by p.toml:11: deny in tier admin 10
  policies that apply to ingress:
    quarantine (admin 10), p.toml:2
    late (admin 20), p.toml:14
  rules, in evaluation order:
    admin 10: pass ingress[0] of quarantine (p.toml:8): lab/probe has no label app, required is app=web
    admin 10: deny ingress[1] of quarantine (p.toml:11): matches and decides
    1 more are not evaluated
  to allow it here:
    (the admin tier is evaluated first: no rule of a namespace helps, only one of the admin tier before priority 10)
    remove or narrow ingress[1] of quarantine (p.toml:11)
    and remove or narrow ingress[0] of late (p.toml:20)
"#
    );
}

#[test]
fn advice_for_a_baseline_deny_is_a_namespace_rule() {
    let text = text(TIERS, "shop/web", "198.51.100.1", "tcp/25");
    let (_, egress) = text.split_once("\n\negress").unwrap();
    let (egress, ingress) = egress.split_once("\n\n").unwrap();
    assert_eq!(
        egress,
        r#" of shop/web: deny by egress[0] of floor
  decided by p.toml:28: deny in tier baseline 5
  policies that apply to egress:
    floor (baseline 5), p.toml:22
  rules, in evaluation order:
    baseline 5: deny egress[0] of floor (p.toml:28): matches and decides
  to allow it here:
    add an egress rule to a policy of namespace shop that selects shop/web:
    (it isolates: whatever else shop/web sends needs a rule, too)
        [[policy.egress]]
        to = [{ cidr = "198.51.100.1/32" }]
        ports = ["tcp/25"]
    or remove or narrow egress[0] of floor (p.toml:28)"#
    );
    assert_eq!(
        ingress,
        "ingress of world: allow by not-a-workload\n  world is not a workload, so no policy selects it\n"
    );
}

/// Asserts that an explanation contains these lines.
fn says(text: &str, lines: &[&str]) {
    for wanted in lines {
        assert!(
            text.lines().any(|line| line.trim() == *wanted),
            "no {wanted:?} in:\n{text}"
        );
    }
}

#[test]
fn a_pass_skips_the_rest_of_its_tier() {
    says(
        &text(TIERS, "shop/web", "shop/api", "tcp/8080"),
        &[
            "ingress of shop/api: allow by default-allow",
            "admin 10: pass ingress[0] of quarantine (p.toml:8): matches and skips the rest of its \
             tier",
            "admin 10: deny ingress[1] of quarantine (p.toml:11): matches, but its policy has \
             last_policy already",
            "1 more are not evaluated",
        ],
    );
}

#[test]
fn windows_and_exceptions_are_named() {
    says(
        &text(API, "lab/probe", "shop/api", "tcp/8080"),
        &[
            "namespace: allow ingress[2] of shop/api (p.toml:17): it expired at 2026-01-01T00:00:00Z",
            "move expires of ingress[2] of shop/api (p.toml:17) from 2026-01-01T00:00:00Z to later",
        ],
    );
    says(
        &text(API, "192.0.2.7", "shop/api", "tcp/443"),
        &[
            "namespace: allow ingress[0] of shop/api (p.toml:10): world is not a workload (and 1 more)",
            "remove 192.0.2.7/32 from the except list of 192.0.2.0/24 in ingress[1] of shop/api \
             (p.toml:14)",
        ],
    );
}

#[test]
fn port_names_are_looked_up_on_the_destination() {
    let policy = r#"
[[policy]]
name = "web"
namespace = "shop"
subject = "app=web"
[[policy.egress]]
ports = ["http"]
"#;
    says(
        &text(policy, "shop/web", "lab/probe", "tcp/8080"),
        &[
            "namespace: allow egress[0] of shop/web (p.toml:6): lab/probe declares no port http",
            "add port tcp/8080 to egress[0] of shop/web (p.toml:6)",
        ],
    );
    says(
        &text(policy, "shop/web", "shop/api", "udp/8080"),
        &[
            "namespace: allow egress[0] of shop/web (p.toml:6): port http of shop/api is tcp/8080, \
           not udp/8080",
        ],
    );
}

#[test]
fn implicit_verdicts_are_explained() {
    for (from, to, port, line) in [
        (
            "10.0.0.1",
            "shop/api",
            "tcp/81",
            "it comes from a socket of shop/api's node, which is allowed before every policy",
        ),
        (
            "shop/api",
            "10.1.0.3",
            "icmp",
            "traffic to an own address is always allowed; no policy applies",
        ),
        (
            "shop/web",
            "10.0.0.2",
            "icmp",
            "node-2 is not a workload, so no policy selects it",
        ),
        (
            "shop/web",
            "10.0.0.2",
            "protocol/47",
            "no rule decides; tunnels and raw protocols from shop/web need an explicit rule",
        ),
    ] {
        says(&text(API, from, to, port), &[line]);
    }
}

#[test]
fn many_rules_are_cut_to_the_nearest() {
    let mut policy =
        String::from("[[policy]]\nname = \"many\"\nnamespace = \"shop\"\nsubject = \"app=api\"\n");
    for n in 0..30 {
        policy.push_str(&format!(
            "[[policy.ingress]]\nfrom = [{{ pods = \"app=x{n},tier=y\" }}]\nports = [\"tcp/1\"]\n"
        ));
    }
    policy.push_str("[[policy.ingress]]\nfrom = [{ pods = \"app=web\" }]\nports = [\"tcp/2\"]\n");
    let few = explained(&policy, "shop/web", "shop/api", "tcp/3", false).ingress;
    assert_eq!((few.rules.len(), few.rules_left_out), (NEAREST, 21));
    assert!(few.rules.iter().any(|rules| rules.rule == "ingress[30]"));
    assert_eq!(
        few.advice.alternatives[0].steps,
        ["add port tcp/3 to ingress[30] of shop/many (p.toml:95)"]
    );
    let all = explained(&policy, "shop/web", "shop/api", "tcp/3", true).ingress;
    assert_eq!((all.rules.len(), all.rules_left_out), (31, 0));
}

#[test]
fn hostile_text_is_escaped_and_modes_are_shown() {
    let mut explanation = explained(API, "shop/web", "shop/api", "http", false);
    let decider = explanation.ingress.decider.as_mut().unwrap();
    decider.owner = Some("a\u{1b}[2J\"\n".into());
    decider.location = "p\u{202e}.toml:10\nx".into();
    let observes = |mode, attached| {
        let namespace = "shop".to_owned();
        Some(Live {
            namespace,
            mode,
            attached,
        })
    };
    explanation.egress.live = observes(ModeName::Lockdown, true);
    explanation.ingress.live = observes(ModeName::Observe, true);
    explanation.ingress.verdict = Verdict::Deny;
    let text = render(&explanation);
    assert!(
        !text
            .chars()
            .any(|c| c != '\n' && crate::model::quote::is_deceptive(c)),
        "{text}"
    );
    says(
        &text,
        &[
            r#"owner: "a\u{1b}[2J\"\n""#,
            r"decided by p\u{202e}.toml:10 x: allow in tier namespace",
            "namespace shop is locked down: it is dropped whatever the verdict",
            "namespace shop observes: it would be dropped, and passes",
        ],
    );
}

#[test]
fn a_large_cluster_is_explained_within_the_limit() {
    let mut inventory = built(INVENTORY);
    let web = inventory.workloads.values().last().unwrap().clone();
    for n in 0..100_000_u32 {
        let label = format!("a{}", n % 1000);
        let workload = crate::model::Workload {
            id: crate::model::WorkloadId::new("shop", &format!("w{n}")).unwrap(),
            labels: crate::model::Labels::from_pairs([("app", label)]).unwrap(),
            addresses: vec![std::net::Ipv4Addr::from_bits(0x0a64_0000 + n).into()],
            ..(*web).clone()
        };
        inventory
            .workloads
            .insert(workload.id.clone(), Arc::new(workload));
    }
    let mut policies = String::new();
    for n in 0..1000 {
        policies.push_str(&format!(
            "[[policy]]\nname = \"p{n}\"\nnamespace = \"shop\"\nsubject = \"\"\n\
             [[policy.ingress]]\nfrom = [{{ pods = \"app=a{n}\" }}]\nports = [\"tcp/{}\"]\n",
            n + 1
        ));
    }
    let policies = set(&policies);
    let query = Query {
        from: value::test_end("10.101.0.7").unwrap(),
        to: value::test_end("shop/w99999").unwrap(),
        port: value::test_port("tcp/3").unwrap(),
        family: None,
    };
    let start = std::time::Instant::now();
    let explanation = explain(&inventory, &policies, NOW, &query, false).unwrap();
    let took = start.elapsed();
    assert_eq!(explanation.ingress.rules_left_out, 1000 - NEAREST);
    println!("explained in {took:?}");
    // The limit allows for an unoptimised build on a busy machine; it normally takes milliseconds.
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_rule_without_ports_is_not_narrowed_for_a_tunnel() {
    let policy = |ports: &str| {
        format!(
            "[[policy]]\nname = \"out\"\nnamespace = \"shop\"\nsubject = \"app=web\"\n\
             [[policy.egress]]\nto = [{{ entity = \"host\" }}]\n{ports}\n"
        )
    };
    let advice = |policy: &str, to: &str, port: &str| {
        let advice = explained(policy, "shop/web", to, port, false).egress.advice;
        let alternatives = advice.alternatives.into_iter();
        alternatives
            .map(|it| [it.steps, it.snippet].concat().join(" / "))
            .collect::<Vec<_>>()
    };
    for port in ["udp/4789", "protocol/47"] {
        let own_rule = format!(
            "add an egress rule to a policy of namespace shop that selects shop/web: / \
             [[policy.egress]] / to = [{{ entity = \"host\" }}] / ports = [\"{port}\"]"
        );
        let found = advice(&policy(""), "10.0.0.1", port);
        assert_eq!(found, std::slice::from_ref(&own_rule));
        let with_ports = policy("ports = [\"udp\", \"tcp/80\"]");
        let extended = format!("add port {port} to egress[0] of shop/out (p.toml:5)");
        let expected = [extended, own_rule];
        assert_eq!(advice(&with_ports, "10.0.0.1", port), expected);
    }
    // A rule that denies is in the way as well.
    let denied = format!("{}[[policy.egress]]\naction = \"deny\"\n", policy(""));
    let advice = advice(&denied, "10.0.0.1", "udp/4789");
    let own_rule =
        "add a rule with the peers of egress[0] of shop/out (p.toml:5) that names udp/4789 alone";
    assert!(advice[0].ends_with(own_rule), "{advice:?}");
}
