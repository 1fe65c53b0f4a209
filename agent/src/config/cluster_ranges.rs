//! `cluster-ranges`: the ranges of the cluster's workloads and Services.

use std::collections::BTreeSet;
use std::ops::Range;

use ipnet::IpNet;

use crate::model::cluster_range;
use crate::source::document::Document;

/// Checks values; refuses what is wrong in the document.
pub(super) fn read(
    document: &mut Document<'_>,
    raw: impl IntoIterator<Item = (String, Range<usize>)>,
) -> BTreeSet<IpNet> {
    let mut ranges = BTreeSet::new();
    for (text, span) in raw {
        match cluster_range(&text) {
            Some(range) => _ = ranges.insert(range),
            None => document.refuse(
                span,
                "not a range of the cluster: expected a prefix such as \"10.96.0.0/12\" or \"fd00:10::/48\"",
            ),
        }
    }
    ranges
}
