//! One Kubernetes object that is being parsed: access to its fields, and findings that name it.
//!
//! Invariants: every finding names the object; an unknown field is refused, with its replacement if
//! it is a field of an older API; `null` counts as absent.

use std::fmt;

use super::legacy_fields;
use super::node::{Node, Value};
use super::yaml::span_at;
use crate::model::quote;
use crate::source::document::{Document, WarningKind};

/// The name of the object and the document that collects its findings.
pub(super) struct Object<'d, 'a> {
    document: &'d mut Document<'a>,
    name: String,
    /// How many errors are about parts without which the object can be used.
    tolerable: usize,
}

impl<'d, 'a> Object<'d, 'a> {
    /// Starts an object that is named like this in messages.
    pub(super) fn new(document: &'d mut Document<'a>, name: String) -> Self {
        Self {
            document,
            name,
            tolerable: 0,
        }
    }

    /// Reads a part of which the errors leave the rest of the object usable. Returns whether there were
    /// none as well.
    pub(super) fn part<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> (T, bool) {
        let (errors, tolerable) = (self.document.errors(), self.tolerable);
        let value = read(self);
        let found = self.document.errors() - errors;
        self.tolerable = tolerable + found;
        (value, found == 0)
    }

    /// How many errors are about parts without which the object can be used.
    pub(super) const fn tolerable(&self) -> usize {
        self.tolerable
    }

    /// The document it is part of.
    pub(super) fn document(&self) -> &Document<'a> {
        self.document
    }

    /// The line of a node.
    pub(super) fn line(&self, node: &Node<'_>) -> u32 {
        self.document.line(span_at(node.offset).start)
    }

    /// Records an error at a byte offset.
    pub(super) fn refuse_at(&mut self, offset: u32, message: impl fmt::Display) {
        let message = format!("{}: {message}", self.name);
        self.document.refuse(span_at(offset), message);
    }

    /// Records an error at a node.
    pub(super) fn refuse(&mut self, node: &Node<'_>, message: impl fmt::Display) {
        self.refuse_at(node.offset, message);
    }

    /// Records a warning at a node.
    pub(super) fn warn(
        &mut self,
        node: &Node<'_>,
        warning_kind: WarningKind,
        message: impl fmt::Display,
    ) {
        let message = format!("{}: {message}", self.name);
        self.document
            .warn(span_at(node.offset), warning_kind, message);
    }

    /// The value, or `None` after recording the error at the node.
    pub(super) fn accept<T, E: fmt::Display>(
        &mut self,
        node: &Node<'_>,
        outcome: Result<T, E>,
    ) -> Option<T> {
        outcome.map_err(|error| self.refuse(node, error)).ok()
    }

    /// The values of these fields; all other fields are refused. `None` if the node is not a
    /// mapping, or has only other fields.
    pub(super) fn fields<'n, const N: usize>(
        &mut self,
        node: &'n Node<'n>,
        what: &str,
        names: [&str; N],
    ) -> Option<[Option<&'n Node<'n>>; N]> {
        let Value::Map(entries) = &node.value else {
            let kind = node.kind();
            let message = format!(
                "{what} is {kind}: expected a mapping with {}",
                names.join(", ")
            );
            self.refuse(node, message);
            return None;
        };
        let mut any_known = entries.is_empty();
        for entry in entries {
            if names.contains(&&*entry.key) {
                any_known = true;
            } else {
                let expected = legacy_fields::replacement_field(what, &entry.key)
                    .map_or_else(|| names.join(", "), str::to_owned);
                let key = quote(&entry.key);
                let message = format!("unknown field {key} in {what}: expected {expected}");
                self.refuse_at(entry.offset, message);
            }
        }
        // If there are only unknown fields, a missing field is not worth a second finding.
        any_known.then(|| names.map(|name| node.get(name)))
    }

    /// The items of a list; `None` if the node is not a list.
    pub(super) fn items<'n>(&mut self, node: &'n Node<'n>, what: &str) -> Option<&'n [Node<'n>]> {
        match &node.value {
            Value::List(items) => Some(items),
            _ => self.refuse_kind(node, what, "a list"),
        }
    }

    /// The items of a list of at most `limit` items.
    pub(super) fn items_up_to<'n>(
        &mut self,
        node: &'n Node<'n>,
        what: &str,
        limit: usize,
    ) -> Option<&'n [Node<'n>]> {
        let items = self.items(node, what)?;
        if items.len() > limit {
            let count = items.len();
            self.refuse(
                node,
                format!("{what} has {count} items: expected at most {limit}"),
            );
            return None;
        }
        Some(items)
    }

    /// The text of a node; `None` if it is not text.
    pub(super) fn text<'n>(&mut self, node: &'n Node<'n>, what: &str) -> Option<&'n str> {
        match node.text() {
            Some(text) => Some(text),
            None => self.refuse_kind(node, what, "text, in quotes if need be"),
        }
    }

    /// A value parsed from the text of a node.
    pub(super) fn parsed<T>(&mut self, node: &Node<'_>, what: &str) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: fmt::Display,
    {
        let parsed = self.text(node, what)?.parse();
        self.accept(node, parsed)
    }

    /// A decimal integer.
    pub(super) fn integer(&mut self, node: &Node<'_>, what: &str) -> Option<i64> {
        match node.value {
            Value::Integer(number) => Some(number),
            _ => self.refuse_kind(node, what, "a decimal integer"),
        }
    }

    /// A port number.
    pub(super) fn port_number(&mut self, node: &Node<'_>, what: &str) -> Option<u16> {
        let number = self.integer(node, what)?;
        let port = u16::try_from(number).ok().filter(|&port| port != 0);
        if port.is_none() {
            let message = format!("{what} is {number}: expected 1 to 65535");
            self.refuse(node, message);
        }
        port
    }

    fn refuse_kind<T>(&mut self, node: &Node<'_>, what: &str, expected: &str) -> Option<T> {
        let kind = node.kind();
        self.refuse(node, format!("{what} is {kind}: expected {expected}"));
        None
    }
}
