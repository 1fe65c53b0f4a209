//! Converts `LabelSelector` of the Kubernetes API: `matchLabels` and `matchExpressions`, ANDed.

use std::collections::BTreeSet;

use super::node::{Node, Value};
use super::object::Object;
use crate::model::selector::Operator;
use crate::model::{LabelSelector, Requirement, quote};
use crate::source::limits::{MAX_REQUIREMENTS, MAX_SELECTOR_VALUES};

/// Reads a selector; `{}` selects everything.
pub(super) fn selector(
    object: &mut Object<'_, '_>,
    node: &Node<'_>,
    what: &str,
) -> Option<LabelSelector> {
    let names = ["matchLabels", "matchExpressions"];
    let [labels, expressions] = object.fields(node, what, names)?;
    let mut requirements = Vec::new();
    let mut valid = true;
    if let Some(labels) = labels {
        valid &= match_labels(object, labels, &mut requirements).is_some();
    }
    if let Some(expressions) = expressions {
        let items = object.items_up_to(expressions, "matchExpressions", MAX_REQUIREMENTS)?;
        for item in items {
            match expression(object, item) {
                Some(requirement) => requirements.push(requirement),
                None => valid = false,
            }
        }
    }
    valid.then(|| LabelSelector::new(requirements))
}

fn match_labels(
    object: &mut Object<'_, '_>,
    node: &Node<'_>,
    requirements: &mut Vec<Requirement>,
) -> Option<()> {
    let Value::Map(entries) = &node.value else {
        let kind = node.kind();
        object.refuse(
            node,
            format!("matchLabels is {kind}: expected labels, as in {{app: web}}"),
        );
        return None;
    };
    if entries.len() > MAX_REQUIREMENTS {
        let message = format!("matchLabels: expected at most {MAX_REQUIREMENTS} labels");
        object.refuse(node, message);
        return None;
    }
    for entry in entries {
        let value = object.text(&entry.value, "a label value")?;
        let operator = Operator::In(BTreeSet::from([value.to_owned()]));
        let requirement = Requirement::new(&entry.key, operator);
        requirements.push(object.accept(&entry.value, requirement)?);
    }
    Some(())
}

fn expression(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<Requirement> {
    let names = ["key", "operator", "values"];
    let [key, operator, values] = object.fields(node, "a match expression", names)?;
    let (Some(key), Some(operator)) = (key, operator) else {
        let message = "a match expression without key or operator: expected both";
        object.refuse(node, message);
        return None;
    };
    let key = object.text(key, "key")?;
    let name = object.text(operator, "operator")?;
    let given = values;
    let values = match given {
        Some(values) => values_of(object, values)?,
        None => BTreeSet::new(),
    };
    let operator = match name {
        "In" | "NotIn" if values.is_empty() => {
            object.refuse(
                operator,
                format!("{name} without values: expected at least one"),
            );
            return None;
        }
        "In" => Operator::In(values),
        "NotIn" => Operator::NotIn(values),
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let message = format!("{name} with values: expected none");
            object.refuse(given.unwrap_or(operator), message);
            return None;
        }
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => {
            let message = format!(
                "unknown operator {}: expected In, NotIn, Exists or DoesNotExist",
                quote(name)
            );
            object.refuse(operator, message);
            return None;
        }
    };
    let requirement = Requirement::new(key, operator);
    object.accept(node, requirement)
}

fn values_of(object: &mut Object<'_, '_>, node: &Node<'_>) -> Option<BTreeSet<String>> {
    let items = object.items_up_to(node, "values", MAX_SELECTOR_VALUES)?;
    items
        .iter()
        .map(|item| object.text(item, "a label value").map(str::to_owned))
        .collect()
}
