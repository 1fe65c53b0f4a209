//! Label selectors: a conjunction of requirements on labels, in canonical form.
//!
//! Canonical means sorted, without duplicates, and with `key=v` stored as `key in (v)`. Selectors
//! that differ only in these respects are equal and can be interned. `selector_parser` parses the
//! string syntax.

use std::collections::BTreeSet;
use std::fmt;

use super::labels::{LabelError, Labels, check_key, check_value};

/// The condition of a requirement on its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The key is present with one of these values.
    In(BTreeSet<String>),
    /// The key is absent, or present with none of these values.
    NotIn(BTreeSet<String>),
    /// The key is present.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

/// One condition on one label key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
}

/// An invalid requirement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    /// A key or value breaks the label syntax.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// `in` or `notin` without values.
    #[error("an empty list of values: expected at least one value in the parentheses")]
    NoValues,
}

impl Requirement {
    /// Checks and builds a requirement.
    ///
    /// # Errors
    /// When the key or a value breaks the label syntax, or a value list is empty.
    pub fn new(key: &str, operator: Operator) -> Result<Self, RequirementError> {
        check_key(key)?;
        if let Operator::In(values) | Operator::NotIn(values) = &operator {
            if values.is_empty() {
                return Err(RequirementError::NoValues);
            }
            for value in values {
                check_value(value)?;
            }
        }
        Ok(Self {
            key: key.to_owned(),
            operator,
        })
    }

    /// The label key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The condition on the key.
    #[must_use]
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// True if the labels satisfy it.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// A conjunction of requirements; the empty one selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// Selects everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Builds the canonical selector of these requirements.
    #[must_use]
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort();
        requirements.dedup();
        Self { requirements }
    }

    /// Its requirements in canonical order.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True if it selects everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// True if the labels satisfy every requirement.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let mut requirements = self.requirements.iter();
        requirements.all(|requirement| requirement.matches(labels))
    }
}

fn write_values(
    out: &mut fmt::Formatter<'_>,
    key: &str,
    values: &BTreeSet<String>,
    [one, many]: [&str; 2],
) -> fmt::Result {
    if values.len() == 1 {
        let value = values.first().map_or("", String::as_str);
        return write!(out, "{key}{one}{value}");
    }
    write!(out, "{key} {many} (")?;
    for (index, value) in values.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}{value}")?;
    }
    out.write_str(")")
}

impl fmt::Display for Requirement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.operator {
            Operator::In(values) => write_values(out, &self.key, values, ["=", "in"]),
            Operator::NotIn(values) => write_values(out, &self.key, values, ["!=", "notin"]),
            Operator::Exists => out.write_str(&self.key),
            Operator::DoesNotExist => write!(out, "!{}", self.key),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = Labels::from_pairs(labels.iter().copied()).unwrap();
        selector.parse::<LabelSelector>().unwrap().matches(&labels)
    }

    #[test]
    fn the_empty_selector_selects_everything() {
        assert!(matches("", &[]));
        assert!(matches("  ", &[("a", "b")]));
    }

    #[test]
    fn negative_operators_match_an_absent_key() {
        for selector in ["a!=b", "a notin (b,c)", "!a"] {
            assert!(matches(selector, &[("x", "y")]), "{selector}");
            assert!(!matches(selector, &[("a", "b")]), "{selector}");
        }
        assert!(matches("a!=b", &[("a", "c")]));
        assert!(!matches("!a", &[("a", "")]));
    }

    #[test]
    fn positive_operators_need_the_key() {
        for selector in ["a=b", "a==b", "a in (b,c)", "a"] {
            assert!(!matches(selector, &[("x", "b")]), "{selector}");
            assert!(matches(selector, &[("a", "b")]), "{selector}");
        }
    }

    #[test]
    fn the_empty_value_is_a_value() {
        assert!(matches("a=", &[("a", "")]));
        assert!(!matches("a=", &[]));
        assert!(matches("a in (,x)", &[("a", "")]));
        assert!(!matches("a!=", &[("a", "")]));
        assert!(matches("a!=", &[]));
    }

    #[test]
    fn all_requirements_must_match() {
        let selector = "app=orders,tier in (web,api),!debug,env!=prod";
        assert!(matches(
            selector,
            &[("app", "orders"), ("tier", "api"), ("env", "test")]
        ));
        assert!(!matches(selector, &[("app", "orders"), ("tier", "db")]));
        assert!(!matches(
            selector,
            &[("app", "orders"), ("tier", "api"), ("env", "prod")]
        ));
        assert!(!matches("a=b,a=c", &[("a", "b")]));
    }

    #[test]
    fn selectors_that_differ_only_in_notation_are_equal() {
        let one: LabelSelector = "b,a in (y,x,y),c==1".parse().unwrap();
        let other: LabelSelector = " c in (1) , a in ( x, y ), b , b".parse().unwrap();
        assert_eq!(one, other);
        assert_eq!(one.to_string(), "a in (x,y),b,c=1");
    }
}
