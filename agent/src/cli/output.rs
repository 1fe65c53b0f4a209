//! Writing to standard output.
//!
//! Invariants: errors come back to the caller, a closed pipe among them, because `println!` would
//! panic; JSON is escaped for terminals as tables are.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

use crate::model::quote::is_deceptive;

/// Prints text as it is; it must be safe for a terminal already.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Prints a value as JSON over several lines.
pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    print(&json(value)?)
}

fn json(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    let mut safe = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        // JSON itself only has line feeds outside of strings, and none inside.
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
    fn json_is_safe_and_means_the_same() {
        let value = vec!["a\u{202e}\u{9b}\n\u{e0001}"];
        let text = json(&value).unwrap();
        assert!(text.is_ascii(), "{text}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), value);
    }
}
