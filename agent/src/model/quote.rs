//! Quoting of text we did not write: names, labels and file contents in messages.
//!
//! Output never holds a control, bidirectional or zero-width character and is bounded in length,
//! so a hostile label cannot rewrite a terminal or flood a log. Quoting is for people; it is not
//! an encoding that anything parses back.

use std::fmt::{self, Write};

/// The most characters of the original that a quotation shows.
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

/// Replaces every deceptive character of a longer text, such as a parser's message that holds a
/// piece of the file; keeps line breaks out as well. Not truncated.
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
    fn escapes_what_could_change_a_terminal() {
        assert_eq!(quote("a\u{1b}[2J\"b").to_string(), r#""a\u{1b}[2J\"b""#);
        assert_eq!(quote("x\u{202e}y\n").to_string(), r#""x\u{202e}y\n""#);
        assert_eq!(sanitise("a\nb\u{7}"), r"a b\u{7}");
    }

    #[test]
    fn truncates_long_text() {
        let long = "a".repeat(500);
        assert_eq!(quote(&long).to_string().chars().count(), MAX_QUOTED + 3);
    }
}
