//! A YAML or JSON value with its position, before it is interpreted.
//!
//! Invariants: the nesting depth is limited by `yaml` or by the JSON parser; keys of a mapping are
//! as written, and duplicates have already been reported. `null` is kept, so that readers can treat
//! it as an absent field like `kubectl` does.

use std::borrow::Cow;

/// A value and its position.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node<'a> {
    /// The byte offset in the text; 0 for a value without text.
    pub(super) offset: u32,
    pub(super) value: Value<'a>,
}

/// The value of a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    /// A number that is not a decimal 64-bit integer, or that other parsers may read differently.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Map(Vec<Entry<'a>>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry<'a> {
    pub(super) offset: u32,
    pub(super) key: Cow<'a, str>,
    pub(super) value: Node<'a>,
}

impl<'a> Node<'a> {
    /// The kind of value, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Integer(_) | Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// True if it counts as absent.
    pub(super) fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// The value of a key, unless that is null.
    pub(super) fn get(&self, key: &str) -> Option<&Node<'a>> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        let found = entries.iter().find(|entry| entry.key == key)?;
        Some(&found.value).filter(|value| !value.is_null())
    }

    /// Its text, if it is text.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number of values it contains, including itself.
    pub(super) fn count(&self) -> usize {
        match &self.value {
            Value::List(items) => 1 + items.iter().map(Node::count).sum::<usize>(),
            Value::Map(entries) => {
                1 + entries
                    .iter()
                    .map(|entry| 1 + entry.value.count())
                    .sum::<usize>()
            }
            _ => 1,
        }
    }
}

impl<'a> From<&'a serde_json::Value> for Node<'a> {
    /// Converts a value without text, such as a response of the Kubernetes API.
    fn from(json: &'a serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => number.as_i64().map_or_else(
                || Value::Number(Cow::Owned(number.to_string())),
                Value::Integer,
            ),
            serde_json::Value::String(text) => Value::Text(Cow::Borrowed(text)),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Self::from).collect()),
            serde_json::Value::Object(map) => {
                let entry = |(key, value): (&'a String, &'a serde_json::Value)| Entry {
                    offset: 0,
                    key: Cow::Borrowed(key),
                    value: Self::from(value),
                };
                Value::Map(map.iter().map(entry).collect())
            }
        };
        Self { offset: 0, value }
    }
}
