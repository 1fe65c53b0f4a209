//! Finds a piece of code in a file.
//!
//! Code is compared token by token: white space, line breaks and comments do not count, nor does a
//! comma before a closing bracket, so rustfmt may wrap a line. Literals must be identical. A piece need not be complete: `if a {` can be found.

use std::ops::Range;

use crate::lint::source::{Token, tokens};

/// A file, ready to be searched.
pub(super) struct Code<'a> {
    text: &'a str,
    tokens: Vec<Token>,
}

/// Why a piece of code has no unique place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum NotFound {
    /// It is nowhere.
    Gone,
    /// It occurs this many times.
    Ambiguous(usize),
}

impl<'a> Code<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let all = tokens(text);
        let next = all.iter().skip(1).map(Some).chain([None]);
        let counts = |token: &Token, next: Option<&Token>| {
            let closes = next.is_some_and(|next| next.is(")") || next.is("]") || next.is("}"));
            !(token.is(",") && closes)
        };
        let kept = all
            .iter()
            .zip(next)
            .filter(|(token, next)| counts(token, *next));
        Self {
            text,
            tokens: kept.map(|(token, _)| token.clone()).collect(),
        }
    }

    fn words(&self) -> impl Iterator<Item = &'a str> {
        self.tokens
            .iter()
            .filter_map(|token| self.text.get(token.bytes.clone()))
    }

    /// The bytes that `piece` takes, without what is around it.
    pub(super) fn find(&self, piece: &str) -> Result<Range<usize>, NotFound> {
        let wanted = Code::new(piece);
        let mut wanted: Vec<&str> = wanted.words().collect();
        // A comma at the end might stand before a closing bracket in the file.
        if wanted.len() > 1 && wanted.last() == Some(&",") {
            wanted.pop();
        }
        let here: Vec<&str> = self.words().collect();
        let mut found = here
            .windows(wanted.len().max(1))
            .enumerate()
            .filter(|(_, words)| *words == wanted)
            .map(|(index, _)| index);
        let index = found.next().ok_or(NotFound::Gone)?;
        match found.count() {
            0 => self.bytes(index, wanted.len()).ok_or(NotFound::Gone),
            others => Err(NotFound::Ambiguous(others + 1)),
        }
    }

    fn bytes(&self, first: usize, count: usize) -> Option<Range<usize>> {
        let found = self.tokens.get(first..first + count)?;
        Some(found.first()?.bytes.start..found.last()?.bytes.end)
    }
}

/// Whether two pieces are the same code.
pub(super) fn same(one: &str, other: &str) -> bool {
    Code::new(one).words().eq(Code::new(other).words())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "fn f() { // a + b\n    g(\n        a\n            + b,\n        \"a  b\",\n    );\n    a + c\n}";

    fn found(piece: &str) -> Result<&str, NotFound> {
        Ok(&FILE[Code::new(FILE).find(piece)?])
    }

    #[test]
    fn layout_does_not_count() {
        assert_eq!(found("a+b"), Ok("a\n            + b"));
        assert_eq!(
            found("g(a + b, \"a  b\")"),
            Ok("g(\n        a\n            + b,\n        \"a  b\",\n    )")
        );
        assert_eq!(found("a + b,"), Ok("a\n            + b"));
    }

    #[test]
    fn a_piece_may_be_incomplete() {
        assert_eq!(found("fn f() { g("), Ok("fn f() { // a + b\n    g("));
    }

    #[test]
    fn what_is_gone_or_there_twice_is_not_found() {
        assert_eq!(found("a + d"), Err(NotFound::Gone));
        assert_eq!(found("\"a b\""), Err(NotFound::Gone));
        assert_eq!(found("a +"), Err(NotFound::Ambiguous(2)));
        assert_eq!(found(""), Err(NotFound::Gone));
        assert_eq!(found("ab"), Err(NotFound::Gone));
    }

    #[test]
    fn the_same_code_is_told_from_other_code() {
        assert!(same("f( a,\n b, )", "f(a, b)"));
        assert!(!same("f(a)", "f(b)") && !same("\"a\"", "\"b\""));
    }
}
