//! `[timeouts]`: how long conntrack entries live after their last packet.
//!
//! Invariant: a timeout is at least one second and at most a year, so that no time of the kernel
//! programs overflows.

use std::collections::BTreeMap;

use ringfence_common::conntrack::Timeout;
use toml::Spanned;

use crate::source::document::Document;

/// Timeouts that differ from the defaults, in seconds.
pub type Timeouts = Vec<(Timeout, u32)>;

/// The table as it is in the file.
pub(super) type RawTimeouts = BTreeMap<Spanned<String>, Spanned<u32>>;

/// The longest timeout, in seconds.
const LONGEST: u32 = 365 * 24 * 3600;

/// Checks keys and values; refuses what is wrong in the document.
pub(super) fn read(document: &mut Document<'_>, raw: &RawTimeouts) -> Timeouts {
    let mut timeouts = Timeouts::new();
    for (key, seconds) in raw {
        let known = Timeout::ALL
            .iter()
            .find(|(_, name, _)| name == key.get_ref());
        let Some((timeout, ..)) = known else {
            let names: Vec<&str> = Timeout::ALL.iter().map(|(_, name, _)| *name).collect();
            let message = format!("unknown timeout: expected one of {}", names.join(", "));
            document.refuse(key.span(), message);
            continue;
        };
        if !(1..=LONGEST).contains(seconds.get_ref()) {
            let message = format!("not a timeout: expected 1 to {LONGEST} seconds");
            document.refuse(seconds.span(), message);
            continue;
        }
        timeouts.push((*timeout, *seconds.get_ref()));
    }
    timeouts
}
