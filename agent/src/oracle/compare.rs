//! Whether the oracle accepts a decision of the rows.
//!
//! Invariant: verdict, reject flag and deciding rule are all compared, the rule by its name.

use ringfence_common::{ids::RuleSlot, mode::Verdict, policy::Decision};

use super::Said;
use crate::policy::Compiled;

/// The deciding rule, by the oracle's name for it.
#[must_use]
pub fn name(compiled: &Compiled, slot: RuleSlot) -> String {
    match compiled.rules.get(&slot) {
        Some(info) => format!("{} {}", info.policy.id(), info.name()),
        None => slot.reserved_name().unwrap_or("?").to_owned(),
    }
}

/// Compares a decision.
///
/// # Errors
/// If it is missing or different, with both sides.
pub fn agrees(compiled: &Compiled, decision: Option<Decision>, said: &Said) -> Result<(), String> {
    let Some(decision) = decision else {
        return Err("no row".into());
    };
    let allow = decision.verdict == Verdict::Allow;
    let rule = name(compiled, decision.rule);
    if (allow, decision.reject) != (said.allow, said.reject) || !said.deciders.contains(&rule) {
        return Err(format!("rows say {allow} by {rule}, the oracle {said:?}"));
    }
    Ok(())
}
