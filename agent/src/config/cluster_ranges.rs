//! `cluster-ranges`: the ranges of the cluster's workloads and Services.
//!
//! Invariant: a range is masked, and is not all addresses of a family: nothing would be `world` then.

use std::collections::BTreeSet;
use std::ops::Range;

use ipnet::IpNet;

use crate::source::document::Document;

/// Checks values; refuses what is wrong in the document.
pub(super) fn read(
    document: &mut Document<'_>,
    raw: impl IntoIterator<Item = (String, Range<usize>)>,
) -> BTreeSet<IpNet> {
    let mut ranges = BTreeSet::new();
    for (text, span) in raw {
        let range = text.parse::<IpNet>().map(|net| net.trunc());
        match range {
            Ok(range) if range.prefix_len() > 0 => _ = ranges.insert(range),
            _ => document.refuse(
                span,
                "not a range of the cluster: expected a prefix such as \"10.96.0.0/12\" or \"fd00:10::/48\"",
            ),
        }
    }
    ranges
}
