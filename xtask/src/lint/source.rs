//! The workspace's Rust files as tokens, for rules on source text.
//!
//! Comments are dropped; each string and character literal becomes one [`LITERAL`] token. This is a
//! lexer only: it does not parse the grammar.

use std::fs;
use std::iter::Peekable;
use std::ops::Range;
use std::path::Path;
use std::str::Chars;

use anyhow::{Context as _, Result};

const PACKAGES: [&str; 5] = ["agent", "common", "ebpf", "tests", "xtask"];
/// Stands for any string or character literal.
pub(crate) const LITERAL: &str = "\"\"";

/// One file.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Relative to the root of the checkout, with `/`.
    pub(crate) path: String,
    pub(crate) lines: usize,
    pub(crate) tokens: Vec<Token>,
}

/// A word (identifier, keyword or number), `::`, a literal, a lifetime, or a punctuation mark.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
    /// Where it stands in the file.
    pub(crate) bytes: Range<usize>,
}

impl Token {
    pub(crate) fn is(&self, text: &str) -> bool {
        self.text == text
    }

    pub(crate) fn is_word(&self) -> bool {
        self.text
            .starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

impl SourceFile {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            lines: text.lines().count(),
            tokens: tokens(text),
        }
    }

    /// The file contains only tests, or the oracle, which is built only for tests.
    pub(crate) fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
            || self.path.starts_with("agent/src/oracle/")
    }

    /// The tokens outside items marked `#[cfg(test)]`.
    pub(crate) fn product_tokens(&self) -> Vec<Token> {
        let mut kept = Vec::new();
        let mut rest = self.tokens.as_slice();
        while let Some((token, after)) = rest.split_first() {
            if let Some(attribute) = attribute(rest)
                && is_test_condition(attribute)
            {
                rest = after_item(rest.get(attribute.len()..).unwrap_or_default());
            } else {
                kept.push(token.clone());
                rest = after;
            }
        }
        kept
    }
}

/// Every Rust file of the workspace's packages.
pub(crate) fn all(root: &Path) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for package in PACKAGES {
        collect(root, &root.join(package), &mut files)?;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<SourceFile>) -> Result<()> {
    let unreadable = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(root, &path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let relative = path.strip_prefix(root).unwrap_or(&path);
            files.push(SourceFile::new(&relative.to_string_lossy(), &text));
        }
    }
    Ok(())
}

/// The attribute at the start of `tokens`, including its brackets, if there is one.
pub(crate) fn attribute(tokens: &[Token]) -> Option<&[Token]> {
    let mut ahead = tokens.iter();
    if !ahead.next()?.is("#") {
        return None;
    }
    let mut start = 1;
    if ahead.clone().next()?.is("!") {
        ahead.next();
        start += 1;
    }
    if !ahead.next()?.is("[") {
        return None;
    }
    let length = balanced(tokens.get(start..)?, "[", "]")?;
    tokens.get(..start + length)
}

/// Number of tokens up to the `close` that matches the first `open`.
pub(crate) fn balanced(tokens: &[Token], open: &str, close: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate() {
        if token.is(open) {
            depth += 1;
        } else if token.is(close) {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(index + 1);
            }
        }
    }
    None
}

fn is_test_condition(attribute: &[Token]) -> bool {
    let has = |word: &str| attribute.iter().any(|token| token.is(word));
    attribute
        .iter()
        .find(|token| token.is_word())
        .is_some_and(|token| token.is("cfg"))
        && has("test")
        && !has("not")
        && !has("any")
        && !attribute.get(1).is_some_and(|token| token.is("!"))
}

/// The tokens after the item at the start of `tokens`.
fn after_item(mut tokens: &[Token]) -> &[Token] {
    while let Some(next) = attribute(tokens) {
        tokens = tokens.get(next.len()..).unwrap_or_default();
    }
    let end = tokens
        .iter()
        .position(|token| token.is("{") || token.is(";"));
    let Some(end) = end else { return &[] };
    let rest = tokens.get(end..).unwrap_or_default();
    let length = if rest.first().is_some_and(|token| token.is("{")) {
        balanced(rest, "{", "}").unwrap_or(rest.len())
    } else {
        1
    };
    rest.get(length..).unwrap_or_default()
}

pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        chars: text.chars().peekable(),
        line: 1,
        at: 0,
        start: 0,
        tokens: Vec::new(),
    };
    while let Some(next) = lexer.take() {
        lexer.token(next);
    }
    lexer.tokens
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
    /// How many bytes were taken, and how many of them before this token.
    at: usize,
    start: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn take(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        self.at += next.map_or(0, char::len_utf8);
        next
    }

    fn take_if(&mut self, wanted: char) -> bool {
        self.chars.peek() == Some(&wanted) && self.take().is_some()
    }

    fn push(&mut self, text: &str, line: usize) {
        self.tokens.push(Token {
            text: text.to_owned(),
            line,
            bytes: self.start..self.at,
        });
    }

    fn token(&mut self, first: char) {
        let line = self.line;
        self.start = self.at - first.len_utf8();
        match first {
            '/' if self.take_if('/') => while self.take().is_some_and(|c| c != '\n') {},
            '/' if self.take_if('*') => self.block_comment(),
            '"' => self.string(line),
            '\'' => self.quote(line),
            ':' if self.take_if(':') => self.push("::", line),
            c if c.is_alphanumeric() || c == '_' => self.word(c, line),
            c if c.is_whitespace() => {}
            c => self.push(c.encode_utf8(&mut [0; 4]), line),
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 1usize;
        while let Some(c) = self.take() {
            if c == '*' && self.take_if('/') {
                depth -= 1;
            } else if c == '/' && self.take_if('*') {
                depth += 1;
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self, line: usize) {
        while let Some(c) = self.take() {
            match c {
                '\\' => _ = self.take(),
                '"' => break,
                _ => {}
            }
        }
        self.push(LITERAL, line);
    }

    fn raw_string(&mut self, hashes: usize, line: usize) {
        while let Some(c) = self.take() {
            if c == '"' && (0..hashes).all(|_| self.take_if('#')) {
                break;
            }
        }
        self.push(LITERAL, line);
    }

    /// A character literal or a lifetime.
    fn quote(&mut self, line: usize) {
        let mut ahead = self.chars.clone();
        let (first, second) = (ahead.next(), ahead.next());
        if first != Some('\\') && second != Some('\'') {
            return self.push("'", line);
        }
        while let Some(c) = self.take() {
            match c {
                '\\' => _ = self.take(),
                '\'' => break,
                _ => {}
            }
        }
        self.push(LITERAL, line);
    }

    fn word(&mut self, first: char, line: usize) {
        let mut word = String::from(first);
        while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
            word.push(c);
            self.at += c.len_utf8();
        }
        if matches!(word.as_str(), "r" | "br" | "cr") {
            let mut ahead = self.chars.clone();
            let mut hashes = 0;
            while ahead.next_if_eq(&'#').is_some() {
                hashes += 1;
            }
            if ahead.next() == Some('"') {
                (0..=hashes).for_each(|_| _ = self.take());
                return self.raw_string(hashes, line);
            }
        }
        if matches!(word.as_str(), "b" | "c") && self.chars.peek() == Some(&'"') {
            self.take();
            return self.string(line);
        }
        self.push(&word, line);
    }
}

#[cfg(test)]
#[path = "source/tests.rs"]
mod tests;
