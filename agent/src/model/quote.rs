//! Quoting of untrusted text in messages: names, labels and file contents.
//!
//! The output contains no control, bidirectional or zero-width characters and is bounded in length,
//! so that a hostile label cannot rewrite a terminal or flood a log. Quoted text is for people; it
//! is not meant to be parsed.

use std::fmt::{self, Write};

/// The maximum number of characters of the original text in a quotation.
pub const MAX_QUOTED: usize = 80;

/// Untrusted text, displayed in double quotes, escaped and truncated.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(&'a str);

/// Quotes untrusted text for a message.
#[must_use]
pub fn quote(text: &str) -> Quoted<'_> {
    Quoted(text)
}

/// True for characters that may change how surrounding text is shown: control characters,
/// bidirectional overrides and isolates, zero-width characters and line separators.
#[must_use]
pub fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Escapes every deceptive character of a longer text, such as a parser's message that contains
/// part of a file, and replaces line breaks by spaces. The text is not truncated.
#[must_use]
pub fn sanitise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n' {
            out.push(' ');
        } else if is_deceptive(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_char('"')?;
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(MAX_QUOTED) {
            match character {
                '"' | '\\' => write!(out, "\\{character}")?,
                '\n' => out.write_str("\\n")?,
                '\t' => out.write_str("\\t")?,
                '\r' => out.write_str("\\r")?,
                _ if is_deceptive(character) => write!(out, "{}", character.escape_unicode())?,
                _ => out.write_char(character)?,
            }
        }
        if characters.next().is_some() {
            out.write_char('…')?;
        }
        out.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_could_affect_a_terminal_are_escaped() {
        assert_eq!(quote("a\u{1b}[2J\"b").to_string(), r#""a\u{1b}[2J\"b""#);
        assert_eq!(quote("x\u{202e}y\n").to_string(), r#""x\u{202e}y\n""#);
        assert_eq!(sanitise("a\nb\u{7}"), r"a b\u{7}");
    }

    #[test]
    fn long_text_is_truncated() {
        let long = "a".repeat(500);
        assert_eq!(quote(&long).to_string().chars().count(), MAX_QUOTED + 3);
    }
}
