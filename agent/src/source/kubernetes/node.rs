//! A YAML or JSON value with its place, before anything is known about its meaning.
//!
//! Invariants: nested at most as deep as `yaml` or the JSON parser allows; keys of a mapping are
//! as written, duplicates have been reported by then. `null` is kept, so that readers can take it
//! for an absent field as `kubectl` does.

use std::borrow::Cow;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node<'a> {
    /// The byte offset in the text; 0 if there is no text.
    pub(super) offset: u32,
    pub(super) value: Value<'a>,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    /// A number that is no decimal integer of 64 bits, or one that others read differently.
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
    /// What kind of value it is, for messages.
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

    /// How many values it holds, itself included.
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
    /// A value that came without text, such as an answer of the Kubernetes API.
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
