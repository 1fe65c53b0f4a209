//! Lints over whole policy sets: findings, and similar policies without findings.
//!
//! The examples in `policies/lint` show each code once; these are the edge cases.

use super::*;
use crate::model::quote::sanitise;
use crate::source::{inventory_toml, policy_toml};

/// 2026-11-22T00:00:00Z.
const NOW: WallTime = WallTime(1_795_305_600_000_000_000);

const INVENTORY: &str = r#"
[[namespace]]
name = "shop"
labels = { env = "prod" }
[[workload]]
name = "web"
namespace = "shop"
labels = { app = "web", dns = "yes" }
addresses = ["203.0.113.5"]
ports = { http = "tcp/80" }
[[workload]]
name = "db"
namespace = "shop"
labels = { app = "db" }
addresses = ["10.0.0.2"]
"#;

/// A policy of namespace shop with complete metadata.
fn policy(name: &str, rest: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\nowner = \"a\"\njustification = \"b\"\n{rest}\n")
}

fn of_shop(name: &str, subject: &str, rest: &str) -> String {
    let head = format!("namespace = \"shop\"\nsubject = \"{subject}\"\n{rest}");
    policy(name, &head)
}

fn of_cluster(name: &str, tier: &str, priority: u16, rest: &str) -> String {
    let head = format!(
        "scope = \"cluster\"\ntier = \"{tier}\"\npriority = {priority}\nsubject = \"\"\n{rest}"
    );
    policy(name, &head)
}

fn run(text: &str, inventory: Option<&str>) -> Vec<Finding> {
    let parsed = policy_toml::parse("p.toml", text).unwrap();
    let policies = PolicySet::build(parsed.policies).unwrap();
    let inventory = inventory.map(|text| {
        let parsed = inventory_toml::parse("i.toml", text).unwrap();
        let namespaces = parsed.namespaces.into_iter().map(|declared| declared.item);
        let workloads = parsed.workloads.into_iter().map(|declared| declared.item);
        Inventory::build(namespaces.collect(), workloads.collect(), Vec::new()).unwrap()
    });
    lint(&LintInput {
        policies: &policies,
        inventory: inventory.as_ref(),
        namespaces: &BTreeMap::new(),
        now: NOW,
    })
}

/// The codes found, without `no-default-deny`, which most of these texts do not address.
fn codes_with(text: &str, inventory: Option<&str>) -> Vec<&'static str> {
    let findings = run(text, inventory);
    for finding in &findings {
        assert_eq!(sanitise(&finding.message), finding.message);
    }
    let codes = findings.iter().map(|finding| finding.code);
    codes
        .filter(|code| *code != LintCode::NoDefaultDeny)
        .map(LintCode::name)
        .collect()
}

fn codes(text: &str) -> Vec<&'static str> {
    codes_with(text, None)
}

const NONE: [&str; 0] = [];

fn allow_to(cidrs: &str) -> String {
    let rule = format!("[[policy.egress]]\nto = [{cidrs}]\nports = [\"tcp/443\", \"udp/53\"]\n");
    of_shop("p", "app=web", &rule)
}

#[test]
fn a_range_gets_the_code_that_says_most() {
    for (cidrs, wanted) in [
        (
            r#"{ cidr = "0.0.0.0/0" }, { cidr = "::/0" }"#,
            vec!["any-address"],
        ),
        (
            r#"{ cidr = "0.0.0.0/0", except = ["169.254.0.0/16"] }, { cidr = "2001:db8::/32" }"#,
            vec!["any-address"],
        ),
        (
            r#"{ cidr = "168.0.0.0/6" }, { cidr = "2001:db8::/32" }"#,
            vec!["wide-cidr"],
        ),
        (
            r#"{ cidr = "169.254.0.0/16" }, { cidr = "2001:db8::/32" }"#,
            vec!["metadata-address"],
        ),
        (
            r#"{ cidr = "169.254.0.0/16", except = ["169.254.169.254/32"] }, { cidr = "2001:db8::/32" }"#,
            vec!["internal-cidr"],
        ),
        (
            r#"{ cidr = "203.0.113.0/24" }, { cidr = "fd00::/8" }"#,
            vec!["metadata-address"],
        ),
        (
            r#"{ cidr = "203.0.113.0/24" }, { cidr = "fd00:1::/32" }"#,
            vec!["internal-cidr"],
        ),
        (
            r#"{ cidr = "10.0.0.0/8" }, { cidr = "2001:db8::/32" }"#,
            vec!["wide-cidr", "internal-cidr"],
        ),
        (
            r#"{ cidr = "10.0.0.0/9" }, { cidr = "172.31.0.1/32" }, { cidr = "2001:db8::/32" }"#,
            vec!["internal-cidr"],
        ),
        (
            r#"{ cidr = "172.32.0.0/16" }, { cidr = "100.128.0.0/10" }, { cidr = "2001:db8::/32" }"#,
            vec![],
        ),
        (
            r#"{ cidr = "100.64.1.0/24" }"#,
            vec!["internal-cidr", "one-family"],
        ),
        (r#"{ cidr = "2001:db8::/32" }"#, vec!["one-family"]),
        (r#"{ entity = "world" }"#, vec![]),
    ] {
        assert_eq!(codes(&allow_to(cidrs)), wanted, "{cidrs}");
    }
}

#[test]
fn a_range_around_a_workload_is_internal_wherever_it_lies() {
    let around = allow_to(r#"{ cidr = "203.0.113.0/24" }, { cidr = "2001:db8::/32" }"#);
    assert_eq!(codes(&around), NONE);
    assert_eq!(codes_with(&around, Some(INVENTORY)), ["internal-cidr"]);
    let adjacent =
        r#"{ cidr = "203.0.113.0/24", except = ["203.0.113.4/31"] }, { cidr = "2001:db8::/32" }"#;
    assert_eq!(codes_with(&allow_to(adjacent), Some(INVENTORY)), NONE);
}

#[test]
fn to_deny_the_metadata_service_takes_its_address() {
    let deny = |cidrs: &str| {
        let rule = format!("[[policy.egress]]\naction = \"deny\"\nto = [{cidrs}]\n");
        codes(&of_shop("p", "", &rule))
    };
    let both = r#"{ cidr = "169.254.169.254/32" }, { cidr = "fd00:ec2::254/128" }"#;
    assert_eq!(deny(both), NONE);
    assert_eq!(deny(r#"{ cidr = "0.0.0.0/0" }, { cidr = "::/0" }"#), NONE);
    assert_eq!(
        deny(r#"{ cidr = "10.0.0.0/8" }, { cidr = "fd00::/8" }"#),
        ["internal-cidr"]
    );
    assert_eq!(deny(r#"{ cidr = "169.254.169.254/32" }"#), ["one-family"]);
}

#[test]
fn the_other_family_may_have_a_rule_of_its_own() {
    let rule = |cidr: &str, port: &str| {
        format!(
            "[[policy.egress]]\nto = [{{ cidr = \"{cidr}\" }}]\nports = [\"{port}\", \"udp/53\"]\n"
        )
    };
    let v4 = rule("203.0.113.0/24", "tcp/443");
    let same = rule("2001:db8::/32", "tcp/443");
    let other = rule("2001:db8::/32", "tcp/80");
    assert_eq!(codes(&of_shop("p", "app=a", &(v4.clone() + &same))), NONE);
    let both = ["one-family", "one-family"];
    assert_eq!(codes(&of_shop("p", "app=a", &(v4 + &other))), both);
}

const TO_DB: &str = "[[policy.egress]]\nto = [{ pods = \"app=db\" }]\nports = [\"tcp/5432\"]\n";
const ASK: &str = "[[policy.egress]]\nto = [{ entity = \"host\" }]\nports = [\"udp/53\"]\n";

#[test]
fn names_are_asked_where_a_policy_surely_selects_the_same() {
    let web = of_shop("web", "app=web", TO_DB);
    for (helper, wanted) in [
        (of_shop("dns", "", ASK), vec![]),
        (of_shop("dns", "app in (web,db)", ASK), vec![]),
        (of_shop("dns", "dns=yes", ASK), vec!["dns-forgotten"]),
        (
            of_shop("dns", "", &ASK.replace("udp/53", "tcp/53")),
            vec!["dns-forgotten", "dns-forgotten"],
        ),
        (
            of_shop("dns", "", &ASK.replace("udp/53", "udp/1-100")),
            vec![],
        ),
        (of_shop("dns", "", &ASK.replace("udp/53", "dns")), vec![]),
        (of_cluster("dns", "admin", 1, ASK), vec![]),
        (of_cluster("dns", "baseline", 1, ASK), vec!["dns-forgotten"]),
    ] {
        let found = codes(&(web.clone() + &helper));
        assert_eq!(found, wanted, "{helper}");
    }
    let labelled = web.clone() + &of_shop("dns", "dns=yes", ASK);
    assert_eq!(codes_with(&labelled, Some(INVENTORY)), NONE);
    let elsewhere = web + &of_shop("dns", "app=db", ASK);
    assert_eq!(codes_with(&elsewhere, Some(INVENTORY)), ["dns-forgotten"]);
    assert_eq!(codes(&of_shop("shut", "app=web", "egress = []")), NONE);
}

#[test]
fn a_default_deny_may_come_from_several_policies_or_the_cluster() {
    let open = |text: &str, inventory: Option<&str>| {
        let findings = run(text, inventory);
        let found = findings
            .into_iter()
            .filter(|it| it.code == LintCode::NoDefaultDeny);
        found.map(|finding| finding.message).collect::<Vec<_>>()
    };
    let message = |what: &str| [format!("namespace shop has no default deny for {what}")];
    let web = of_shop("web", "app=web", "ingress = []");
    assert_eq!(open(&web, None), message("ingress and egress"));
    let ingress = web.clone() + &of_shop("in", "", "ingress = []");
    assert_eq!(open(&ingress, None), message("egress"));
    let closed = ingress + &of_shop("out", "", "egress = []");
    assert_eq!(open(&closed, None), [""; 0]);
    let deny = "[[policy.ingress]]\naction = \"deny\"\n[[policy.egress]]\naction = \"deny\"\n";
    let cluster = web.clone() + &of_cluster("c", "baseline", 9, deny);
    assert_eq!(open(&cluster, None), [""; 0]);
    let prod = format!("subject-namespaces = \"env=prod\"\n{deny}");
    let prod = web + &of_cluster("c", "baseline", 9, &prod);
    assert_eq!(open(&prod, None), message("ingress and egress"));
    assert_eq!(open(&prod, Some(INVENTORY)), [""; 0]);
}

fn rule(action: &str, peers: &str, ports: &str) -> String {
    format!("[[policy.ingress]]\naction = \"{action}\"\nfrom = [{peers}]\nports = [{ports}]\n")
}

const WEB: &str = r#"{ pods = "app=web" }"#;
const APPS: &str = r#"{ pods = "app" }"#;

#[test]
fn in_a_namespace_the_stronger_action_decides() {
    let pair = |one: &str, other: &str| {
        let rules = rule(one, WEB, "\"tcp/80\"") + &rule(other, APPS, "\"tcp/80-90\"");
        codes(&of_shop("p", "app=db", &rules))
    };
    for (narrow, wide, shadowed) in [
        ("allow", "deny", true),
        ("allow", "reject", true),
        ("allow", "allow", true),
        ("deny", "deny", true),
        ("reject", "deny", true),
        ("deny", "reject", false),
        ("deny", "allow", false),
        ("reject", "allow", false),
    ] {
        let wanted: &[&str] = if shadowed { &["shadowed-rule"] } else { &[] };
        assert_eq!(pair(narrow, wide), wanted, "{narrow} under {wide}");
    }
}

#[test]
fn rules_of_other_workloads_shadow_nothing() {
    let wide = of_shop("wide", "app=web", &rule("deny", APPS, "\"tcp/80\""));
    let narrow = of_shop("narrow", "app=db", &rule("allow", WEB, "\"tcp/80\""));
    assert_eq!(codes(&(wide + &narrow)), NONE);
    let all = of_shop("all", "", &rule("deny", APPS, "\"tcp/80\""));
    assert_eq!(codes(&(all + &narrow)), ["shadowed-rule"]);
}

#[test]
fn time_keeps_rules_apart() {
    let ends = "expires = 2026-12-01T00:00:00Z\n";
    let until = rule("allow", APPS, "\"tcp/80\"") + ends;
    let for_ever = rule("allow", WEB, "\"tcp/80\"");
    let found = codes(&of_shop("p", "app=db", &(until.clone() + &for_ever)));
    assert_eq!(found, NONE, "the narrow rule outlasts the wide one");
    let found = codes(&of_shop("p", "app=db", &(until + &for_ever + ends)));
    assert_eq!(found, ["shadowed-rule"]);
}

#[test]
fn in_a_cluster_tier_the_first_match_decides() {
    let (allow, deny) = (
        rule("allow", WEB, "\"tcp/80\""),
        rule("deny", APPS, "\"tcp/80\""),
    );
    let after = of_cluster("p", "admin", 5, &(deny.clone() + &allow));
    assert_eq!(codes(&after), ["shadowed-rule"]);
    let before = of_cluster("p", "admin", 5, &(allow.clone() + &deny));
    assert_eq!(codes(&before), NONE);

    let first = of_cluster("first", "admin", 1, &deny);
    let second = of_cluster("second", "admin", 2, &allow);
    assert_eq!(codes(&(second.clone() + &first)), ["shadowed-rule"]);
    let late = of_cluster("late", "admin", 3, &deny);
    assert_eq!(codes(&(second + &late)), NONE);
    let baseline = of_cluster("base", "baseline", 3, &allow);
    assert_eq!(codes(&(first + &baseline)), ["shadowed-rule"]);
}

#[test]
fn an_admin_rule_shadows_namespaces_unless_a_pass_may_come_first() {
    let in_shop = of_shop("p", "app=db", &rule("allow", WEB, "\"tcp/80\""));
    let peers = r#"{ namespaces = "", pods = "app" }"#;
    let deny = of_cluster("deny", "admin", 5, &rule("deny", peers, "\"tcp/80\""));
    assert_eq!(codes(&(in_shop.clone() + &deny)), ["shadowed-rule"]);
    let pass = |priority| {
        let rule = rule("pass", r#"{ pods = "app=web" }"#, "\"tcp/80\"");
        of_cluster("pass", "admin", priority, &rule)
    };
    assert_eq!(codes(&(in_shop.clone() + &deny + &pass(4))), NONE);
    let shadowed = codes(&(in_shop + &deny + &pass(6)));
    assert_eq!(
        shadowed,
        ["shadowed-rule", "shadowed-rule"],
        "the pass, too"
    );
}

#[test]
fn duplicates_are_reported_once_at_the_later_place() {
    let web = rule("allow", WEB, "\"tcp/80\", \"tcp/81\"");
    let again = rule("allow", WEB, "\"tcp/80-81\"");
    let text = of_shop("p", "app=db", &(web.clone() + &again));
    let findings = run(&text, None);
    let found: Vec<_> = findings
        .iter()
        .filter(|finding| finding.code == LintCode::DuplicateRule)
        .map(|finding| finding.line)
        .collect();
    let second = text.lines().collect::<Vec<_>>();
    let second = second
        .iter()
        .rposition(|line| *line == "[[policy.ingress]]");
    assert_eq!(found, [u32::try_from(second.unwrap() + 1).unwrap()]);

    let copies = of_shop("a", "app=db", &web) + &of_shop("b", "app=db", &web);
    assert_eq!(codes(&copies), ["duplicate-policy"]);
    let first = of_cluster("z", "admin", 1, &web);
    let second = of_cluster("a", "admin", 2, &web);
    assert_eq!(codes(&(second + &first)), ["duplicate-rule"]);
}

#[test]
fn priorities_tie_only_where_subjects_can_meet() {
    let deny = |port: &str| rule("deny", WEB, port);
    let of = |name: &str, namespaces: &str, port: &str| {
        let rest = format!("subject-namespaces = \"{namespaces}\"\n{}", deny(port));
        of_cluster(name, "admin", 7, &rest)
    };
    let prod = of("a", "env=prod", "\"tcp/1\"");
    assert_eq!(
        codes(&(prod.clone() + &of("b", "tier=1", "\"tcp/2\""))),
        ["equal-priority"]
    );
    assert_eq!(
        codes(&(prod.clone() + &of("b", "env=test", "\"tcp/2\""))),
        NONE
    );
    let baseline = of_cluster("b", "baseline", 7, &deny("\"tcp/2\""));
    assert_eq!(codes(&(prod + &baseline)), NONE);
}

#[test]
fn what_the_inventory_lacks_is_said_once() {
    let with = |text: &str| codes_with(text, Some(INVENTORY));
    let typo = of_shop("p", "app=wbe", &rule("allow", APPS, "\"nothing\""));
    assert_eq!(with(&typo), ["unmatched-selector"]);
    let egress = |peers: &str, port: &str| {
        let rule = format!("[[policy.egress]]\nto = [{peers}]\nports = [\"{port}\", \"udp/53\"]\n");
        of_shop("p", "app=db", &rule)
    };
    assert_eq!(with(&egress(WEB, "http")), NONE);
    assert_eq!(with(&egress(WEB, "tcp/http")), NONE);
    assert_eq!(with(&egress(WEB, "udp/http")), ["unresolved-port"]);
    assert_eq!(
        with(&egress(r#"{ entity = "world" }"#, "http")),
        ["unresolved-port"]
    );
    let account = r#"{ service-account = "absent" }"#;
    assert_eq!(with(&egress(account, "http")), ["unmatched-selector"]);
    assert_eq!(
        with(&egress(
            r#"{ namespaces = "env=prod", pods = "!gone" }"#,
            "http"
        )),
        NONE
    );
    assert_eq!(
        with(&egress(r#"{ namespaces = "env=test" }"#, "tcp/1")),
        ["unmatched-selector"]
    );
}

#[test]
fn days_of_review_and_ends_are_counted_from_now() {
    for (day, found) in [
        ("2026-11-21", true),
        ("2026-11-22", false),
        ("2027-01-01", false),
    ] {
        let text = of_shop("p", "app=db", &format!("review-by = {day}\ningress = []"));
        assert_eq!(codes(&text).contains(&"review-overdue"), found, "{day}");
    }
    let stale = of_shop("p", "app=db", "review-by = 2026-08-01\ningress = []");
    let findings = run(&stale, None);
    assert!(findings.iter().any(|it| it.message.contains("days ago")));
    for (end, code) in [
        ("2026-11-22T00:00:00Z", Some("expired-rule")),
        ("2026-11-22T00:00:01Z", None),
        ("2027-02-20T00:00:00Z", None),
        ("2027-02-20T00:00:01Z", Some("long-expiry")),
    ] {
        let window = format!("{}expires = {end}\n", rule("allow", WEB, "\"tcp/80\""));
        let found = codes(&of_shop("p", "app=db", &window));
        assert_eq!(found.first().copied(), code, "{end}");
    }
}
