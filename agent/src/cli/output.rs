//! Writing to standard output.
//!
//! Invariants: the caller gets every error, also that of a closed pipe, on which `println!` would
//! panic; JSON is escaped for terminals, like tables.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

use crate::model::quote::is_deceptive;

/// Prints text unchanged; the caller must have made it safe for a terminal.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints a value as indented JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    print(&json(value)?)
}

fn json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    let mut safe = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        // serde_json writes line feeds only between values, never inside strings.
        if character != '\n' && is_deceptive(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(character);
        }
    }
    safe.push('\n');
    Ok(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped_and_parses_to_the_same_value() {
        let value = vec!["a\u{202e}\u{9b}\n\u{e0001}"];
        let text = json(&value).unwrap();
        assert!(text.is_ascii(), "{text}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), value);
    }
}
