//! The scope of a TOML policy: the keys `namespace`, `scope`, `tier`, `priority` and
//! `subject-namespaces`, and which of them can be combined.
//!
//! Invariant: a policy has exactly one of `namespace = "…"` and `scope = "cluster"`; the other keys
//! are only allowed with the latter.

use std::ops::Range;

use super::document::Document;
use super::policy_raw::{RawPolicy, Text};
use super::policy_toml::{parsed, selector};
use super::value;
use crate::model::{LabelSelector, NamespaceName, Priority, Scope, quote};

/// Reads the scope; refuses keys that cannot be combined.
pub(super) fn scope(
    document: &mut Document<'_>,
    span: &Range<usize>,
    raw: &RawPolicy,
) -> Option<Scope> {
    refuse_host_ingress(document, raw);
    match (&raw.namespace, &raw.scope) {
        (Some(namespace), None) => {
            let alone = refuse_cluster_keys(document, raw);
            let namespace = parsed::<NamespaceName>(document, namespace)?;
            alone.then_some(Scope::Namespace(namespace))
        }
        (None, Some(scope)) if scope.get_ref() == "cluster" => cluster(document, span, raw),
        (Some(_), Some(scope)) => {
            let message = "scope together with namespace: expected one of the two";
            document.refuse(scope.span(), message);
            None
        }
        (None, Some(scope)) => {
            let named = quote(scope.get_ref());
            let message =
                format!("unknown scope {named}: expected scope = \"cluster\" or namespace = \"…\"");
            document.refuse(scope.span(), message);
            None
        }
        (None, None) => {
            let message = "a policy without namespace: expected namespace = \"…\", or \
                           scope = \"cluster\" with a tier";
            document.refuse(span.clone(), message);
            None
        }
    }
}

fn cluster(document: &mut Document<'_>, span: &Range<usize>, raw: &RawPolicy) -> Option<Scope> {
    let mut require = |present: bool, what: &str| {
        if !present {
            let message = format!("a cluster policy without {what}");
            document.refuse(span.clone(), message);
        }
    };
    require(
        raw.tier.is_some(),
        "tier: expected tier = \"admin\" or tier = \"baseline\"",
    );
    require(
        raw.priority.is_some(),
        "priority: expected priority = 0 to 1000, lower is evaluated first",
    );
    let tier = raw
        .tier
        .as_ref()
        .and_then(|text| document.accept(text.span(), value::tier(text.get_ref())));
    let priority = raw
        .priority
        .as_ref()
        .and_then(|number| document.accept(number.span(), Priority::new(*number.get_ref())));
    let namespaces = match &raw.subject_namespaces {
        Some(text) => selector(document, text),
        None => Some(LabelSelector::everything()),
    };
    Some(Scope::Cluster {
        tier: tier?,
        priority: priority?,
        namespaces: namespaces?,
    })
}

/// Refuses the keys of cluster policies in a namespaced policy; true if there are none.
fn refuse_cluster_keys(document: &mut Document<'_>, raw: &RawPolicy) -> bool {
    let place = |text: &Option<Text>| text.as_ref().map(Text::span);
    let keys = [
        ("tier", place(&raw.tier)),
        ("priority", raw.priority.as_ref().map(toml::Spanned::span)),
        ("subject-namespaces", place(&raw.subject_namespaces)),
    ];
    let mut none = true;
    for (key, place) in keys {
        let Some(place) = place else { continue };
        none = false;
        let message = format!(
            "{key} on a namespaced policy: expected scope = \"cluster\" instead of namespace, or \
             no {key}"
        );
        document.refuse(place, message);
    }
    none
}

/// Refuses `host-ingress`: restricting the host's access needs the identity of host processes.
fn refuse_host_ingress(document: &mut Document<'_>, raw: &RawPolicy) {
    if let Some(value) = &raw.host_ingress {
        let message = "host-ingress is not supported: it needs the fence around host processes, \
                       which this version does not have; expected a policy without host-ingress";
        document.refuse(value.span(), message);
    }
}
