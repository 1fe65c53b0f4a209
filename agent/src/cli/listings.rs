//! `ringfence endpoints`, `identities`, `policies` and `rules`.
//!
//! The columns of each table; `listing` fetches and prints.

use anyhow::Result;

use super::arguments::{Listing, RuleArguments};
use super::listing::{joined, show};
use super::table::Table;
use crate::server::Client;
use crate::server::view::{EndpointView, IdentityView, Isolation, PolicyView, RuleView};

pub(super) async fn endpoints(client: &Client, listing: &Listing) -> Result<()> {
    show(client, "/v1/endpoints", listing.output, endpoint_table).await
}

pub(super) async fn identities(client: &Client, listing: &Listing) -> Result<()> {
    show(client, "/v1/identities", listing.output, identity_table).await
}

pub(super) async fn policies(client: &Client, listing: &Listing) -> Result<()> {
    show(client, "/v1/policies", listing.output, policy_table).await
}

pub(super) async fn rules(client: &Client, arguments: &RuleArguments) -> Result<()> {
    let mut target = String::from("/v1/rules");
    if let Some(unused) = arguments.unused {
        target.push_str(&format!("?unused={}", unused.seconds()));
    }
    show(client, &target, arguments.listing.output, rule_table).await
}

fn endpoint_table(views: Vec<EndpointView>) -> Table {
    let mut table = Table::new(&[
        "WORKLOAD",
        "INTERFACE",
        "ATTACHED",
        "MODE",
        "INGRESS",
        "EGRESS",
        "IDENTITY",
        "ADDRESSES",
        "POLICIES",
    ]);
    for view in views {
        table.row([
            view.workload,
            view.interface,
            if view.attached { "yes" } else { "no" }.into(),
            view.mode.to_string(),
            isolation(view.ingress).into(),
            isolation(view.egress).into(),
            view.identity.to_string(),
            joined(&view.addresses),
            joined(&view.policies),
        ]);
    }
    table
}

fn isolation(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Open => "open",
        Isolation::Isolated => "isolated",
    }
}

fn identity_table(views: Vec<IdentityView>) -> Table {
    let mut table = Table::new(&[
        "IDENTITY",
        "CLASS",
        "KIND",
        "NAMESPACE",
        "LABELS",
        "SERVICE-ACCOUNT",
        "CIDRS",
        "ADDRESSES",
    ]);
    for view in views {
        let labels: Vec<_> = view
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        table.row([
            view.identity.to_string(),
            view.class.to_string(),
            view.kind,
            view.namespace.unwrap_or_default(),
            joined(&labels),
            view.service_account.unwrap_or_default(),
            joined(&view.cidrs),
            view.addresses_count.to_string(),
        ]);
    }
    table
}

fn policy_table(views: Vec<PolicyView>) -> Table {
    let mut table = Table::new(&[
        "POLICY",
        "SUBJECT",
        "INGRESS",
        "EGRESS",
        "ENDPOINTS",
        "OWNER",
        "REVIEW-BY",
        "FILE",
    ]);
    let count = |rules: Option<u64>| rules.map_or_else(String::new, |rules| rules.to_string());
    for view in views {
        table.row([
            view.policy,
            if view.subject.is_empty() {
                "(all)".into()
            } else {
                view.subject
            },
            count(view.ingress_rules),
            count(view.egress_rules),
            view.endpoints.to_string(),
            view.owner.unwrap_or_default(),
            view.review_by.unwrap_or_default(),
            match view.line {
                // An object has no lines.
                0 => view.file,
                line => format!("{}:{line}", view.file),
            },
        ]);
    }
    table
}

fn rule_table(views: Vec<RuleView>) -> Table {
    let mut table = Table::new(&[
        "POLICY",
        "RULE",
        "ACTION",
        "HITS",
        "LAST-HIT",
        "DESCRIPTION",
        "FILE",
    ]);
    for view in views {
        let line = view.line.map(|line| format!(":{line}")).unwrap_or_default();
        table.row([
            view.policy.unwrap_or_default(),
            view.rule,
            view.action,
            view.hits.to_string(),
            view.last_hit
                .map_or_else(|| "never".into(), |hit| format!("{hit:.0}")),
            view.description,
            view.file.map(|file| file + &line).unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_shown_in_columns() {
        let view = EndpointView {
            workload: "shop/orders-1".into(),
            interface: "veth-orders".into(),
            attached: true,
            ingress: Isolation::Isolated,
            identity: 17,
            addresses: vec!["10.1.0.3".into(), "fd00:1::3".into()],
            ..EndpointView::default()
        };
        assert_eq!(
            endpoint_table(vec![view]).render(),
            "WORKLOAD       INTERFACE    ATTACHED  MODE     INGRESS   EGRESS  IDENTITY  \
             ADDRESSES           POLICIES\n\
             shop/orders-1  veth-orders  yes       observe  isolated  open    17        \
             10.1.0.3,fd00:1::3  -\n"
        );
    }

    #[test]
    fn the_last_hit_of_an_unused_rule_is_never() {
        let view = RuleView {
            policy: Some("shop/orders".into()),
            rule: "ingress[0]".into(),
            action: "allow".into(),
            file: Some("shop.toml".into()),
            line: Some(12),
            ..RuleView::default()
        };
        let hit = RuleView {
            last_hit: Some(jiff::Timestamp::UNIX_EPOCH),
            ..view.clone()
        };
        let text = rule_table(vec![view, hit]).render();
        let mut lines = text.lines().skip(1);
        assert_eq!(
            lines.next().unwrap(),
            "shop/orders  ingress[0]  allow   0     never                 -            shop.toml:12"
        );
        assert!(lines.next().unwrap().contains(" 1970-01-01T00:00:00Z "));
    }

    #[test]
    fn hostile_labels_stay_in_their_cell() {
        let labels = [("app".to_owned(), "x\u{1b}]0;owned\u{7}\nrow".to_owned())];
        let view = IdentityView {
            labels: labels.into(),
            ..IdentityView::default()
        };
        let text = identity_table(vec![view]).render();
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
